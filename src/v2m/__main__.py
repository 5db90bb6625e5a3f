"""``python -m v2m``."""

import sys

from v2m.cli import main

sys.exit(main())

"""``python -m v2m``."""

import os
import sys
from pathlib import Path

if sys.path[0] in ("", os.getcwd()):  # Python puts the current folder first: its files would hide libraries
    current = sys.path.pop(0)
    if Path(__file__).parents[1] == Path(current).resolve():  # where this package is
        sys.path.append(current)

try:
    from v2m.cli import main
except KeyboardInterrupt:  # libraries may take seconds to import
    print("v2m: stopped", file=sys.stderr)
    sys.exit(130)

sys.exit(main())

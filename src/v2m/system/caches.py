"""Where this package keeps what it makes or downloads for the user."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's cache of this package: ``$XDG_CACHE_HOME/v2m``, by default ``~/.cache/v2m``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "v2m"

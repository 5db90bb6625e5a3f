"""The ``v2m`` command."""

from v2m.cli.main import main

__all__ = ["main"]

"""Look after datasets: check one, or make one of scenes."""

from v2m.cli.data import check, scenes

COMMANDS = {"check": check, "scenes": scenes}

"""Measure speed and memory; what is wrong is not timed."""

from v2m.cli.bench import models, operators, roofline

COMMANDS = {"operators": operators, "models": models, "roofline": roofline}

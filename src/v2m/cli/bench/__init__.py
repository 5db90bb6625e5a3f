"""Measure speed and memory; what is wrong is not timed."""

from v2m.cli.bench import compare, models, operators, repeat, roofline

COMMANDS = {
    "operators": operators,
    "models": models,
    "compare": compare,
    "repeat": repeat,
    "roofline": roofline,
}

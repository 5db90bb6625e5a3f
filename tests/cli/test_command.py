"""The commands as a table, their help, and what is imported before one of them does something."""

import re
import subprocess
import sys

import pytest

from tests.cli.test_cli import fails
from v2m import __version__
from v2m.cli import main
from v2m.cli.command import COMMANDS, CommandGroup, description

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "accelerate", "sklearn")
WITHOUT_THEM = f"""
import sys
from v2m.cli import main
code = None
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
found = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"imported {{found}}" if found else 40 + code)
"""


GROUPS = {name: command for name, command in COMMANDS.items() if isinstance(command, CommandGroup)}
NAMES = [*COMMANDS, *(f"{name} {inner}" for name, group in GROUPS.items() for inner in group.COMMANDS)]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_lists_every_command_with_a_line_of_its_own(capsys, arguments):
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    assert listed == {name: description(command).splitlines()[0] for name, command in COMMANDS.items()}
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_help_has_a_description_of_every_argument(capsys, name):
    if name in GROUPS:
        assert main([name, "--help"]) == 0
    else:
        with pytest.raises(SystemExit, match="0"):
            main([*name.split(), "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: v2m {name} ")
    for line in out.splitlines():
        assert not re.fullmatch(r"  --\S+(?: \S+)?  +\(type.*", line), "an option without a description"


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"v2m {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("", 0),
        ("--version", 0),
        *((f"{name} --help", 0) for name in NAMES),
        ("trian", 2),
        ("train --lr 1", 2),
        ("train digits", 2),
        ("train --data digits --epochs 0", 1),
        ("train --data digits --precision fp61", 2),
        ("eval run --nothing 1", 2),
        ("study digits-paths --nothing 1", 2),
        ("bench models --nothing 1", 2),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(arguments, code):
    command = [sys.executable, "-c", WITHOUT_THEM, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 40 + code, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("trian", "v2m has no command 'trian'; did you mean 'train'?"),
        ("--vesion", "v2m has no option --vesion; did you mean --version?"),
        ("data chek x", "v2m data has no command 'chek'; did you mean 'check'?"),
        ("data", "v2m data expects one of check, scenes (see v2m data --help)"),
        ("train --data x --lr 1", "v2m train has no option --lr; did you mean --optimizer.lr?"),
        ("train --data x --img_size 32", "has no option --img_size; did you mean --input.img_size?"),
        ("train --data x --optimiser.lr 1", "has no option --optimiser.lr; did you mean --optimizer.lr?"),
        ("train --data x --batch-size 1", "has no option --batch-size; did you mean --batch_size?"),
        ("train --data x -lr=1", "has no option -lr; did you mean --optimizer.lr?"),
        ("train --data x --weight-decay 1", "did you mean --optimizer.weight_decay?"),
        ("train --data x --xyzzy 1", "v2m train has no option --xyzzy (see v2m train --help)"),
        ("train digits", "v2m train takes no argument 'digits' here; did you mean --data digits?"),
        ("train some/folder --epochs 3", "did you mean --data some/folder?"),
        ("train --data x y", "v2m train takes no argument 'y' here (see v2m train --help)"),
        ("eval run digits", "did you mean --data digits?"),
        ("train --data x --precision fp61", "--precision: 'fp61' is none of fp32, bf16, fp16; did you mean"),
        ("train --data x --trackers wadb", "--trackers: 'wadb' is none of tensorboard, wandb, trackio; did"),
        ("train --data x --input.img_size a", "--input.img_size: expected int, [int, int] or null, got 'a'"),
        ("train", "--data is required (see v2m train --help)"),
        ("predict run", "images is required (see v2m predict --help)"),
        ("kernels biuld", "action: 'biuld' is none of build, status, clear; did you mean build?"),
        ("bench roofline --grid 0", "--grid is 0, expected at least 1"),
        ("study digits-paths --seeds -1", "--seeds is -1, expected at least 0"),
    ],
)
def test_a_mistake_names_the_nearest(capsys, arguments, words):
    code, error = fails(capsys, *arguments.split())
    assert code == 2
    assert words in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --data digits --epochs 0", "error: --epochs is 0, expected at least 1"),
        ("train --data digits --optimizer.lr 0", "error: --optimizer.lr is 0.0, expected a positive number"),
        ("train --data digits --task clasification", "error: --task: 'clasification' is no task"),
        ("train --recipe digit", "error: --recipe: 'digit' is no recipe"),
        ("train --data /no/folder", "error: --data: "),
        (
            "train --data digits --model v2m_micr",
            "error: --model: 'v2m_micr' is no model, nearest: v2m_micro",
        ),
        ("train --resume auto --data digits", "error: --resume: auto looks for a run in --output"),
        ("eval digits", "error: digits is a dataset, expected the folder of a model; did you mean --data"),
        ("list nothing", "error: pattern: no model matches 'nothing'"),
    ],
)
def test_an_error_begins_with_the_option_as_it_is_typed(capsys, arguments, words):
    code, error = fails(capsys, *arguments.split())
    assert code == 1
    assert words in error


def test_a_setting_of_a_file_has_the_nearest_too(capsys, tmp_path):
    file = tmp_path / "settings.yaml"
    for text, words in (("epoch: 3", "setting epoch; did"), ("optimizer: {lrr: 1}", "mean optimizer.lr?")):
        file.write_text(text)
        code, error = fails(capsys, "train", "--data", "digits", "--config", str(file))
        assert code == 2
        assert words in error

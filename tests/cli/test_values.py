import pytest
import yaml

from v2m.cli import main
from v2m.cli.values import with_brackets
from v2m.tasks.classification.config import ClassificationConfig


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--trackers wandb", "--trackers=[wandb]"),
        ("--trackers wandb tensorboard --epochs 3", "--trackers=[wandb, tensorboard]|--epochs|3"),
        ("--trackers wandb,trackio", "--trackers=[wandb,trackio]"),
        ("--trackers=wandb", "--trackers=[wandb]"),
        ("--trackers [wandb]", "--trackers=[wandb]"),
        ("--trackers []", "--trackers=[]"),
        ("--trackers", "--trackers"),
        ("--input.mean 0.5 -0.5 .5", "--input.mean=[0.5, -0.5, .5]"),
        ("--input.mean null", "--input.mean=null"),
        ("--input.img_size 32", "--input.img_size=32"),
        ("--input.img_size 32 48", "--input.img_size=[32, 48]"),
        ("--input.img_size [32, 48]", "--input.img_size=[32, 48]"),
        ("--compile --epochs 3", "--compile=true|--epochs|3"),
        ("--compile false", "--compile|false"),
        ("--data digits --model_args.depth 3", "--data|digits|--model_args.depth|3"),
    ],
)
def test_lists_need_no_brackets_and_switches_no_value(typed, expected):
    assert with_brackets(typed.split(), ClassificationConfig) == expected.split("|")


def test_the_command_line_takes_them(capsys):
    options = [
        "--trackers",
        "wandb",
        "tensorboard",
        "--input.img_size",
        "16",
        "24",
        "--channels_last",
        "--epochs=3",
    ]
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--data", "digits", "--print_config", *options])
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["trackers"] == ["wandb", "tensorboard"]
    assert found["input"]["img_size"] == [16, 24]
    assert (found["channels_last"], found["epochs"]) == (True, 3)

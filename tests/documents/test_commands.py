"""The commands of every document are ones that there are: options, values, targets, extras and scripts."""

import pytest

from tests.documents.blocks import PAGES, find_blocks, find_commands, read_page, split_command
from tests.documents.parsing import ParsingError, parse_command, v2m_arguments
from tests.documents.things import make_things


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_documents_are_accepted(page, tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    refused = []
    for line, command in find_commands(page, read_page(page)):
        words = split_command(command)
        # The parser itself reads configurations and runs to go on with, and nothing else.
        make_things(tmp_path, " ".join(words) if {"--config", "--resume"} & set(words) else "", kept)
        try:
            parse_command(words)
        except ParsingError as error:
            refused.append(f"{page}:{line}: {command}\n    {error}")
    assert not refused, "\n".join(refused)


def test_there_are_commands():
    commands = find_commands("README.md", read_page("README.md"))
    assert sum(v2m_arguments(split_command(command)) is not None for _, command in commands) > 20


@pytest.mark.parametrize(
    "command",
    [
        "v2m train --data digits --optimizer.lrr 1",
        "v2m train --data digits --epochs three",
        "v2m train --recipe imagenet-tinny --data FOLDER",
        "torchrun --nproc_per_node 8 -m v2m train --data FOLDER --epoch 3",
        "OMP_NUM_THREADS=1 v2m bench model",
        "v2m predit runs/RUN photo.jpg",
        ".venv/bin/v2m list --flop",
        "make tests",
        "pip install '.[detektion]'",
        "pip install 'v2m[hf,parket]'",
        "sbatch docs/slurn.sh --data FOLDER",
        "vm2 train",
    ],
)
def test_a_command_that_would_be_refused_is_caught(command):
    with pytest.raises(ParsingError):
        parse_command(split_command(command))


def test_blocks_and_commands_are_found_where_they_are():
    text = (
        "Run `v2m list` or `v2m train\n--data digits`:\n\n"
        "```console\n$ make demo  # all\nprinted\n$ v2m eval \\\n    RUN\n$ v2m list | head\n```\n\n"
        "    v2m study digits > file\n    no command\n\n```python\nv2m = 1\n```\n"
    )
    assert [(block.line, block.language) for block in find_blocks("page", text)] == [
        (5, "console"),
        (12, ""),
        (16, "python"),
    ]
    commands = find_commands("page", text)
    assert [line for line, _ in commands] == [1, 5, 7, 9, 12]
    assert [split_command(command) for _, command in commands] == [
        ["v2m", "train", "--data", "digits"],
        ["make", "demo"],
        ["v2m", "eval", "runs/RUN"],
        ["v2m", "list"],
        ["v2m", "study", "digits"],
    ]

"""The commands of documents run, with small models and one epoch, where that takes seconds."""

import re

import pytest

from tests.documents.blocks import PAGES, find_commands, read_page, split_command
from tests.documents.figures import DIGITS
from tests.documents.parsing import v2m_arguments
from tests.documents.results import read_log
from tests.documents.things import make_things, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NOT_RUN = {
    r"torchrun |--nnodes": "several processes; tests/engine/test_parallel.py has them",
    r"imagenet|finetune-384|ade20k|coco-mask": "images to download; tests/recipes/test_smoke.py trains them",
    r"cifar|tiny-imagenet|camvid": "images to download",
    r"--pretrained timm": "weights to download",
    r"fashion-mnist|scenes|garments": "Fashion-MNIST; tests/recipes/test_smoke.py trains on it",
    r"v2m study ": "many runs; tests/studies/ has them",
    r"v2m bench ": "minutes; tests/benchmark/ has it",
    r"v2m refine ": "a model with the mixer exact; tests/explain/ has it",
    r"v2m convert ": "a checkpoint of the released code, or a new folder; tests/cli/test_cli.py has it",
    r"--task |/shared/|--detect|--scales|--window|--precision bf16|--config my.yaml": "only parsed",
    r"runs/(detector|segmenter)": "a detector or a segmenter; tests/tasks/ has them",
}
"""Commands that are only parsed, by what is in them, and why."""
INSTEAD = {
    # The run of things.py knows the digits, and a teacher has the classes of its student.
    "v2m eval runs/RUN --data OTHER": "v2m eval RUN --data digits",
    "v2m train --data FOLDER --distill.teacher runs/RUN": "v2m train --data digits --distill.teacher RUN",
    # These recipes name a run themselves.
    "v2m train --recipe digits-finetune": "v2m train --recipe digits-finetune --pretrained RUN",
    "v2m train --recipe digits-distill": "v2m train --recipe digits-distill --distill.teacher RUN",
    "v2m train --resume runs/RUN --epochs 15": "v2m train --resume RUN --epochs 2",
}
SMALL = ["--epochs=1", "--device=cpu", "--model_args.embed_dim=8", "--model_args.depth=1"]


def commands_to_run():
    """Each command of ``v2m`` once: (page and line, words)."""
    found = {}
    for page in PAGES:
        for line, command in find_commands(page, read_page(page)):
            words = split_command(command)
            text = " ".join(words)
            if v2m_arguments(words) is not None and not any(re.search(reason, text) for reason in NOT_RUN):
                found.setdefault(text, (f"{page}:{line}", split_command(INSTEAD.get(text, command))))
    return found.values()


@pytest.mark.parametrize(("place", "words"), [pytest.param(*pair, id=pair[0]) for pair in commands_to_run()])
def test_a_command_runs(place, words, tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    # What a command writes is not there before.
    given = words[: words.index("--output")] if "--output" in words else words
    make_things(tmp_path, " ".join(given), kept)
    arguments = v2m_arguments(words)
    is_whole = {"--print_config", "--help"} & set(arguments) or "--resume runs/" in " ".join(arguments)
    if arguments[0] == "train" and not is_whole:
        arguments += SMALL
    if {"--print_config", "--help"} & set(arguments):
        with pytest.raises(SystemExit, match="0"):
            run(*arguments)
    else:
        run(*arguments)


def shapes(text):
    """The kinds of lines of a text, each once, without numbers, spaces and places of programs."""
    text = re.sub(r"\S*\bpython -m v2m |\S*\bv2m (?=eval|predict)", "v2m ", text)
    text = re.sub(r"\S*\bpython ", "python ", text)
    # The best weights may be the last ones or not, threads may be one or several.
    text = re.sub(r"(?m)^(of the last weights),.*|(?<=\w)/best$|(?<=thread)s\b", r"\1", text)
    text = re.sub(r"\d[\d,.]*(e-\d+)?", "0", text.replace("%", ""))
    return list(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))


def test_the_first_run_prints_what_the_readme_shows(tmp_path, monkeypatch):
    """If this fails: record the run again, as benchmarks/results/README.md says, and make docs."""
    monkeypatch.chdir(tmp_path)
    printed = run("train", "--data", "digits", *SMALL, "--epochs=2")
    assert shapes(printed) == shapes(read_log(DIGITS))


def test_every_reason_not_to_run_is_used():
    texts = [
        " ".join(split_command(command))
        for page in PAGES
        for _, command in find_commands(page, read_page(page))
    ]
    assert [reason for reason in NOT_RUN if not any(re.search(reason, text) for text in texts)] == []
    assert INSTEAD.keys() <= set(texts)

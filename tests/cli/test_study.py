import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from PIL import Image

from tests.cli.test_cli import fails
from tests.helpers import REPOSITORY
from tests.studies.test_run import tiny_study, train_here
from v2m.cli import main
from v2m.studies.catalogue import STUDIES

PROGRAM = """
import sys
from tests.studies.test_run import tiny_study
from v2m.cli import main
from v2m.studies.catalogue import STUDIES
STUDIES["tiny"] = tiny_study(sys.argv[1], epochs=100000)
sys.exit(main(["study", *sys.argv[2:]]))
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def tiny(image_folder, monkeypatch):
    study = tiny_study(image_folder)
    monkeypatch.setitem(STUDIES, "tiny", study)
    return study


def runs_of(study, output):
    return study.runs(output, STUDIES["digits"].base.data_dir, study.seeds)


def test_a_study_leaves_table_results_plot_and_commands(tiny, output, capsys):
    runs = runs_of(tiny, output)
    for run in runs:
        train_here(run)
    assert main(["study", "tiny", "--output", str(output)]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    text = (output / "table.md").read_text()
    assert text.startswith("# Widths\n")
    assert "runs are done" not in text
    table = text[text.index("|") :].splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["variant", "---", "narrow", "wide"]
    assert [line.split("|")[4].strip() for line in table[2:]] == ["2", "2"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert all(" ".join(line.replace("|", "").split()) in lines for line in (table[0], *table[2:]))

    content = json.loads((output / "results.json").read_text())
    assert [(row["label"], row["seed"]) for row in content["runs"]] == [
        ("narrow", 0), ("wide", 0), ("narrow", 1), ("wide", 1)
    ]  # fmt: skip
    with Image.open(output / "study.png") as image:
        assert image.size > (600, 200)
    commands = (output / "commands.sh").read_text().splitlines()
    assert commands[0] == "#!/bin/sh"
    assert [shlex.split(line) for line in commands[2:]] == [["v2m", "train", *run.arguments] for run in runs]


def test_a_failed_run_is_reported_and_the_others_are_in_the_table(tiny, output, capsys):
    *done, occupied = runs_of(tiny, output)
    for run in done:
        train_here(run)
    occupied.folder.create()
    (occupied.folder.path / "precious").write_text("data")
    assert main(["study", "tiny", "--only", "wide", "--output", str(output)]) == 1
    out, error = capsys.readouterr()
    message = f"--output: {occupied.folder.path} is not empty"
    assert out.startswith("Widths: 2 runs, ")
    assert f"wide-seed1  failed: {message}" in out
    assert error.startswith(f"v2m: error: wide-seed1: {message}")
    assert error.count("\n") == 1
    assert [path.name for path in occupied.folder.path.iterdir()] == ["precious"]
    assert message in (output / "wide-seed1.log").read_text()
    assert "3 of 4 runs are done" in (output / "table.md").read_text()
    assert len(json.loads((output / "results.json").read_text())["runs"]) == 3


def test_ctrl_c_lets_every_run_save_and_says_how_to_go_on(image_folder, output):
    arguments = ["tiny", "--seeds", "0", "--jobs", "2", "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(image_folder), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = [output / f"{label}-seed0" / "metrics.jsonl" for label in ("narrow", "wide")]
    deadline = time.monotonic() + 120
    while not all(path.is_file() for path in metrics) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert out == "Widths: 2 runs, 2 at a time\n"
    assert error == (
        "v2m: stopping, the runs are being saved; Ctrl-C again stops at once\n"
        "v2m: stopped with 0 of 2 runs done; "
        f"continue with: v2m study tiny --seeds 0 --jobs 2 --output {output}\n"
    )
    for path in metrics:
        assert list(path.parent.glob("checkpoints/*.pt"))
        assert len(path.read_text().splitlines()) >= 1
    assert not list(output.glob("*.log"))


def test_one_study_at_a_time_in_a_folder(tiny, output, capsys):
    output.mkdir()
    with FileLock(output / ".lock"):
        assert fails(capsys, "study", "tiny", "--output", str(output)) == (
            1,
            f"v2m: error: --output: another v2m study is at work in {output}\n",
        )


def test_changed_settings_are_an_error_before_anything_is_trained(tiny, output, image_folder, capsys):
    train_here(runs_of(tiny, output)[0])
    STUDIES["tiny"] = tiny_study(image_folder, epochs=5)
    code, error = fails(capsys, "study", "tiny", "--output", str(output))
    assert code == 1
    assert f"{output}/narrow-seed0 was trained with epochs 2, the study has 5" in error
    assert [path.name for path in output.iterdir()] == ["narrow-seed0"]


def test_help_lists_the_studies(capsys):
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    shown = "".join(capsys.readouterr().out.split())  # lines are broken at blanks and hyphens
    for name, study in STUDIES.items():
        assert "".join(f"{name} ({study.title})".split()) in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["digitz"], 1, ["'digitz' is no study", "digits (Directions of v2m_nano"]),
        (["digits", "--only", "corner"], 1, ["'corner' is no variant", "corners, rows-first"]),
        (["digits", "--jobs", "0"], 2, ["jobs", "0"]),
        (["digits", "--seeds", "-1"], 2, ["seeds", "-1"]),
        (["digits", "--seed", "1"], 2, ["did you mean --seeds?"]),
        ([], 2, ["name"]),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(capsys, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    got, error = fails(capsys, "study", *arguments)
    assert got == code
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())

"""Run folders of others: what is planted in them leads no command to write elsewhere."""

# ruff: noqa: F811 - fixtures

import os
import subprocess
import sys

import pytest

from tests.cli.test_cli import fails, run  # noqa: F401 - a fixture
from v2m.cli import main
from v2m.cli.output import PredictionFiles
from v2m.system.errors import DataError

WRITTEN = [
    "confusion_matrix.png",
    "predictions.png",
    "unreadable.jsonl",
    "metrics.jsonl",
    "learning_curve.png",
    "model.safetensors",
    "config.json",
]


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that nothing may write to."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    (path / "file").write_text("precious")
    before = path.stat().st_mtime_ns
    yield path
    assert [file.name for file in path.iterdir()] == ["file"]
    assert path.stat().st_mtime_ns == before


def plant_links(folder, victim):
    """Links at the names of files, unless they are read, and of the partial files of earlier versions."""
    for name in WRITTEN:
        if name not in ("model.safetensors", "config.json"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(victim)
        (folder / f".{name}.partial").symlink_to(victim)
    (folder / ".train.yaml.partial").symlink_to(victim)
    (folder / "checkpoints" / ".checkpoint.partial").symlink_to(victim)


def test_eval_replaces_links(run, victim, image_folder, capsys):
    plant_links(run, victim)
    (image_folder / "val" / "red" / "3.png").write_bytes(b"")
    assert main(["eval", str(run)]) == 1
    for name in WRITTEN[:3]:
        assert not (run / name).is_symlink()


def test_resuming_replaces_links(run, victim, capsys):
    plant_links(run, victim)
    assert main(["train", "--resume", str(run), "--epochs=3"]) == 0
    links = [name for name in WRITTEN if (run / name).is_symlink()]
    assert links == ["unreadable.jsonl"]  # of which there are none


@pytest.mark.parametrize("name", [".lock", "checkpoints", "best"])
def test_resuming_refuses_links(run, elsewhere, capsys, name):
    if (run / name).exists():
        (run / name).rename(run / "before")
    (run / name).symlink_to(elsewhere)
    code, error = fails(capsys, "train", "--resume", str(run), "--epochs=3")
    assert code == 1
    assert f"{run / name} is a link, and nothing is written through it; " in error


@pytest.mark.parametrize("name", ["eval-images", "probe-images"])
def test_linked_folders_of_results_are_refused(run, elsewhere, image_folder, tmp_path, capsys, name):
    (run / name).symlink_to(elsewhere)
    arguments = [name.partition("-")[0], str(run), "--data", str(image_folder)]
    code, error = fails(capsys, *arguments)
    assert code == 1
    assert error.endswith(
        f"{run / name} is a link, and nothing is written through it; name a folder by --output\n"
    )
    assert main([*arguments, "--output", str(tmp_path / "own")]) == 0


def test_a_linked_folder_of_parts_is_refused(run, elsewhere, image_folder, capsys):
    folder = run / "probe-images"
    folder.mkdir()
    (folder / "train.npz.parts").symlink_to(elsewhere)
    code, error = fails(capsys, "probe", str(run), "--data", str(image_folder))
    assert code == 1
    assert f"{folder}/train.npz.parts is a link, and nothing is written through it; delete it" in error


def test_a_linked_folder_of_predictions_is_refused(tmp_path, elsewhere):
    (tmp_path / "predictions").symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"predictions is a link, .* name a folder by --output$"):
        PredictionFiles(None, str(tmp_path), [])
    assert PredictionFiles(str(tmp_path / "predictions"), str(tmp_path), []).folder.is_dir()


def test_a_run_behind_the_users_own_link(run, tmp_path, capsys):
    (tmp_path / "mine").symlink_to(run)
    assert main(["eval", str(tmp_path / "mine")]) == 0
    assert main(["train", "--resume", str(tmp_path / "mine"), "--epochs=3"]) == 0


def test_folders_and_pipes_in_the_place_of_pictures(run, capsys):
    for name in WRITTEN[:2]:
        (run / name).unlink()
    os.mkfifo(run / "confusion_matrix.png")
    (run / "predictions.png").mkdir()
    code, error = fails(capsys, "eval", str(run))
    assert code == 1
    assert f"{run}/predictions.png: " in error
    assert (run / "confusion_matrix.png").is_file()


def test_a_pipe_in_the_place_of_the_lock(run, capsys):
    os.mkfifo(run / ".lock")
    code, error = fails(capsys, "train", "--resume", str(run))
    assert code == 1
    assert f"{run}/.lock is no regular file" in error


@pytest.mark.slow
def test_four_evaluations_at_a_time(run):
    command = [sys.executable, "-m", "v2m", "eval", str(run)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert not list(run.glob(".*"))

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.studies.test_run import epochs, tiny_study, train_here
from v2m.studies.processes import train_runs


def test_runs_are_trained_continued_or_skipped_as_they_need(image_folder, tmp_path):
    runs = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0, 1))[:3]
    done, stopped, new = runs
    train_here(done)
    train_here(stopped, epochs=1)
    new.folder.create()
    new.folder.write_config(new.config)  # stopped before anything was saved
    victim = tmp_path / "victim"
    victim.write_text("precious")
    new.folder.path.with_name(f"{new.name}.log").symlink_to(victim)
    before = max(done.folder.path.glob("checkpoints/*.pt")).stat().st_mtime_ns
    ended, console = [], Console(file=io.StringIO())
    assert train_runs(runs, 2, console, ended.append) == {}

    assert sorted(run.name for run in ended) == [new.name, stopped.name]
    assert [epochs(run) for run in runs] == [[1, 2], [1, 2, 3], [1, 2]]
    assert max(done.folder.path.glob("checkpoints/*.pt")).stat().st_mtime_ns == before
    assert not list((tmp_path / "study").glob("*.log"))
    assert victim.read_text() == "precious"
    for run in runs:
        run.check()
    lines = console.file.getvalue().splitlines()
    told = [line.split("  ")[:2] for line in lines if "accuracy" in line]
    assert [count for count, _ in told] == ["2/3 done", "3/3 done"]
    assert [name for _, name in told] == [run.name for run in ended]


def test_nothing_is_started_where_all_is_done(image_folder, tmp_path):
    (run,) = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    train_here(run)
    files = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*")}
    assert train_runs([run], 1, Console(file=io.StringIO()), pytest.fail) == {}
    assert {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*")} == files


def test_runs_take_no_modules_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("jsonargparse", "timm", "v2m", "io"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')")
    (run,) = tiny_study(tmp_path / "nothing").runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    failures = train_runs([run], 1, Console(file=io.StringIO()), lambda run: None)
    assert "neither a dataset" in failures[run.name]
    assert not (tmp_path / "imported").exists()

import io
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.engine.test_train import SMALL, StopError, stop_after
from v2m.data import AugmentConfig
from v2m.engine.resolve import resolve
from v2m.engine.train import train
from v2m.studies.processes import train_runs
from v2m.studies.study import Study, Variant
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import OptimizerConfig


def tiny_study(data, epochs=2):
    """Two variants of a very small model."""
    wide = SMALL["model_args"] | dict(embed_dim=24)
    return Study(
        title="Widths",
        base=ClassificationConfig(str(data), epochs=epochs, augment=AugmentConfig(scale=(0.5, 1.0)), **SMALL),
        variants={
            "narrow": Variant("16 channels"),
            "wide": Variant("24 channels", dict(model_args=wide, epochs=epochs + 1)),
        },
        seeds=(0, 1),
    )


def train_here(run, epochs=None):
    """Train a run in this process, until it is stopped after some epochs."""
    with suppress(StopError):
        train(run.config, Console(file=io.StringIO()), on_epoch=stop_after(epochs))


def epochs(run):
    return [row["epoch"] for row in run.folder.read_metrics()]


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


def test_a_run_with_other_settings_is_named(image_folder, tmp_path, monkeypatch):
    (run,) = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    run.check()
    train_here(run, epochs=1)
    run.check()
    monkeypatch.chdir(image_folder.parent)
    replace(run, config=replace(run.config, data=image_folder.name, workers=1, data_dir="elsewhere")).check()
    for change, words in (
        (dict(epochs=7), "epochs 2, the study has 7"),
        (dict(optimizer=OptimizerConfig(lr=1e-5)), "optimizer.lr 0.004, the study has 1e-05"),
        (dict(model_args={}), "the study has {}"),
        (dict(augment=AugmentConfig(scale=(0.5, 0.75))), r"augment.scale \[0.5, 1.0\], the study has"),
    ):
        with pytest.raises(ValueError, match=f"^output: .*narrow-seed0 was trained with .*{words}"):
            replace(run, config=replace(run.config, **change)).check()
    with pytest.raises(ValueError, match="'v2m_nanno' is no model"):
        replace(run, config=replace(run.config, model="v2m_nanno")).check()


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


@pytest.mark.parametrize("text", ['{"epoch": 1}', '{"epoch": 1, "seconds": "x"}', "[1]", "[" * 100_000])
def test_damaged_metrics_are_named(image_folder, tmp_path, text):
    (run,) = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    run.folder.create()
    run.folder.write_config(resolve(run.config))
    run.folder.metrics.write_text(text)
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged in line 1.*--resume"):
        run.check()

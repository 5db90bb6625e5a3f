import io
import json
import os
import pkgutil
import re
import sqlite3
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers import REPOSITORY
from v2m import engine
from v2m.engine import trackers
from v2m.engine.trackers import Trackers, check_trackers
from v2m.system import extras
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import settings

CONFIG = settings(ClassificationConfig("digits", model_args=dict(d_state=8)))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "digits-v2m_nano"
    folder.mkdir()
    return folder


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=40)


def track(names, run, console, first, last):
    """Log the steps from ``first`` to ``last``."""
    with Trackers(names, run, CONFIG, first - 1, console) as started:
        for step in range(first, last + 1):
            started.log(dict(loss=1 / step, epoch=1), step)


def test_tensorboard_goes_on_where_the_run_does(run, console):
    track(["tensorboard"], run, console, 1, 5)
    track(["tensorboard"], run, console, 4, 7)  # stopped after step 5, the last checkpoint was of step 3
    assert console.file.getvalue() == ""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(step, pytest.approx(1 / step)) for step in range(1, 8)]


def test_tensorboard_lists_the_settings_once(run, console):
    track(["tensorboard"], run, console, 1, 1)
    track(["tensorboard"], run, console, 2, 2)
    (kept,) = run.glob("tensorboard/*/events*")
    events = EventAccumulator(str(kept.parent))
    events.Reload()
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer.lr" in start
    assert json.dumps(dict(d_state=8)).encode() in start


def test_wandb_goes_on_where_the_run_does(run, console, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    track(["wandb"], run, console, 1, 5)
    track(["wandb"], run, console, 4, 7)
    assert console.file.getvalue() == ""
    first, second = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name == f"run-{(run / 'wandb' / 'run-id').read_text()}.wandb"
    for name in ("digits-v2m_nano", "optimizer.lr", "loss"):
        assert name.encode() in first.read_bytes()


def test_trackio_goes_on_where_the_run_does(run, console, tmp_path):
    pytest.importorskip("trackio")
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from tests.engine.test_trackers import track\n"
        "for first, last in (1, 5), (4, 7):\n"
        "    track(['trackio'], Path(sys.argv[1]), Console(), first, last)"
    )
    environment = os.environ | dict(TRACKIO_DIR=str(tmp_path / "trackio"))  # trackio reads it once
    shown = subprocess.run(
        [sys.executable, "-c", code, run],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "warning" not in shown.stdout
    with sqlite3.connect(tmp_path / "trackio" / "v2m.db") as database:
        rows = database.execute("SELECT run_name, run_id, step FROM metrics ORDER BY id").fetchall()
    assert {(name, id_) for name, id_, _ in rows} == {("digits-v2m_nano", rows[0][1])}
    assert [step for *_, step in rows] == [1, 2, 3, 4, 5, 4, 5, 6, 7]


def test_a_library_that_is_not_there_is_named_with_its_command(monkeypatch):
    folder = ModuleSpec("wandb", None)  # what wandb leaves in the working directory looks like a package
    found = dict(tensorboard=find_spec("tensorboard"), wandb=folder, trackio=None)
    monkeypatch.setattr(extras, "find_spec", found.get)
    check_trackers([])
    check_trackers(["tensorboard"])
    message = re.escape("trackers: wandb, trackio not installed: pip install wandb trackio")
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_trackers(["tensorboard", "wandb", "trackio"])


class Broken(trackers.TensorBoardTracker):
    """Fails at one of its methods."""

    def __init__(self, run, method):
        super().__init__("broken", run)
        setattr(self, method, self.fail)

    def fail(self, *args, **kwargs):
        raise ConnectionError("the network is gone\nand more")


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_left_and_the_others_go_on(run, console, monkeypatch, method):
    monkeypatch.setitem(trackers.STARTS, "wandb", lambda run, config, step: Broken(run, method))
    track(["wandb", "tensorboard"], run, console, 1, 3)
    assert console.file.getvalue() == (
        "warning: wandb fails (the network is gone); training goes on without it\n"
    )
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_other_processes_than_the_main_one_send_nothing(run, console, monkeypatch):
    monkeypatch.setattr(trackers.PartialState, "is_main_process", False)
    track(["tensorboard", "wandb"], run, console, 1, 3)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(engine.__path__)])
def test_importing_the_engine_imports_no_tracker(name, monkeypatch):
    for tracker in ("tensorboard", "torch.utils.tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, tracker, None)  # cannot be imported
    spec = find_spec(f"{engine.__name__}.{name}")
    spec.loader.exec_module(module_from_spec(spec))  # once more, for nobody


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("tensorboard", "tensorboard"),
        ("tensorboard", "tensorboard/hparams.yml"),
        ("wandb", "wandb"),
        ("wandb", "wandb/run-id"),
    ],
)
def test_nothing_is_read_or_written_through_links(run, console, tmp_path, name, planted):
    victim = tmp_path / "victim"
    if "/" in planted:
        victim.write_text("precious")
    else:
        victim.mkdir()
    (run / planted).parent.mkdir(exist_ok=True)
    (run / planted).symlink_to(victim)
    track([name], run, console, 1, 1)
    assert f"warning: {name} fails (" in console.file.getvalue()
    assert f"{planted} is a link, and nothing is written through it; delete it)" in console.file.getvalue()
    assert victim.read_text() == "precious" if victim.is_file() else not any(victim.iterdir())

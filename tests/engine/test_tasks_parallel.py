"""Two processes, started as by torchrun, with gloo: they detect and segment as one does."""

import json
import re

import pytest

from tests.engine.test_parallel import CALLS, fork, text_of
from tests.engine.test_tasks import SMOOTH, TIMES, distances, outcome
from tests.scenes import TASKS, make_scenes, train_arguments
from v2m.cli import main
from v2m.data.loading import EvalLoader
from v2m.engine import parallel
from v2m.engine.evaluate import evaluate
from v2m.engine.run_folder import RunFolder
from v2m.tasks import load_model

ALIKE = dict(
    detection=["--head.detector=retinanet", "--augment.jitter=[1, 1]", "--augment.crop_size=64"],
    segmentation=["--head.dropout=0", "--loss.auxiliary=0"],
)
"""What does not depend on who has which image: no regions are drawn, no units dropped, all have one size."""
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of which half have no objects, and one to train on and one to validate on are unreadable."""
    folder = make_scenes(tmp_path_factory.mktemp("data"), train=12, val=6)
    file = folder / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] % 2]
    file.write_text(json.dumps(content))
    for broken in ("train/000003.png", "val/000004.png"):
        (folder / "images" / broken).write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def together(scenes, tmp_path_factory):
    """The folder of what two processes did."""
    parent = tmp_path_factory.mktemp("runs")
    (parent / "calls.py").write_text(CALLS)
    calls = []
    for task in TASKS:
        for name, more in ((task, []), (f"{task}-divided", ["--fsdp=true"])):
            arguments = train_arguments(task, scenes, parent / name, *SMOOTH, *ALIKE[task], *more)
            calls.append((arguments, [0]))
        evaluation = ["eval", str(parent / task), "--output", str(parent / f"{task}-eval")]
        calls.append((evaluation, [0, 1]))  # 1 in the main process, since an image is unreadable
    calls.append((train_arguments("detection", scenes, parent / "masks", *SMOOTH, "--batch_size=2"), [0]))
    text = text_of(fork(2, parent / "calls.py", json.dumps(calls)))
    assert len(re.findall("^validation (mIoU|box AP)", text, re.M)) == len(calls)
    return parent


@pytest.fixture(scope="module")
def alone(scenes, tmp_path_factory):
    """What one process makes of the same parts of steps, by task."""
    found = {}
    for task in TASKS:
        output = tmp_path_factory.mktemp(task) / "run"
        assert main(train_arguments(task, scenes, output, *SMOOTH, *ALIKE[task], "--accumulate=2")) == 0
        found[task] = outcome(output)
    return found


@each_task
@pytest.mark.parametrize("kind", ["", "-divided"], ids=["DDP", "FSDP2"])
def test_two_processes_train_as_one_does(together, alone, task, kind):
    """But for what batch norms remember, which is of the images of the main process."""
    found = outcome(together / f"{task}{kind}")
    assert found[0].keys() == alone[task][0].keys()
    loss, weights = distances(found, alone[task])
    assert loss < 1e-5
    assert weights < 1e-4
    assert found[1][0]["unreadable"] == 2


@each_task
def test_what_was_scored_together_is_what_was_saved(together, scenes, task, tmp_path):
    """To the last digit, although batch norms of the processes have seen other images."""
    run = RunFolder(together / task)
    saved = load_model(run.path)
    data = saved.evaluator.open_data(str(scenes), tmp_path)
    batches = EvalLoader(data, 2, collate=saved.evaluator.collate)
    found = evaluate(saved.model, batches, saved.evaluator.results(data), parallel.start("cpu"))
    (row,) = run.read_metrics()
    assert row["val_images"] == found.scores.images == 5
    expected = {f"val_{name}": pytest.approx(value, rel=1e-6) for name, value in found.scores.metrics.items()}
    assert {name: row[name] for name in expected} == expected


@each_task
def test_two_processes_score_as_one_does(together, task, tmp_path, capsys):
    assert main(["eval", str(together / task), "--output", str(tmp_path)]) == 1
    assert "1 of 6 images cannot be read" in capsys.readouterr().out
    for file in tmp_path.iterdir():  # the pictures, what was detected, what was unreadable
        assert file.read_bytes() == (together / f"{task}-eval" / file.name).read_bytes(), file.name
    (row,) = RunFolder(tmp_path).read_unreadable()
    assert (row["split"], row["image"][-18:]) == ("val", "images/val/000004.png"[-18:])


def test_a_process_whose_images_have_no_objects_trains_with_the_others(together):
    """A step has two images, half of the images have no objects, and every parameter has its gradient."""
    tensors, (row,) = outcome(together / "masks")
    assert row["skipped"] == 0
    assert all(value.isfinite().all() for value in tensors.values())
    assert row.keys() > {"val_mask_ap", "val_box_ap"}
    assert not row.keys() & set(TIMES)

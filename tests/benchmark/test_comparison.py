import json
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
import timm
import torch

from v2m.benchmark import comparison
from v2m.benchmark.comparison import (
    LABELS,
    NEIGHBOURS,
    VARIANTS,
    ComparedModel,
    ComparisonSettings,
    Measurement,
    default_models,
    measure,
    panels,
    plan,
)
from v2m.benchmark.models import INFERENCE, TRAINING, ModelChoice
from v2m.benchmark.timing import Timing
from v2m.models import MODELS, V2M

OURS = "v2m_nano:depth=1,embed_dim=8,d_state=2"
SETTINGS = ComparisonSettings(2, 2, 60.0, torch.device("cpu"), torch.float32)


def run_here(monkeypatch):
    """Measure in this process, which patches reach, and which is there already."""

    def run_alone(function, *arguments, limit):
        return function(*arguments)

    monkeypatch.setattr(comparison, "run_alone", run_alone)


def test_models_are_timms_and_all_of_ours():
    assert all(timm.is_model(name) for name in NEIGHBOURS)
    assert set(MODELS) < set(default_models())
    assert len(default_models()) == len(set(default_models()))
    # What is drawn beside a point is short.
    for name in (*NEIGHBOURS, *VARIANTS):
        assert len(LABELS[name]) < 20


def test_a_plan_goes_from_small_to_large_at_every_size():
    models = plan(["resnet18", OURS], [32, 64], SETTINGS)
    assert [(m.model, m.resolution, m.pixels) for m in models] == [
        (OURS, 32, 32),
        ("resnet18", 32, 32),
        (OURS, 64, 64),
        ("resnet18", 64, 64),
    ]
    assert [(x.mode, x.batch_size) for x in models[0].measurements] == [
        (INFERENCE, 1),
        (INFERENCE, 2),
        (TRAINING, 2),
    ]
    assert models[1].gmacs == pytest.approx(1.81 * (32 / 224) ** 2, rel=0.03)
    # Files hold models as they are read.
    assert ComparedModel.of(json.loads(json.dumps(asdict(models[0])))) == models[0]


def test_a_model_of_one_size_is_measured_at_it_where_that_is_near():
    near, far = plan(["crossvit_tiny_240"], [224, 512], SETTINGS)
    assert (near.pixels, near.note) == (240, None)
    assert (far.pixels, far.note) == (240, "takes 240 px alone")
    assert measure(far, SETTINGS) == far
    assert far.cells()["batch 1, images/s"] == "-"


def test_a_wrong_argument_is_no_matter_of_size():
    with pytest.raises(ValueError, match=r"v2m_nano:depht=1: .*depht"):
        plan(["v2m_nano:depht=1"], [32], SETTINGS)


@pytest.mark.parametrize(
    ("millions", "title"),
    [(0.1, "up to 9 M"), (9, "up to 9 M"), (9.1, "9 to 16 M"), (30, "16 to 35 M"), (36, "above 35 M")],
)
def test_classes_of_size(millions, title):
    model = ComparedModel("m", 224, 224, round(1e6 * millions), 1.0)
    assert model.size_class == f"{title} parameters"


def test_a_use_is_measured_in_a_process_that_is_new():
    model = ComparedModel(OURS, 16, 16, 1, 1.0, measurements=(Measurement(TRAINING, 2),))
    found = measure(model, SETTINGS)
    (step,) = found.measurements
    assert (step.mode, step.batch_size) == (TRAINING, 2)
    assert step.note is step.problem is found.problem is None
    assert step.images_per_s == pytest.approx(2 / step.timing.median)


def test_what_takes_too_long_says_so():
    # The first use alone; a process for each takes seconds.
    model = ComparedModel(OURS, 16, 16, 1, 1.0, measurements=(Measurement(INFERENCE, 1),))
    found = measure(model, replace(SETTINGS, limit=0.001))
    assert [x.speed for x in found.measurements] == ["over 0.001 s"]
    assert found.cells()["batch 1, images/s"] == "over 0.001 s"
    assert found.problem is None


def test_rounds_end_at_half_of_the_limit(monkeypatch):
    run_here(monkeypatch)
    (model,) = plan([OURS], [16], SETTINGS)
    short = measure(model, replace(SETTINGS, rounds=10**9, limit=1.0))
    assert all(x.images_per_s for x in short.measurements)


def test_a_model_that_differs_from_the_reference_is_not_timed(monkeypatch):
    @contextmanager
    def slightly_different(implementation):
        with monkeypatch.context() as patch:
            head = V2M.forward_head
            patch.setattr(V2M, "forward_head", lambda *args: 1.001 * head(*args))
            yield

    run_here(monkeypatch)
    monkeypatch.setattr("v2m.benchmark.models.use_implementation", slightly_different)
    (model,) = plan([OURS], [16], SETTINGS)
    found = measure(model, SETTINGS)
    assert found.problem == "wrong: 1e-03 from the reference"
    assert [x.timing for x in found.measurements] == [None] * 3


def test_what_fails_is_told_of_that_model_alone(monkeypatch):
    run_here(monkeypatch)
    monkeypatch.setattr(ModelChoice, "build", fail)
    model = ComparedModel(
        OURS, 16, 16, 1, 1.0, measurements=tuple(Measurement(*use) for use in SETTINGS.uses)
    )
    assert measure(model, SETTINGS).problem == "cannot do this"


def fail(self, resolution):
    raise RuntimeError("cannot do this\nat all")


def test_panels_are_uses_and_sizes_and_ours_are_marked():
    timing = Timing(0.5, 0.5, 0.5)
    uses = tuple(replace(Measurement(*use), timing=timing, images_per_s=2.0) for use in SETTINGS.uses)
    slow = (uses[0], replace(uses[1], images_per_s=None, note="over 60 s"), uses[2])
    names = ["resnet18", "v2m_tiny_patch16_224"]
    models = [ComparedModel(names[0], 224, 224, 10, 1.0, measurements=uses)]
    models += [ComparedModel(names[1], 224, 224, 20, 1.0, measurements=slow)]
    inference, training = panels(models)
    assert inference.title == "inference, 224 px, batch 2"
    assert inference.points == [("ResNet-18", 10, 2.0, False)]
    assert training.points == [("ResNet-18", 10, 2.0, False), ("V2M-T", 20, 2.0, True)]

import pickle
from contextlib import contextmanager

import pytest
import torch

from v2m.benchmark import models
from v2m.benchmark.models import MODES, TRAINING, ModelChoice, bench_models, build_call, find_problem, panels
from v2m.models import V2M
from v2m.models.flops import count_flops

CPU = torch.device("cpu")
OURS = "v2m_nano:depth=1,embed_dim=8,d_state=2"
THEIRS = "vit_tiny_patch16_224:depth=1"


def bench(*texts, resolutions=(16,), **options):
    choices = [ModelChoice.parse(text) for text in texts]
    return list(bench_models(choices, resolutions, 2, 2, CPU, memory=False, **options))


def test_a_choice_is_a_name_with_arguments():
    choice = ModelChoice.parse("v2m_nano:directions=corners_rows_first,d_state=4,use_pos_embed=false")
    assert choice.name == "v2m_nano"
    assert choice.arguments == dict(directions="corners_rows_first", d_state=4, use_pos_embed=False)
    assert ModelChoice.parse("resnet18").arguments == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v2m_nanno", "'v2m_nanno' is no model, nearest: v2m_nano"),
        ("v2m_nano:d_state", "'d_state' in 'v2m_nano:d_state', expected MODEL:argument=value"),
        ("v2m_nano:d_state=!!python/name:os.system", "is no value"),
        ("v2m_nano:=4", "'=4' in"),
    ],
)
def test_a_choice_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        ModelChoice.parse(text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_are_compared_at_every_resolution(dtype):
    groups = bench(OURS, THEIRS, resolutions=(16, 32), dtype=dtype)
    assert [(g[0].resolution, g[0].mode) for g in groups] == [(r, mode) for r in (16, 32) for mode in MODES]
    for ours, theirs in groups:
        assert (ours.model, theirs.model) == (OURS, THEIRS)
        assert ours.problem is theirs.problem is None
        assert ours.ratio == 1
        assert theirs.ratio == pytest.approx(theirs.images_per_s / ours.images_per_s)
        assert ours.images_per_s == pytest.approx(2 / ours.timing.median)
    with torch.device("meta"):
        model = ModelChoice.parse(OURS).build(32)
    assert groups[-1][0].gflops == count_flops(model, (3, 32, 32)).total / 1e9
    assert groups[-1][0].parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v2m_nano:d_stat=4", "d_state"),
        ("v2m_nano:directions=up", "'corners'"),
        ("resnet18:width=3", "width"),
    ],
)
def test_a_bad_argument_stops_before_anything_is_timed(monkeypatch, text, message):
    monkeypatch.setattr(models, "time_in_turns", None)
    with pytest.raises(ValueError, match=message):
        bench(OURS, text)


def test_a_model_that_differs_from_the_reference_is_not_timed(monkeypatch):
    @contextmanager
    def slightly_different(implementation):
        assert implementation == "reference"
        with monkeypatch.context() as patch:
            head = V2M.forward_head
            patch.setattr(V2M, "forward_head", lambda *args: 1.001 * head(*args))
            yield

    monkeypatch.setattr(models, "use_implementation", slightly_different)
    for ours, theirs in bench(OURS, THEIRS):
        assert ours.problem == "wrong: 1e-03 from the reference"
        assert ours.timing is ours.images_per_s is None
        assert theirs.images_per_s is not None
        assert theirs.ratio is None


def out_of_memory():
    raise torch.OutOfMemoryError


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: torch.zeros(2, 10), None),
        (lambda: torch.zeros(2, 9), "wrong: scores of shape [2, 9]"),
        (lambda: torch.full((2, 10), torch.inf), "wrong: not finite"),
        (out_of_memory, "out of memory"),
    ],
)
def test_what_can_be_wrong_with_a_call(call, problem):
    assert find_problem(call, (2, 10)) == problem


def test_a_training_step_trains():
    step = build_call(ModelChoice.parse(OURS), 16, 4, TRAINING, torch.float32, CPU)
    losses = [step().item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_memory_is_measured_of_what_is_timed(monkeypatch):
    asked = []

    def peak_memory(build, *arguments, device):
        asked.append(pickle.loads(pickle.dumps((build, *arguments))))
        return 7.0

    monkeypatch.setattr(models, "peak_memory", peak_memory)
    groups = list(bench_models([ModelChoice.parse(OURS)], [16], 2, 1, CPU))
    assert [row.memory for group in groups for row in group] == [7.0, 7.0]
    for (build, choice, *arguments), mode in zip(asked, MODES, strict=True):
        assert (choice.text, arguments[:3]) == (OURS, [16, 2, mode])
        assert build(choice, *arguments)().isfinite().all()


def test_panels_hold_the_points_of_a_plot():
    groups = bench(OURS)
    time, memory, *_ = panels([row for group in groups for row in group])
    assert time.title == "inference"
    assert time.points == [(OURS, 16, 1e3 / groups[0][0].images_per_s)]
    assert memory.points == [(OURS, 16, None)]

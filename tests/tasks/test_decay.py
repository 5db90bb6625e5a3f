"""Saved models of every task, with geometric decay rates in the place of free ones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.scenes import MODEL_ARGS, TASKS, make_scenes
from tests.tasks.test_model_folder import make, make_classifier
from v2m.data import ImageSpec
from v2m.layers import Decay
from v2m.models.decay import is_rate
from v2m.system.errors import DataError
from v2m.tasks import load_model
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.classification.saved import save
from v2m.tasks.decay import with_geometric_decay
from v2m.tasks.model_folder import read_folder

NAME = "v2m_hierarchical_small"
ARGUMENTS = MODEL_ARGS | dict(d_state=2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("data"), train=2, val=1)


def arguments(**more):
    return [f"--model={NAME}", f"--model_args={json.dumps(ARGUMENTS | more)}"]


@pytest.fixture(params=["classification", *TASKS])
def folder(request, scenes, tmp_path):
    """A folder with a model of a task whose rates are as if they had been trained."""
    path = tmp_path / "free"
    path.mkdir()
    if request.param in TASKS:
        made, model = make(request.param, scenes, tmp_path, *arguments())
        write = made.save
    else:
        spec = ImageSpec((32, 32), 3, (0.3,) * 3, (0.4,) * 3, 1.0, "bicubic")
        model = build_classifier(NAME, ARGUMENTS, 3, spec)
        evaluator = ClassificationEvaluator(["a", "b", "c"], spec)

        def write(model, path):
            save(model, evaluator, path, "three classes")

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_rate(name):
                parameter.add_(0.1 * torch.randn_like(parameter))
    write(model, path)
    return path


def test_all_else_is_kept(folder, tmp_path):
    made = with_geometric_decay(read_folder(folder))
    assert all(e.largest > e.median > 0 for e in made.errors)
    output = tmp_path / "geometric"
    output.mkdir()
    made.save(output)
    before, after = (json.loads((path / "config.json").read_text()) for path in (folder, output))
    assert after.pop("model_args") == before.pop("model_args") | dict(decay="geometric")
    del before["sha256"], after["sha256"]
    assert after == before
    free, geometric = (load_file(path / "model.safetensors") for path in (folder, output))
    assert free.keys() == geometric.keys()
    for name, value in geometric.items():
        if is_rate(name):
            assert value.shape == free[name].shape[:1]
        else:
            assert torch.equal(value, free[name]), name
    saved = load_model(output)
    kinds = {module.decay for module in saved.model.modules() if hasattr(module, "decay")}
    assert kinds == {Decay.GEOMETRIC}
    assert saved.classes == load_model(folder).classes
    with pytest.raises(ValueError, match="geometric has geometric rates already, there is nothing to conv"):
        with_geometric_decay(read_folder(output))


def test_runs_start_from_geometric_models(scenes, tmp_path):
    folder = make_classifier(tmp_path / "free", NAME, ARGUMENTS)
    with pytest.raises(DataError, match="decay is 'geometric', but these weights are of 'free'; v2m conv"):
        make("detection", scenes, tmp_path, *arguments(decay="geometric"), f"--pretrained={folder}")
    made = with_geometric_decay(read_folder(folder))
    output = tmp_path / "geometric"
    output.mkdir()
    made.save(output)
    _, model = make("detection", scenes, tmp_path, *arguments(), f"--pretrained={output}")
    rates = [parameter for name, parameter in model.named_parameters() if is_rate(name)]
    assert rates
    assert all(parameter.ndim == 1 for parameter in rates)


@pytest.mark.parametrize(
    ("name", "model_args", "message"),
    [
        ("v2m_lite_nano", MODEL_ARGS, "has the mixer 'light', which has no such rates"),
        ("v2m_nano", dict(embed_dim=8, depth=1, attention_blocks=1), "has attention in all blocks"),
        ("v2m_nano", dict(embed_dim=8, depth=1, decay="geometric"), "has geometric rates already"),
        ("resnet18", {}, "a resnet18, expected a model of this package"),
    ],
)
def test_models_without_free_rates(tmp_path, name, model_args, message):
    folder = read_folder(make_classifier(tmp_path / "model", name, model_args))
    with pytest.raises(ValueError, match=message) as error:
        with_geometric_decay(folder)
    assert str(folder.path) in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_models_are_refused(tmp_path):
    folder = make_classifier(tmp_path / "model", NAME, ARGUMENTS)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    config["model_args"]["d_state"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="the model cannot be loaded"):
        with_geometric_decay(read_folder(folder))

import json

import pytest
import timm
import torch

import v2m  # noqa: F401
from v2m.data import DataError, ImageSpec
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.head import CONFIG, WEIGHTS, build_model, load_model, model_defaults, save_model

SPEC = ImageSpec((8, 12), 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
CLASSES = ["zebra", "ant", "mole"]


@pytest.fixture
def saved(tmp_path):
    model = build_model("v2m_nano", dict(depth=2, directions="corners_rows_first"), 3, SPEC).eval()
    save_model(model, tmp_path, CLASSES, SPEC)
    return model, tmp_path


def test_a_saved_model_comes_back_whole(saved):
    model, folder = saved
    images = torch.randn(2, 1, 8, 12)
    for path in (folder, folder / WEIGHTS):
        loaded = load_model(path)
        assert loaded[1:] == ("v2m_nano", CLASSES, SPEC)
        assert not loaded.model.training
        assert torch.equal(loaded.model(images), model(images))
    assert torch.equal(
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images), model(images)
    )
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert (folder / WEIGHTS).stat().st_mode == (folder / CONFIG).stat().st_mode


def test_models_of_others_are_built_and_saved_alike(tmp_path):
    model = build_model("resnet10t", {}, 3, SPEC).eval()
    save_model(model, tmp_path, CLASSES, SPEC)
    images = torch.randn(2, 1, 40, 40)
    assert torch.equal(load_model(tmp_path).model(images), model(images))


def test_trouble_with_a_saved_model_is_named(saved, tmp_path):
    _, folder = saved
    with pytest.raises(DataError, match="no model there, expected a run folder"):
        load_model(tmp_path / "nowhere")
    weights = (folder / WEIGHTS).read_bytes()
    for damaged in (weights[: len(weights) // 2], b"", b"\xff" * 100):
        (folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(DataError, match="the model cannot be loaded") as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)
    (folder / WEIGHTS).write_bytes(weights)
    config = json.loads((folder / CONFIG).read_text())
    for wrong in (config | {"architecture": "no_such_model"}, config | {"model_args": {"depth": 5}}, {}):
        (folder / CONFIG).write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="the model cannot be loaded"):
            load_model(folder)


def test_unknown_names_and_arguments_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'v2m_nanno' is no model, nearest: v2m_nano"):
        model_defaults("v2m_nanno")
    with pytest.raises(ValueError, match="model_args: V2M: no argument 'd_stat', the nearest is 'd_state'"):
        build_model("v2m_nano", dict(d_stat=4), 3, SPEC)


def test_image_specification_comes_from_the_settings_the_dataset_or_the_model():
    cfg = model_defaults("v2m_tiny_patch16_224")
    digits = resolve_image_spec(InputConfig(), "digits", cfg)
    assert (digits.img_size, digits.in_chans, digits.crop_pct) == ((8, 8), 1, 1.0)
    folder = resolve_image_spec(InputConfig(), "some/folder", cfg)
    assert (folder.img_size, folder.in_chans, folder.mean) == ((224, 224), 3, cfg["mean"])
    own = resolve_image_spec(InputConfig((96, 160), in_chans=1, crop_pct=0.5), "some/folder", cfg)
    assert (own.img_size, own.in_chans, own.crop_pct) == ((96, 160), 1, 0.5)
    assert own.mean == pytest.approx((sum(cfg["mean"]) / 3,))

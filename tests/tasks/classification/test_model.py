import json
import shutil
from dataclasses import replace

import pytest
import timm
import torch
from PIL import Image
from timm.layers import resample_abs_pos_embed_nhwc

import v2m  # noqa: F401
from tests.helpers import assert_close
from v2m.data import ImageSpec, eval_transform
from v2m.system.errors import DataError
from v2m.tasks import load_model
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.model import build_classifier, load_teacher
from v2m.tasks.classification.saved import LONGEST_TAG, save, weights_tag
from v2m.tasks.model_folder import CONFIG, WEIGHTS, resolve_model_args
from v2m.tasks.timm_models import model_defaults

SPEC = ImageSpec((8, 12), 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
CLASSES = ["zebra", "ant", "mole"]
LARGER = ImageSpec((20, 16), 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
COLOUR = ImageSpec((8, 12), 3, (0.3,) * 3, (0.4,) * 3, crop_pct=1.0, interpolation="bicubic")
SMALL = dict(embed_dim=16, depth=2, d_state=2)
STAGES = dict(embed_dim=[8, 8, 16, 16], depths=[1, 1, 1, 1])


@pytest.fixture
def saved(tmp_path):
    model = build_classifier("v2m_nano", dict(depth=2, directions="corners_rows_first"), 3, SPEC).eval()
    save(model, ClassificationEvaluator(CLASSES, SPEC), tmp_path)
    return model, tmp_path


def test_a_saved_model_comes_back_whole(saved):
    model, folder = saved
    images = torch.randn(2, 1, 8, 12)
    for path in (folder, folder / WEIGHTS):
        loaded = load_model(path)
        assert (loaded.name, loaded.evaluator.classes, loaded.evaluator.spec) == ("v2m_nano", CLASSES, SPEC)
        assert not loaded.model.training
        assert torch.equal(loaded.model(images), model(images))
    assert torch.equal(
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images), model(images)
    )
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert (folder / WEIGHTS).stat().st_mode == (folder / CONFIG).stat().st_mode


def test_the_tag_of_saved_weights_is_the_data(saved, tmp_path):
    model, folder = saved
    cfg = json.loads((folder / CONFIG).read_text())["pretrained_cfg"]
    assert "tag" not in cfg  # not that of the new model, where the data are not known
    save(model, ClassificationEvaluator(CLASSES, SPEC), tmp_path, "/data/Tiny-ImageNet 200")
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["architecture"], config["num_classes"]) == ("v2m_nano", 3)
    assert (config["pretrained_cfg"]["tag"], config["pretrained_cfg"]["num_classes"]) == (
        "tiny_imagenet_200",
        3,
    )
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert again.pretrained_cfg["tag"] == "tiny_imagenet_200"


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        ("cifar10", "cifar10"),
        ("hfds/x/Beans", "beans"),
        ("../\x1b[31m", "31m"),
        ("日本", "data"),
        ("x" * 999, "x" * LONGEST_TAG),
    ],
)
def test_a_tag_is_made_of_letters_that_timm_has(data, tag):
    assert weights_tag(data) == tag


def test_models_of_others_are_built_and_saved_alike(tmp_path):
    model = build_classifier("resnet10t", {}, 3, SPEC).eval()
    save(model, ClassificationEvaluator(CLASSES, SPEC), tmp_path)
    images = torch.randn(2, 1, 40, 40)
    assert torch.equal(load_model(tmp_path).model(images), model(images))


def test_the_number_of_classes_is_no_argument_of_a_saved_model(saved):
    model, folder = saved
    config = json.loads((folder / CONFIG).read_text())
    assert config["model_args"] == dict(
        depth=2, directions="corners_rows_first", img_size=[8, 12], in_chans=1, global_pool="avg"
    )
    config["model_args"]["num_classes"] = 3  # as in folders of before
    del config["sha256"]
    (folder / CONFIG).write_text(json.dumps(config))
    images = torch.randn(2, 1, 8, 12)
    for loaded in (load_model(folder).model, timm.create_model(f"local-dir:{folder}", pretrained=True)):
        assert torch.equal(loaded.eval()(images), model(images))


def test_the_crop_is_saved_as_it_is_made(tmp_path):
    spec = ImageSpec((32, 32), 3, (0.3,) * 3, (0.4,) * 3, crop_pct=0.8, interpolation="bicubic")
    args = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    name = "convnextv2_nano.fcmae_ft_in22k_in1k_384"  # by default, images are squashed for it
    save(build_classifier(name, args, 3, spec), ClassificationEvaluator(CLASSES, spec), tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    image = Image.effect_noise((90, 40), 60).convert("RGB")
    assert torch.equal(theirs(image), eval_transform(spec)(image))


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
    del config["sha256"]
    for wrong in (config | {"architecture": "no_such_model"}, config | {"model_args": {"depth": 5}}, {}):
        (folder / CONFIG).write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="the model cannot be loaded"):
            load_model(folder)


def test_unknown_names_and_arguments_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'v2m_nanno' is no model, nearest: v2m_nano"):
        model_defaults("v2m_nanno")
    with pytest.raises(ValueError, match="model_args: V2M: no argument 'd_stat', the nearest is 'd_state'"):
        build_classifier("v2m_nano", dict(d_stat=4), 3, SPEC)


def test_image_specification_comes_from_the_settings_the_dataset_or_the_model():
    cfg = model_defaults("v2m_tiny_patch16_224")
    digits = resolve_image_spec(InputConfig(), "digits", cfg)
    assert (digits.img_size, digits.in_chans, digits.crop_pct) == ((8, 8), 1, 1.0)
    folder = resolve_image_spec(InputConfig(), "some/folder", cfg)
    assert (folder.img_size, folder.in_chans, folder.mean) == ((224, 224), 3, cfg["mean"])
    own = resolve_image_spec(InputConfig((96, 160), in_chans=1, crop_pct=0.5), "some/folder", cfg)
    assert (own.img_size, own.in_chans, own.crop_pct) == ((96, 160), 1, 0.5)
    assert own.mean == pytest.approx((sum(cfg["mean"]) / 3,))


def save_new(folder, name, args, spec=SPEC):
    """A model with a position embedding that is not tiny, in a folder."""
    model = build_classifier(name, args, len(CLASSES), spec).eval()
    if getattr(model, "pos_embed", None) is not None:
        torch.nn.init.normal_(model.pos_embed)
    save(model, ClassificationEvaluator(CLASSES, spec), folder)
    return model


@pytest.fixture
def nano(tmp_path):
    return save_new(tmp_path, "v2m_nano", SMALL | dict(directions="corners_rows_first")), tmp_path


def test_all_weights_are_taken_and_the_arguments_with_them(nano):
    model, folder = nano
    for source in (folder, folder / WEIGHTS):
        started = build_classifier("v2m_nano", {}, 3, SPEC, str(source)).eval()
        images = torch.randn(2, 1, 8, 12)
        assert torch.equal(started(images), model(images))
        assert replace(started.config, global_pool=None) == model.config


def test_other_arguments_count_where_the_weights_fit(nano):
    model, folder = nano
    started = build_classifier(
        "v2m_nano", dict(drop_path_rate=0.25, directions="corners"), 3, SPEC, str(folder)
    )
    assert (started.config.drop_path_rate, started.config.directions) == (0.25, "corners")
    assert torch.equal(started.head.weight, model.head.weight)


def test_what_is_saved_again_is_of_the_new_data(nano):
    _, folder = nano
    again = folder / "again"
    again.mkdir()
    save(
        build_classifier("v2m_nano", {}, 3, LARGER, str(folder)),
        ClassificationEvaluator(["a", "b", "c"], LARGER),
        again,
    )
    config = json.loads((again / CONFIG).read_text())
    assert config["label_names"] == ["a", "b", "c"]
    assert "label_names" not in config["pretrained_cfg"]
    assert config["pretrained_cfg"]["input_size"] == [1, 20, 16]
    assert config["model_args"]["img_size"] == [20, 16]
    assert str(folder) not in (again / CONFIG).read_text()


def test_the_arguments_build_the_model_without_the_folder(nano):
    model, folder = nano
    args = resolve_model_args("v2m_nano", dict(drop_path_rate=0.25), str(folder))
    assert "num_classes" not in args
    assert args["drop_path_rate"] == 0.25
    build_classifier("v2m_nano", args, 3, SPEC).load_state_dict(model.state_dict())
    shutil.rmtree(folder)
    assert resolve_model_args("v2m_nano", args, str(folder)) == args
    for source in (None, "timm"):
        assert resolve_model_args("v2m_nano", args, source) == args


def test_the_head_is_new_for_another_number_of_classes(nano):
    model, folder = nano
    started = build_classifier("v2m_nano", {}, 5, SPEC, str(folder)).eval()
    images = torch.randn(2, 1, 8, 12)
    assert torch.equal(started.forward_features(images), model.forward_features(images))
    assert started(images).shape == (2, 5)
    save(started, ClassificationEvaluator(list("abcde"), SPEC), folder)
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 5


@pytest.mark.parametrize("args", [{}, dict(class_token="middle"), dict(conv_stem=True, patch_size=4)])
def test_position_embeddings_are_resized_to_the_images(tmp_path, args):
    model = save_new(tmp_path, "v2m_nano", SMALL | args)
    before = None if model.pos_embed is None else model.pos_embed.detach().clone()
    started = build_classifier("v2m_nano", {}, 3, LARGER, str(tmp_path)).eval()
    images = torch.randn(2, 1, 20, 16)
    by_forward = model.forward_features(images)
    assert_close(started.forward_features(images), by_forward, "float32")
    model.set_input_size((20, 16))
    assert torch.equal(started.pos_embed, model.pos_embed)
    assert torch.equal(started.forward_features(images), model.forward_features(images))
    expected = resample_abs_pos_embed_nhwc(before, list(started.pos_embed.shape[1:3]))
    assert torch.equal(started.pos_embed, expected)
    assert started.config.img_size == (20, 16)


def test_colour_from_gray_and_gray_from_colour_as_timm_does(tmp_path):
    colour, gray = save_new(tmp_path, "v2m_nano", SMALL, COLOUR), tmp_path / "gray"
    weight = colour.patch_embed.proj.weight
    started = build_classifier("v2m_nano", {}, 3, SPEC, str(tmp_path))
    assert_close(started.patch_embed.proj.weight, weight.sum(1, keepdim=True), "float32")
    gray.mkdir()
    model = save_new(gray, "v2m_micro", dict(embed_dim=16, depth=1))
    first = model.patch_embed.proj[0].conv.weight
    started = build_classifier("v2m_micro", {}, 3, COLOUR, str(gray))
    assert started.patch_embed.proj[0].conv.weight.shape[1] == 3
    assert_close(started.patch_embed.proj[0].conv.weight.sum(1, keepdim=True), first, "float32")


def test_models_in_stages_and_those_of_others(tmp_path):
    for name, args, larger in (
        ("v2m_hierarchical_small", STAGES, (40, 64)),
        ("vit_tiny_patch16_224", dict(depth=1, embed_dim=24, patch_size=4), (16, 16)),
        ("resnet10t", {}, (40, 40)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        model = save_new(folder, name, args)
        images = torch.randn(1, 1, 8, 12)
        started = build_classifier(name, {}, 4, SPEC, str(folder)).eval()
        assert torch.equal(started.forward_features(images), model.forward_features(images))
        spec = ImageSpec(larger, 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
        assert build_classifier(name, {}, 4, spec, str(folder))(torch.randn(2, 1, *larger)).shape == (2, 4)


def test_another_model_is_named_with_the_option_to_give(nano):
    _, folder = nano
    with pytest.raises(
        ValueError, match="holds a v2m_nano, but the model is v2m_micro; give --model v2m_nano"
    ):
        build_classifier("v2m_micro", {}, 3, SPEC, str(folder))


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("args", [dict(depth=3), dict(depth=1), dict(d_state=4), dict(depht=1)])
def test_weights_that_do_not_fit_are_an_error_whatever_the_classes(nano, classes, args):
    _, folder = nano
    with pytest.raises(ValueError, match=f"^pretrained: {folder}: the model cannot be loaded") as caught:
        build_classifier("v2m_nano", args, classes, SPEC, str(folder))
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_folders_are_named(nano, tmp_path):
    _, folder = nano
    with pytest.raises(DataError, match=r"^pretrained: .*nowhere: no model there, expected a run folder"):
        build_classifier("v2m_nano", {}, 3, SPEC, str(tmp_path / "nowhere"))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(DataError, match=f"^pretrained: {folder}: the model cannot be loaded") as caught:
        build_classifier("v2m_nano", {}, 3, SPEC, str(folder))
    assert "\n" not in str(caught.value)
    for text in ("[]", "{}", "{", '{"architecture": "v2m_nano"}'):
        (folder / CONFIG).write_text(text)
        with pytest.raises(DataError, match="the model cannot be loaded"):
            build_classifier("v2m_nano", {}, 3, SPEC, str(folder))


def test_timm_has_weights_of_some_models(monkeypatch):
    with pytest.raises(
        ValueError, match=r"^pretrained: timm has no weights of v2m_nano, expected a run folder"
    ):
        build_classifier("v2m_nano", {}, 3, SPEC, "timm")

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"weights of resnet10t cannot be loaded \(no route to host\)"):
        build_classifier("resnet10t", {}, 3, SPEC, "timm")


def test_weights_of_timm_get_a_new_head_and_the_channels(monkeypatch, tmp_path):
    source = timm.create_model("resnet10t")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    create = timm.create_model

    def from_file(name, **kwargs):
        return create(name, pretrained_cfg_overlay=dict(file=str(tmp_path / "weights.pth")), **kwargs)

    monkeypatch.setattr(timm, "create_model", from_file)
    started = build_classifier("resnet10t", {}, 3, SPEC, "timm")
    assert started(torch.randn(2, 1, 40, 40)).shape == (2, 3)
    assert torch.equal(started.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert_close(started.conv1[0].weight, source.conv1[0].weight.sum(1, keepdim=True), "float32")


def test_a_teacher_has_its_own_statistics_and_takes_the_students_images(nano):
    model, folder = nano
    spec = ImageSpec((20, 16), 1, (0.5,), (0.5,), crop_pct=1.0, interpolation="bicubic")
    teacher = load_teacher(str(folder), CLASSES, spec).eval()
    assert tuple(teacher.pretrained_cfg["mean"]) == (0.3,)
    images = torch.randn(2, 1, 20, 16)
    assert_close(teacher(images), model(images), "float32")


def test_teachers_that_cannot_be_used_are_named(nano):
    _, folder = nano
    for teacher, classes, spec, message in (
        ("resnet18", CLASSES, COLOUR, "resnet18 has 1000 classes, the data have 3"),
        (str(folder), CLASSES[:2], SPEC, "has 3 classes, the data have 2"),
        (str(folder), ["zebra", "mole", "ant"], SPEC, "has a class 'ant' where the data have 'mole'"),
        (str(folder), CLASSES, COLOUR, "takes images of 1 channels, these have 3; give another teacher"),
        (
            "resnet",
            CLASSES,
            SPEC,
            "'resnet' is neither a timm model nor a run folder; the nearest models are",
        ),
        ("runs/no such run", CLASSES, SPEC, "'runs/no such run' is neither a timm model nor a run folder"),
        ("v2m_nano", [str(i) for i in range(1000)], COLOUR, "timm has no weights of v2m_nano"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_teacher(teacher, classes, spec)
        assert str(caught.value).startswith("distill.teacher: ")
        assert "\n" not in str(caught.value)

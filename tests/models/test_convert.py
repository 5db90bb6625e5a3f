import argparse
import os
import pathlib
import zipfile

import pytest
import timm
import torch

from tests.helpers import assert_close, load_golden, parameters
from v2m.models import V2M, V2MConfig
from v2m.models.convert import (
    checkpoint_filter_fn,
    convert_checkpoint,
    infer_config,
    read_released_checkpoint,
    rename_released_keys,
)

GOLDEN_MODEL = "model_img64_p16_e48_d3_c10_f32"
GOLDEN_CONFIG = V2MConfig(img_size=64, embed_dim=48, depth=3, num_classes=10, directions="released")


@pytest.fixture(scope="module")
def golden():
    return load_golden(GOLDEN_MODEL)


def training_checkpoint(state_dict):
    """What the authors' training loop saves."""
    options = argparse.Namespace(model="v2m", lr=5e-4, output_dir=pathlib.PosixPath("out"))
    return {"model": state_dict, "args": options, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}


LAYOUTS = {
    "bare": lambda state: state,
    "training": training_checkpoint,
    "data parallel": lambda state: training_checkpoint({f"module.{k}": v for k, v in state.items()}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_released_checkpoint_gives_the_golden_model(tmp_path, golden, layout, zipped):
    path = tmp_path / "checkpoint.pth"
    torch.save(LAYOUTS[layout](parameters(golden)), path, _use_new_zipfile_serialization=zipped)

    state_dict = read_released_checkpoint(path)
    assert infer_config(state_dict) == GOLDEN_CONFIG
    model = V2M(infer_config(state_dict)).eval()
    model.load_state_dict(checkpoint_filter_fn(state_dict, model))
    assert_close(model(golden["image"]), golden["logits"], "golden model float32")

    model = convert_checkpoint(path).eval()
    assert model.config == GOLDEN_CONFIG
    assert_close(model(golden["image"]), golden["logits"], "golden model float32")


def test_converted_model_survives_the_hub(tmp_path, golden):
    torch.save(training_checkpoint(parameters(golden)), tmp_path / "checkpoint.pth")
    timm.models.save_for_hf(
        convert_checkpoint(tmp_path / "checkpoint.pth"), tmp_path / "hub", safe_serialization=True
    )
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert_close(model(golden["image"]), golden["logits"], "golden model float32")


def test_released_checkpoint_as_pretrained_file(tmp_path, golden):
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": parameters(golden)}, path)
    settings = dict(img_size=64, embed_dim=48, depth=3, num_classes=10, directions="released")
    overlay = dict(file=str(path), num_classes=10)
    model = timm.create_model(
        "v2m_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, **settings
    )
    assert_close(model.eval()(golden["image"]), golden["logits"], "golden model float32")


def test_keys_are_renamed_and_ours_kept():
    released = {
        "module.layers.11.mixer.A_log": 1,
        "layers.2.norm.weight": 2,
        "norm_f.weight": 3,
        "pos_embed": 4,
        "blocks.0.norm.weight": 5,
        "norm.weight": 6,
        "patch_embed.proj.bias": 7,
        "head.bias": 8,
    }
    assert list(rename_released_keys(released).items()) == [
        ("blocks.11.mixer.A_log", 1),
        ("blocks.2.norm.weight", 2),
        ("norm.weight", 6),
        ("pos_embed", 4),
        ("blocks.0.norm.weight", 5),
        ("patch_embed.proj.bias", 7),
        ("head.bias", 8),
    ]


def test_position_embedding_of_another_grid_is_resized():
    state_dict = V2M(img_size=64, embed_dim=16, depth=1, class_token="edge").state_dict()
    model = V2M(img_size=(48, 96), embed_dim=16, depth=1, class_token="edge")
    filtered = checkpoint_filter_fn(state_dict, model)
    model.load_state_dict(filtered)
    assert state_dict["pos_embed"].shape == (1, 4, 4, 16)  # the source is left alone
    assert model.pos_embed.shape == (1, 3, 6, 16)
    same = V2M(img_size=64, embed_dim=16, depth=1, class_token="edge")
    for key, value in checkpoint_filter_fn(state_dict, same).items():
        assert torch.equal(value, state_dict[key]), key


@pytest.mark.parametrize(
    "config",
    [
        V2MConfig(img_size=32, embed_dim=20, depth=2, num_classes=0, directions="released"),
        V2MConfig(img_size=48, patch_size=8, embed_dim=16, depth=1, in_chans=1, directions="released"),
        V2MConfig(
            img_size=(32, 64),
            patch_size=(8, 16),
            embed_dim=16,
            depth=12,
            num_classes=4,
            d_state=3,
            d_conv=2,
            expand=3,
            dt_rank=5,
            directions="released",
        ),
        V2MConfig(embed_dim=16, depth=1, use_pos_embed=False, directions="released"),
    ],
)
def test_architecture_is_read_off_the_shapes(config):
    assert infer_config(V2M(config).state_dict()) == config


class Unknown:
    pass


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def save(thing):
    return lambda path: torch.save(thing, path)


UNREADABLE = {
    "unknown object": (save({"model": {}, "args": Unknown()}), "Unknown"),
    "malicious object": (save({"model": {}, "args": Malicious()}), "mkdir"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint"),
    "text": (lambda path: path.write_text("hello world\n"), "not a checkpoint"),
    "html": (lambda path: path.write_text("<!doctype html>\n<p>404</p>\n"), "not a checkpoint"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "not a checkpoint"),
    "empty archive": (lambda path: zipfile.ZipFile(path, "w").close(), "not a checkpoint"),
    "tensor": (save(torch.ones(3)), "holds no V2M"),
    "list": (save([1, 2]), "holds no V2M"),
    "other model": (save({"model": {"fc.weight": torch.ones(2, 2)}}), "holds no V2M"),
    "no state dict": (save({"model": None}), "holds no V2M"),
    "numbered": (save({1: torch.ones(2)}), "holds no V2M"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_other_files_are_refused_in_one_line(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    write, reason = UNREADABLE[what]
    write(path)
    for read in (read_released_checkpoint, convert_checkpoint):
        with pytest.raises(ValueError, match=r"file\.pth: ") as error:
            read(path)
        assert reason in str(error.value)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_truncated_checkpoint_is_refused(tmp_path, golden):
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": parameters(golden)}, path)
    whole = path.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a checkpoint of tensors and plain data"):
            read_released_checkpoint(path)


def without(state_dict, key):
    return {k: v for k, v in state_dict.items() if k != key}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: without(state, "layers.1.mixer.D_2"),
        lambda state: without(state, "patch_embed.proj.weight"),
        lambda state: without(state, "layers.0.mixer.A_log"),
        lambda state: state | {"extra.weight": torch.ones(2)},
        lambda state: state | {"layers.1.mixer.D": torch.ones(2)},
        lambda state: state | {"pos_embed": torch.ones(1, 17, 48)},
        lambda state: state | {"pos_embed": torch.ones(1, 7, 47)},
        lambda state: state | {"patch_embed.proj.weight": torch.ones(48, 768)},
        lambda state: state | {"layers.0.mixer.A_log": 3},
    ],
    ids=["block", "patches", "rates", "extra", "shape", "positions", "reshape", "unpack", "number"],
)
def test_incomplete_models_are_refused_in_one_line(tmp_path, golden, change):
    path = tmp_path / "file.pth"
    torch.save(change(parameters(golden)), path)
    with pytest.raises(ValueError, match=r"file\.pth: ") as error:
        convert_checkpoint(path)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_released_checkpoint(tmp_path / "nothing.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_our_own_parameters_are_not_converted(tmp_path, prefix):
    ours = V2M(img_size=16, patch_size=8, embed_dim=16, depth=1)
    torch.save({"model": {prefix + k: v for k, v in ours.state_dict().items()}}, tmp_path / "ours.pth")
    with pytest.raises(
        ValueError, match=r"ours\.pth: .* this package's own model, there is nothing to convert"
    ):
        convert_checkpoint(tmp_path / "ours.pth")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"layers.99999999.mixer.D": torch.ones(2)},
        lambda state: state | {f"layers.{'9' * 5000}.mixer.D": torch.ones(2)},
        lambda state: state | {"head.bias": torch.ones(1).expand(10**9)},
        lambda state: state | {"pos_embed": torch.ones(1).expand(1, 10**4, 10**4, 48)},
        lambda state: state | {"layers.0.mixer.A_log": torch.ones(1).expand(10**6, 10**6)},
        lambda state: state | {"patch_embed.proj.weight": torch.ones(0, 3, 16, 16)},
        lambda state: state | {"layers.0.mixer.D": torch.ones(4).to_sparse()},
        lambda state: state | {"layers.0.mixer.D": torch.ones(4, device="meta")},
        lambda state: state | {"layers.0.mixer.D": [1, 2]},
        lambda state: state | {"norm_f.weight": torch.full((48,), torch.nan)},
        lambda state: state | {3: torch.ones(2)},
        lambda state: [state],
        lambda state: {"model": 3},
    ],
)
def test_strange_checkpoints_are_refused_in_one_line(tmp_path, golden, change):
    path = tmp_path / "file.pth"
    torch.save(change(parameters(golden)), path)
    with pytest.raises(ValueError, match=r"file\.pth: ") as error:
        convert_checkpoint(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_checkpoints_are_files_that_hold_no_more_than_their_size(tmp_path, golden):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match=r"pipe\.pth is no regular file"):
        convert_checkpoint(tmp_path / "pipe.pth")
    torch.save(parameters(golden), tmp_path / "file.pth")
    bomb = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(tmp_path / "file.pth") as good,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for name in good.namelist():
            made.writestr(name, bytes(2**22) if name.endswith("/data/0") else good.read(name))
    with pytest.raises(ValueError, match=r"bomb\.pth: holds .* more than the file has"):
        convert_checkpoint(bomb)

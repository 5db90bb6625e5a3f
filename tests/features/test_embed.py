import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from rich.console import Console

from v2m.data import ImageSpec, eval_transform, open_dataset
from v2m.features import embed as module
from v2m.features import parts as parts_module
from v2m.features.embed import EmbedConfig, embed
from v2m.features.files import read_features
from v2m.features.frozen import open_frozen
from v2m.features.parts import parts_folder
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.saved import save

SPEC = ImageSpec((8, 12), 3, (0.5,) * 3, (0.25,) * 3, 1.0, "bicubic")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No other processes, and parts of 8 images."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(parts_module, "IMAGES_OF_A_PART", 8)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    model = timm.create_model(
        "v2m_nano", depth=1, embed_dim=16, d_state=2, num_classes=3, img_size=SPEC.img_size
    )
    save(model, ClassificationEvaluator(["blue", "green", "red"], SPEC), folder)
    return folder


@pytest.fixture
def work(run, image_folder, tmp_path):
    """Embed the training images; what is said."""

    def work(output="features.npz", data=image_folder, split="train", config=None, model=run):
        said = io.StringIO()
        frozen = open_frozen(str(model), str(data))
        config = config or EmbedConfig(batch_size=4)
        console = Console(file=said, width=1000)
        embed(frozen, str(data), split, tmp_path / output, config, PartialState(cpu=True), console)
        return said.getvalue()

    return work


def stop_after(monkeypatch, batches, error=KeyboardInterrupt):
    """Let the model fail after some batches; returns a list that has the size of each batch it is given."""
    sizes = []
    original = module.pooled_features

    def features(model, images):
        if len(sizes) == batches:
            raise error
        sizes.append(len(images))
        return original(model, images)

    monkeypatch.setattr(module, "pooled_features", features)
    return sizes


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("workers", [0, 1])
def test_features_are_those_of_a_plain_loop(work, run, image_folder, tmp_path, split, workers):
    assert work(split=split, config=EmbedConfig(batch_size=5, workers=workers)) == ""
    found = read_features(tmp_path / "features.npz")
    model = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
    dataset = open_dataset(str(image_folder), split, tmp_path)
    transform = eval_transform(SPEC)
    with torch.no_grad():
        expected = [
            model.forward_head(model.forward_features(transform(i)[None]), pre_logits=True)
            for i, _ in dataset
        ]
    np.testing.assert_allclose(found.features, torch.cat(expected).numpy(), rtol=1e-5, atol=1e-6)
    assert found.targets.tolist() == dataset.targets
    assert found.index.tolist() == list(range(len(dataset)))
    assert found.names == [dataset.name(i) for i in range(len(dataset))]
    assert found.facts["classes"] == ["blue", "green", "red"]
    assert found.facts["data"]["images"] == len(dataset)
    assert not parts_folder(tmp_path / "features.npz").exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_stopped_at_any_batch_it_goes_on_to_the_same_bytes(work, tmp_path, monkeypatch, suffix):
    work(f"whole{suffix}")
    for batches, parts in ((1, 0), (2, 1), (5, 2)):
        with monkeypatch.context() as patch:
            stop_after(patch, batches)
            with pytest.raises(KeyboardInterrupt):
                work(f"{batches}{suffix}")
        folder = parts_folder(tmp_path / f"{batches}{suffix}")
        assert len(list(folder.glob("part-*.npz"))) == parts
        with monkeypatch.context() as patch:
            sizes = stop_after(patch, 100)
            assert work(f"{batches}{suffix}") == (f"goes on: {parts} of 3 parts are there\n" if parts else "")
        assert sizes == [4] * (6 - 2 * parts)
        assert (tmp_path / f"{batches}{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_a_finished_file_is_left_alone_until_something_changes(
    work, run, image_folder, tmp_path, monkeypatch
):
    work()
    content = (tmp_path / "features.npz").read_bytes()
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        assert "features.npz has them already" in work(config=EmbedConfig(batch_size=8))
        (tmp_path / "features.npz").write_bytes(content[:-100])
        with pytest.raises(KeyboardInterrupt):
            work()
    work()
    assert (tmp_path / "features.npz").read_bytes() == content
    (image_folder / "train" / "red" / "0.png").unlink()
    work()
    assert len(read_features(tmp_path / "features.npz").index) == 23


def test_parts_of_something_else_are_dropped(work, run, tmp_path, monkeypatch):
    def interrupted():
        with monkeypatch.context() as patch:
            stop_after(patch, 5)
            with pytest.raises(KeyboardInterrupt):
                work()

    interrupted()
    assert work(split="val") == (
        f"starts again: the parts in {tmp_path}/features.npz.parts are of another data\n"
    )
    interrupted()
    model = timm.create_model(f"local-dir:{run}", pretrained=True)
    torch.nn.init.normal_(model.norm.weight)
    save(model, ClassificationEvaluator(["blue", "green", "red"], SPEC), run)
    assert "are of another model\n" in work()
    content = (tmp_path / "features.npz").read_bytes()
    (tmp_path / "features.npz").unlink()
    work()
    assert (tmp_path / "features.npz").read_bytes() == content


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other images"])
def test_a_damaged_part_is_computed_again(work, tmp_path, monkeypatch, damage):
    work("whole.npz")
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            work()
    first, second = sorted(parts_folder(tmp_path / "features.npz").glob("part-*.npz"))
    content = first.read_bytes()
    middle = len(content) // 4
    first.write_bytes(
        {
            "cut": content[:middle],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "other images": second.read_bytes(),
        }[damage]
    )
    assert work() == f"computes {first} again, which is damaged\ngoes on: 1 of 3 parts are there\n"
    assert (tmp_path / "features.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_another_number_of_processes_goes_on(work, run, image_folder, tmp_path, monkeypatch):
    """The second of two processes does its part; then one process does the others."""
    work("whole.npz")
    output = tmp_path / "features.npz"
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            work()
    other = PartialState(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 1)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    frozen = open_frozen(str(run), str(image_folder))
    console = Console(file=io.StringIO())
    embed(frozen, str(image_folder), "train", output, EmbedConfig(batch_size=4), other, console)
    assert [path.name for path in parts_folder(output).glob("part-*")] == ["part-0000000008.npz"]
    monkeypatch.undo()
    monkeypatch.setattr(parts_module, "IMAGES_OF_A_PART", 8)
    assert work() == "goes on: 1 of 3 parts are there\n"
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_unreadable_images_are_left_out_and_listed(work, image_folder, tmp_path):
    work("whole.npz")
    whole = read_features(tmp_path / "whole.npz")
    bad = [2, *range(8, 16), 21]
    for index in bad:
        Path(whole.names[index]).write_bytes(b"broken")
    said = work()
    found = read_features(tmp_path / "features.npz")
    good = [i for i in range(24) if i not in bad]
    assert found.index.tolist() == good
    assert found.names == [whole.names[i] for i in good]
    np.testing.assert_allclose(found.features, whole.features[good], rtol=1e-5, atol=1e-6)
    assert [item["index"] for item in found.facts["unreadable"]] == bad
    lines = said.splitlines()
    assert len(lines) == len(bad)
    assert lines[0].startswith(f"v2m: left out: {whole.names[2]}: not a readable image (")
    for name in whole.names:
        Path(name).write_bytes(b"broken")
    with pytest.raises(ValueError, match="data: none of 24 images can be read, as "):
        work("none.npz")


def test_two_commands_do_not_write_the_same_file(work, tmp_path, monkeypatch):
    def second(model, images):
        with pytest.raises(ValueError, match=r"output: another command is at work in .*features\.npz\.parts"):
            work()
        return original(model, images)

    original = module.pooled_features
    monkeypatch.setattr(module, "pooled_features", second)
    work()
    assert (tmp_path / "features.npz").is_file()


def test_facts_say_what_the_features_are_of(work, run, image_folder, tmp_path):
    work()
    facts = read_features(tmp_path / "features.npz").facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["model"]["source"] == str(run)
    assert facts["data"]["source"] == str(image_folder)
    assert (facts["data"]["split"], facts["images"]["img_size"], facts["unreadable"]) == (
        "train",
        [8, 12],
        [],
    )

"""What a newcomer does with photos: one folder for each class, or a table, and nothing else."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from v2m.cli.main import main

TINY = ["--model=v2m_nano", "--model_args={embed_dim: 8, depth: 1}", "--input.img_size=8", "--device=cpu"]
QUICK = [*TINY, "--epochs=1", "--batch_size=8"]
MADE = "of 30 images of 3 classes, 24 are to train on and 6 to validate on (val_share 0.2, split_seed 0)"


@pytest.fixture
def flat(tmp_path, monkeypatch):
    """Three classes of ten noisy images of one colour each, 120x90 pixels, in the current folder."""
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 100, (9, 12, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).resize((120, 90)).save(tmp_path / "flat" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "flat"


def run(capsys, *arguments):
    """Exit code and output of a command."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_a_folder_of_classes_is_divided_trained_resumed_and_evaluated_on_the_same_images(flat, capsys):
    code, out = run(capsys, "train", "--data", flat, "--output", "run", *QUICK)
    assert (code, f"no validation images in {flat}: {MADE}" in out) == (0, True)
    kept = json.loads((flat.parent / "run" / "split.json").read_text())
    assert (len(kept["train"]), len(kept["val"])) == (24, 6)
    assert "split.json" in out.partition("Everything is in run:")[2]

    # Evaluation takes the very images, by the run and by the same folder, also with others added.
    for number in range(5):
        shutil.copy(flat / "red" / "0.png", flat / "red" / f"new{number}.png")
    (flat / kept["val"][0]).unlink()
    for data in ([], ["--data", flat]):
        code, out = run(capsys, "eval", "run", *data, "--output", "scores")
        assert (code, "5 images" in out) == (0, True)
        assert f"1 of 6 validation images are gone: {kept['val'][0]}" in out

    # So does the run as it goes on; what is new is trained on.
    code, out = run(capsys, "train", "--resume", "run", "--epochs=2")
    assert code == 0
    assert "5 images are new since the split was made, to train on" in out
    assert "29 training images now, 24 before" in out
    after = json.loads((flat.parent / "run" / "split.json").read_text())
    assert after["val"] == kept["val"]
    assert len(after["train"]) == 29
    code, out = run(capsys, "train", "--resume", "run", "--epochs=2", "--val_share=0.5")
    assert (code, "val_share is 0.5, but the run has its images divided by 0.2" in out) == (1, True)


def test_the_best_weights_and_a_run_called_best_have_the_images_of_their_run(flat, capsys):
    for output in ("run", "best"):
        assert run(capsys, "train", "--data", flat, "--output", output, *QUICK)[0] == 0
    for model in ("run/best", "best", "best/best"):
        code, out = run(capsys, "eval", model, "--output", "scores")
        assert (code, "6 images" in out) == (0, True), out


def test_all_images_of_another_folder_are_evaluated(flat, capsys):
    assert run(capsys, "train", "--data", flat, "--output", "run", *QUICK)[0] == 0
    flat.rename(flat.parent / "moved")
    code, out = run(capsys, "eval", "run", "--data", "moved")
    assert (code, "30 images" in out) == (0, True)
    assert "24 of 30 images have the names of images that the model was trained on" in out
    for folder in (flat.parent / "moved").iterdir():
        for image in folder.iterdir():
            image.rename(image.with_name(f"other {image.name}"))
    code, out = run(capsys, "eval", "run", "--data", "moved")
    assert (code, "30 images" in out, "warning" in out) == (0, True, False)


def test_a_run_goes_on_where_its_data_have_moved_to(flat, capsys):
    assert run(capsys, "train", "--data", flat, "--output", "run", *QUICK)[0] == 0
    before = json.loads((flat.parent / "run" / "split.json").read_text())
    flat.rename(flat.parent / "moved")
    code, out = run(capsys, "train", "--resume", "run", "--data", "moved", "--epochs=2")
    assert (code, "warning" in out) == (0, False)
    after = json.loads((flat.parent / "run" / "split.json").read_text())
    assert after == before | dict(data=str(flat.parent / "moved"))
    code, out = run(capsys, "eval", "run")
    assert (code, "6 images" in out) == (0, True)


def test_a_table_is_trained_and_evaluated(flat, capsys):
    rows = [f"{path.relative_to(flat)},{path.parent.name}" for path in flat.rglob("*.png")]
    table = flat / "labels.csv"
    table.write_text("\n".join(["file_name,label", *rows]))
    code, out = run(
        capsys, "train", "--data", "flat/labels.csv", "--output", "run", *QUICK, "--val_share=0.4"
    )
    assert (code, f"no validation images in {table}: of 30 images of 3 classes, 18 are to train" in out) == (
        0,
        True,
    )
    assert yaml.safe_load((flat.parent / "run" / "train.yaml").read_text())["data"] == str(table)
    told = (
        f"no validation images in {table}: of 30 images of 3 classes, 18 are to train on and 12 to validate"
    )
    code, out = run(capsys, "eval", "run")
    assert (code, "12 images" in out, told in out, "warning" in out) == (0, True, True, False)

    # Features are of the images of the run, which are not those of the usual share.
    code, out = run(capsys, "probe", "run", "--data", "flat/labels.csv", "--device=cpu")
    assert (code, "12 validation images by 18 training images" in out, told in out) == (0, True, True)

    # Without its list, the run cannot tell what it was trained on.
    (flat.parent / "run" / "split.json").unlink()
    code, out = run(capsys, "eval", "run")
    assert (code, "has no split.json any more" in out, "all 30 are scored" in out) == (0, True, True)


def test_the_other_commands_divide_a_folder_in_the_same_way(flat, capsys):
    code, out = run(capsys, "data", "check", flat, "--output", "check")
    assert (code, MADE in out) == (0, True)
    code, out = run(capsys, "probe", "random/v2m_nano", "--data", flat, "--output", "probe")
    assert (code, "6 validation images by 24 training images" in out, MADE in out) == (0, True, True)


def test_a_share_is_checked_and_is_told_of_where_it_is_not_used(flat, image_folder, capsys):
    for share, number in (("0", "0.0"), ("1", "1.0"), ("-0.2", "-0.2"), (".nan", "nan")):
        code, out = run(capsys, "train", "--data", flat, f"--val_share={share}")
        assert (code, f"val_share is {number}, expected 0 < val_share < 1" in out) == (1, True)
    code, out = run(capsys, "train", "--data", image_folder, "--output", "run", *QUICK, "--val_share=0.3")
    assert (code, f"val_share is not used: {image_folder} has validation images of its own" in out) == (
        0,
        True,
    )
    assert not (flat.parent / "run" / "split.json").exists()


def test_a_class_of_one_image_is_told_of(flat, capsys):
    for image in list((flat / "red").iterdir())[1:]:
        image.unlink()
    code, out = run(capsys, "train", "--data", flat, "--output", "run", *QUICK)
    assert (code, "has no images of the classes red: scores say nothing of them" in out) == (0, True)


def test_settings_follow_from_the_images_and_are_said_with_the_reason(flat, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", str(flat), "--print_config"])
    chosen = yaml.safe_load(capsys.readouterr().out)
    assert (chosen["model"], chosen["input"]["img_size"], chosen["batch_size"]) == ("v2m_lite_nano", 128, 4)
    code, out = run(
        capsys, "train", "--data", flat, "--epochs=1", "--output", "run",
        "--model_args={embed_dim: [8, 8, 16, 16], depths: [1, 1, 1, 1]}",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[1:5] == [
        "model v2m_lite_nano at 128x128 pixels: photos of 120x90 pixels (median), 30 images, 3 classes",
        "epochs 1 of 6 steps, batch_size 4, learning rate 0.00071: about 24 images to train on",
        "24 photos are few to train a model from nothing: expect little more than what colours tell "
        "(guessing is right in 33%)",
        "to start from trained weights: --model resnet18 --pretrained timm (timm's, downloaded), "
        "or --pretrained RUN for a run of yours",
    ]
    assert f"no validation images in {flat}: {MADE}" in out.splitlines()
    written = yaml.safe_load((flat.parent / "run" / "train.yaml").read_text())
    assert (written["model"], written["input"]["img_size"], written["batch_size"]) == (
        "v2m_lite_nano",
        [128, 128],
        4,
    )

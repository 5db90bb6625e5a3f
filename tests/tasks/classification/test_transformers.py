"""Folders with classifiers in transformers: the same model, labels and images as ``v2m predict``."""

import json
import warnings

import pytest
import torch
from PIL import Image
from torchvision.transforms import Grayscale

import v2m
from tests.helpers import load_golden, parameters
from tests.tasks.classification.test_model import CLASSES, SMALL, STAGES, save_new
from v2m.cli import main
from v2m.data import ImageSpec
from v2m.tasks import load_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about its own dependencies
    transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

GRAY = ImageSpec((8, 12), 1, (0.3,), (0.4,), crop_pct=0.9, interpolation="bicubic")
COLOUR = ImageSpec((12, 12), 3, (0.3, 0.5, 0.4), (0.4, 0.2, 0.3), crop_pct=0.8, interpolation="bilinear")
LARGE = ImageSpec((32, 64), 3, (0.3,) * 3, (0.4,) * 3, crop_pct=1.0, interpolation="bicubic")
MODELS = {
    "plain": ("v2m_nano", SMALL | dict(directions="corners_rows_first"), COLOUR),
    "gray": ("v2m_nano", SMALL, GRAY),
    "exact recurrence": ("v2m_nano", SMALL | dict(mixer="exact", img_size=(12, 12)), COLOUR),
    "windows": ("v2m_tiny_local", SMALL | dict(patch_size=2, window=3), COLOUR),
    "hierarchical": ("v2m_hierarchical_small", STAGES, LARGE),
    "light": ("v2m_lite_nano", STAGES, LARGE),
    "of timm, by default squashed": (
        "convnextv2_nano.fcmae_ft_in22k_in1k_384",
        dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
        LARGE,
    ),
}


@pytest.fixture(params=MODELS)
def folder(request, tmp_path):
    """A folder with an untrained model."""
    name, args, spec = MODELS[request.param]
    save_new(tmp_path, name, args, spec)
    return tmp_path


@pytest.fixture
def pictures(tmp_path_factory):
    """A lying, an upright and a gray picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, size in enumerate([(50, 40), (30, 70), (40, 40)]):
        pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8).numpy()
        image = Image.fromarray(pixels)
        (image.convert("L") if i == 2 else image).save(folder / f"{i}.png")
    return folder


def predicted(folder, pictures, capsys):
    """What ``v2m predict`` says: for every picture the probability of every class."""
    assert main(["predict", str(folder), str(pictures), "--json"]) == 0
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    return [{row["class"]: row["probability"] for row in each["predictions"]} for each in rows]


def processor_of(folder):
    """The processor as the README makes it."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    if processor.data_config["input_size"][0] == 1:
        processor.val_transforms.transforms.insert(0, Grayscale())
    return processor


def test_the_pipeline_predicts_what_v2m_predict_does(folder, pictures, capsys):
    expected = predicted(folder, pictures, capsys)
    classify = transformers.pipeline(
        "image-classification", str(folder), image_processor=processor_of(folder), device="cpu"
    )
    for path, probabilities in zip(sorted(pictures.iterdir()), expected, strict=True):
        found = {row["label"]: row["score"] for row in classify(str(path), top_k=3)}
        assert found == pytest.approx(probabilities, abs=2e-6)


def test_logits_and_labels_are_ours(folder):
    ours = load_model(folder)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    images = torch.randn(2, ours.evaluator.spec.in_chans, *ours.evaluator.spec.img_size)
    with torch.no_grad():
        assert torch.equal(model(images).logits, ours.model(images))
    assert model.config.id2label == dict(enumerate(CLASSES))
    features = transformers.AutoModel.from_pretrained(folder)(images).pooler_output
    torch.testing.assert_close(
        features, ours.model.forward_head(ours.model.forward_features(images), pre_logits=True)
    )


def test_the_trainer_trains_and_what_it_saves_is_a_folder_of_ours(tmp_path):
    save_new(tmp_path, *MODELS["plain"])
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    before = model.timm_model.head.weight.detach().clone()
    rows = [{"pixel_values": torch.randn(3, 12, 12), "labels": i % 3} for i in range(6)]
    settings = transformers.TrainingArguments(
        str(tmp_path / "trainer"),
        max_steps=3,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        save_steps=3,
        remove_unused_columns=False,
    )
    trainer = transformers.Trainer(model, settings, train_dataset=rows)
    assert trainer.train().global_step == 3
    assert not torch.equal(model.timm_model.head.weight, before)
    images = torch.randn(2, 3, 12, 12)
    saved = v2m.load(tmp_path / "trainer" / "checkpoint-3")
    assert (saved.name, saved.classes, saved.evaluator.spec) == ("v2m_nano", CLASSES, COLOUR)
    with torch.no_grad():
        assert torch.equal(saved.model(images), model.eval()(images).logits)
    pixels = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    image = saved.transforms(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    with torch.no_grad():
        expected = dict(zip(CLASSES, model(image[None]).logits[0].softmax(-1).tolist(), strict=True))
    assert saved.predict(pixels).probabilities == pytest.approx(expected)


def test_a_head_for_other_classes_is_new(tmp_path):
    save_new(tmp_path, *MODELS["plain"])
    model = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True
    )
    assert model(torch.randn(1, 3, 12, 12)).logits.shape == (1, 5)
    assert torch.equal(model.timm_model.norm.weight, load_model(tmp_path).model.norm.weight)


def test_converted_checkpoints(tmp_path, pictures, capsys):
    golden = load_golden("model_img64_p16_e48_d3_c10_f32")
    torch.save({"model": parameters(golden)}, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), str(tmp_path / "ours")]) == 0
    capsys.readouterr()
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        ours = load_model(tmp_path / "ours").model(golden["image"])
        assert torch.equal(model(golden["image"]).logits, ours)
    classify = transformers.pipeline("image-classification", str(tmp_path / "ours"), device="cpu")
    path = min(pictures.iterdir())
    assert main(["predict", str(tmp_path / "ours"), str(path), "--json", "--top", "1"]) == 0
    best = json.loads(capsys.readouterr().out)["predictions"][0]
    found = classify(str(path))[0]
    assert (found["label"], found["score"]) == (best["class"], pytest.approx(best["probability"], abs=2e-6))

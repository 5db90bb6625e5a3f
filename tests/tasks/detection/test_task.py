import json
from dataclasses import replace

import pytest
import torch

from tests.tasks.detection.coco import CLASSES, IDS, write_coco
from tests.tasks.detection.models import INPUT, TINY, tiny_head
from v2m.data.loading import EvalLoader, TrainLoader
from v2m.system import extras
from v2m.system.errors import DataError
from v2m.tasks import load_model
from v2m.tasks.detection.config import AugmentConfig, DetectionConfig
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.model import detect
from v2m.tasks.detection.task import Detection
from v2m.tasks.model_folder import read_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco") / "shapes"
    return write_coco(folder, dict(train=[(48, 64), (64, 40)] * 3, val=[(48, 64), (40, 50)] * 2))


def config(root, detector="mask_rcnn", **settings):
    options = dict(
        data=str(root), model_args=TINY, input=INPUT, head=tiny_head(detector, score_threshold=0.0)
    )
    return Detection.resolve(DetectionConfig(**options | settings))


def opened(root, detector="mask_rcnn", **settings):
    task = Detection(config(root, detector, **settings))
    warnings = []
    task.open_data(warnings.append)
    return task, warnings


@pytest.mark.parametrize("detector", ["mask_rcnn", "retinanet"])
@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig((0.5, 1.5), 64)])
def test_steps_of_training_and_evaluation(root, detector, augment):
    task, warnings = opened(root, detector, augment=augment)
    assert warnings == []
    assert task.classes == list(CLASSES)
    model = task.build(None)
    objective = task.build_objective(model).train()
    (batch,) = next(TrainLoader(task.train_data, 4, collate=task.collate).epoch(1))
    result = objective(*task.mix(batch.images, batch.targets))
    result["loss"].backward()
    assert task.count_right(result["output"], batch.targets) == (0, 0)
    results = task.evaluator.results(task.val_data)
    for part in EvalLoader(task.val_data, 3, collate=task.evaluator.collate):
        results.add(model.eval(), part, CPU, lambda: torch.autocast("cpu", torch.bfloat16))
    keys = results.scores().metrics
    assert [metric.key for metric in task.val_metrics if metric.key in keys] == (
        ["mask_ap", "box_ap"] if detector == "mask_rcnn" else ["box_ap"]
    )


@pytest.mark.parametrize("detector", ["mask_rcnn", "faster_rcnn", "retinanet"])
@pytest.mark.parametrize("model", ["v2m_lite_nano", "v2m_nano"])
def test_a_saved_model_finds_the_same(root, tmp_path, detector, model):
    args = TINY if model == "v2m_lite_nano" else dict(embed_dim=16, depth=2)
    task, _ = opened(root, detector, model=model, model_args=args)
    built = task.build(None).eval()
    task.save(built, tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        saved = load_model(path)
        assert saved.name == model
        assert not saved.model.training
        evaluator = saved.evaluator
        assert isinstance(evaluator, DetectionEvaluator)
        assert evaluator.classes == list(CLASSES)
        assert evaluator.category_ids == list(IDS)
        assert evaluator.has_masks == (detector == "mask_rcnn")
        images = [task.val_data[i][0] for i in (0, 1)]
        for before, after in zip(detect(built, images, CPU), detect(saved.model, images, CPU), strict=True):
            assert torch.equal(before.boxes, after.boxes)
            assert torch.equal(before.labels, after.labels)
    data = evaluator.open_data(str(root), tmp_path)
    assert data.has_masks == evaluator.has_masks
    assert len(data) == 4


def test_a_run_starts_from_another(root, tmp_path):
    task, _ = opened(root)
    before = task.build(None)
    task.save(before, tmp_path)
    again, _ = opened(root, pretrained=str(tmp_path))
    assert all(
        map(torch.equal, again.build(str(tmp_path)).state_dict().values(), before.state_dict().values())
    )
    other, _ = opened(root, "faster_rcnn", model_args={}, pretrained=str(tmp_path))
    assert other.config.model_args == json.loads(json.dumps(TINY))
    model = other.build(str(tmp_path)).state_dict()
    shared = [name for name in model if name.startswith("detector.backbone")]
    assert shared
    assert all(torch.equal(model[name], before.state_dict()[name]) for name in shared)


def test_what_is_no_detector_is_refused(root, tmp_path):
    task, _ = opened(root)
    task.save(task.build(None), tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    del saved["sha256"]
    path.write_text(json.dumps(saved | dict(task="segmentation")))
    with pytest.raises(DataError, match="a model for segmentation, expected a detector"):
        Detection.load(read_folder(tmp_path))
    path.write_text(json.dumps(saved | dict(label_names=["cat"])))
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(tmp_path)
    del saved["head"]
    path.write_text(json.dumps(saved))
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(tmp_path)


def test_the_library_that_scores_is_there(root, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", {}.get)
    with pytest.raises(ValueError, match="pip install faster-coco-eval"):
        config(root)


def test_what_is_odd_about_annotations_is_told(tmp_path):
    root = write_coco(tmp_path / "coco", dict(train=[(30, 40)] * 2, val=[(30, 40)]))
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"] = [20, 10, 40, 10]
        path.write_text(json.dumps(content))
    _, warnings = opened(root)
    beyond = [line for line in warnings if "reach beyond" in line]
    assert ["instances_train" in line for line in beyond] == [True, False]


def test_other_classes_to_validate_on_are_refused(root, tmp_path):
    with pytest.raises(DataError, match="other categories"):
        DetectionEvaluator(["cat"], [1], True).open_data(str(root), tmp_path)


def test_images_may_have_texts_for_ids(tmp_path):
    folder = write_coco(tmp_path / "coco", dict(train=[(48, 64)] * 12, val=[(48, 64)] * 2))
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["id"] = f"scene {image['id']}"
    for annotation in content["annotations"]:
        annotation.update(image_id=f"scene {annotation['image_id']}", id=f"object {annotation['id']}")
    path.write_text(json.dumps(content))
    task, warnings = opened(folder, "retinanet")
    assert warnings == []
    results = task.evaluator.results(task.val_data)
    for part in EvalLoader(task.val_data, 2, collate=task.evaluator.collate):
        results.add(task.build(None).eval(), part, CPU, torch.no_grad)
    assert {entry["image_id"] for entry in results.entries()} <= {"scene 101", "scene 102"}
    assert results.scores().images == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_strict_is_a_setting_for_both_splits(tmp_path, split):
    folder = write_coco(tmp_path / "coco", dict(train=[(48, 64)] * 12, val=[(48, 64)] * 2))
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content["annotations"].append(content["annotations"][0] | dict(id=99, category_id=99))
    path.write_text(json.dumps(content))
    _, warnings = opened(folder)
    assert "annotations are left out for their category_id, the first: annotation 99 of" in warnings[0]
    with pytest.raises(
        DataError, match=r"annotation 99 of image 101 .* has category_id 99, known: 3, 7, 20$"
    ):
        opened(folder, input=replace(INPUT, strict=True))

import copy
import pickle

import pytest
import torch

from tests.tasks.detection.coco import write_coco
from tests.tasks.detection.models import BACKBONES, some_target, tiny_detector
from v2m.tasks.detection.data import to_tensor
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.loss import DetectionObjective
from v2m.tasks.detection.model import detect
from v2m.tasks.evaluation import predict_images

DETECTORS = ("mask_rcnn", "faster_rcnn", "retinanet")
CPU = torch.device("cpu")


@pytest.fixture
def images():
    return [torch.rand(3, 64, 80), torch.rand(3, 48, 72)]


def learn(model, images, counts):
    objective = DetectionObjective(model).train()
    targets = [some_target(n, *image.shape[1:]) for n, image in zip(counts, images, strict=True)]
    return objective(images, targets)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_learns_with_and_without_objects(detector, backbone, images):
    model = tiny_detector(detector, backbone)
    for counts in ((3, 1), (0, 0)):
        model.zero_grad()
        result = learn(model, images, counts)
        assert result["loss"].item() == pytest.approx(sum(v.item() for v in result["output"].values()))
        result["loss"].backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None]
        assert not missing
        assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("detector", "backbone"),
    [*(("mask_rcnn", backbone) for backbone in BACKBONES), ("retinanet", "v2m_lite_nano")],
)
def test_what_is_found_does_not_depend_on_other_images(detector, backbone):
    """Several of the same size run together; none is padded to the size of another."""
    model = tiny_detector(detector, backbone, score_threshold=0.0, detections=10).eval()
    small, wide, tall = torch.rand(3, 40, 56), torch.rand(3, 40, 90), torch.rand(3, 100, 50)
    together = detect(model, [tall, small, wide, 1 - small], CPU)
    assert all(len(found.labels) == 10 for found in together)
    for place, image in enumerate([tall, small, wide, 1 - small]):
        (alone,) = detect(model, [image], CPU)
        for name, value in alone._asdict().items():
            if value is not None:
                torch.testing.assert_close(getattr(together[place], name), value, rtol=1e-4, atol=1e-4)


def test_detections_are_in_pixels_of_the_image(images):
    model = tiny_detector(score_threshold=0.0).eval()
    for image, found in zip(images, detect(model, images, CPU), strict=True):
        height, width = image.shape[1:]
        assert found.masks.shape == (len(found.labels), height, width)
        assert found.masks.dtype == torch.bool
        assert found.boxes.min() >= 0
        assert (found.boxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert set(found.labels.tolist()) <= {0, 1, 2}
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert not detect(tiny_detector(score_threshold=1.0).eval(), images, CPU)[0].masks.numel()


@pytest.mark.parametrize("detector", ["mask_rcnn", "retinanet"])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_very_narrow_images_keep_a_pixel(detector, size):
    model = tiny_detector(detector).eval()
    (found,) = detect(model, [torch.rand(3, *size)], torch.device("cpu"))
    assert found.masks is None or found.masks.shape[1:] == size


def test_regions_are_cut_out_at_the_strides_of_the_maps():
    """Whatever comes first: torchvision would take 8 for the stride of a map of 16 cells for 33 pixels."""
    model = tiny_detector(score_threshold=0.0)
    with torch.no_grad():
        learn(model, [torch.rand(3, 33, 40)], [1])
    for pool in (model.detector.roi_heads.box_roi_pool, model.detector.roi_heads.mask_roi_pool):
        assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize(
    ("detector", "strides"), [("mask_rcnn", [4, 8, 16, 32, 64]), ("retinanet", [8, 16, 32, 64, 128])]
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_levels_have_their_strides(detector, strides, backbone):
    maps = tiny_detector(detector, backbone).detector.backbone(torch.rand(1, 3, 128, 256))
    assert [tuple(m.shape) for m in maps.values()] == [(1, 16, 128 // s, 256 // s) for s in strides]


@pytest.mark.parametrize("detector", DETECTORS)
def test_boxes_are_float32_under_autocast(detector, images):
    model = tiny_detector(detector, score_threshold=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.detector.backbone(torch.rand(1, 3, 64, 64))
        result = learn(model, images, (2, 0))
        model.eval()
        found = model(images)
    assert {m.dtype for m in maps.values()} == {torch.float32}
    assert {loss.dtype for loss in result["output"].values()} == {torch.float32}
    assert found[0]["boxes"].dtype == torch.float32
    result["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    edges = found[0]["boxes"].flatten()
    assert (edges != edges.bfloat16().float()).float().mean() > 0.5


@pytest.mark.parametrize("detector", DETECTORS)
def test_numbers_that_are_not_finite_reach_the_loss(detector, images):
    model = tiny_detector(detector)
    images[0][:, 3, 4] = torch.nan
    assert not learn(model, images, (2, 1))["loss"].isfinite()
    assert not learn(model, images, (0, 0))["loss"].isfinite()
    next(model.parameters()).data.fill_(torch.inf)
    images[0].nan_to_num_()
    assert not learn(model, images, (2, 1))["loss"].isfinite()
    assert [len(found.labels) for found in detect(model.eval(), images, CPU)] == [0, 0]


@pytest.mark.parametrize("label", [0, 2])
@pytest.mark.parametrize("detector", DETECTORS)
def test_labels_count_from_0(detector, label, images):
    """A detector that takes everything for one class."""
    model = tiny_detector(detector, score_threshold=0.5)
    inner = model.detector
    if detector == "retinanet":
        last, column = inner.head.classification_head.cls_logits, label
    else:
        last, column = inner.roi_heads.box_predictor.cls_score, label + 1
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, -20.0)
    last.bias.data[column :: len(last.bias) if detector != "retinanet" else 3] = 20.0
    found = detect(model.eval(), images, CPU)
    assert all(len(objects.labels) for objects in found)
    assert {other for objects in found for other in objects.labels.tolist()} == {label}
    name = "classification" if detector == "retinanet" else "loss_classifier"
    model.train()
    losses = []
    for other in (label, 1):
        torch.manual_seed(0)
        targets = [some_target(2, *image.shape[1:]) for image in images]
        losses.append(model(images, [dict(t, labels=torch.full((2,), other)) for t in targets])[name].item())
    assert losses[0] < losses[1]


def test_copies_are_whole(images):
    model = tiny_detector(score_threshold=0.0)
    with torch.no_grad():
        learn(model, images, (1, 1))
    expected = detect(model.eval(), images, CPU)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(detect(other, images, CPU)[0].boxes, expected[0].boxes)


def test_the_backbone_alone_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    model = tiny_detector()
    model.compile(backend="eager")
    assert compiled == [(model.detector.backbone.backbone, dict(backend="eager"))]


def test_targets_stay_as_they_are(images):
    model = tiny_detector().train()
    targets = [some_target(2, 64, 80), some_target(1, 48, 72)]
    before = copy.deepcopy(targets)
    model(images, targets)
    for target, other in zip(targets, before, strict=True):
        assert all(torch.equal(target[name], other[name]) for name in other)


def test_files_that_cannot_be_read_are_told(tmp_path, images):
    write_coco(tmp_path / "coco", dict(val=[(30, 40), (20, 60)]))
    paths = sorted((tmp_path / "coco" / "images" / "val").iterdir())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    model = tiny_detector(score_threshold=0.0)
    evaluator = DetectionEvaluator(["cat"], [1], has_masks=True)
    outcomes = dict(predict_images(model, evaluator, [paths[0], broken, paths[1]], CPU, 2))
    assert [*outcomes] == [paths[0], broken, paths[1]]
    assert "broken.png" in str(outcomes[broken])
    image, found = outcomes[paths[1]]
    assert image.size == (60, 20)
    torch.testing.assert_close(found.boxes, detect(model, [to_tensor(image)], CPU)[0].boxes)

import contextlib
import io
import json
from dataclasses import astuple

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

from tests.tasks.detection.coco import CLASSES, IDS, ellipse, random_box, write_coco
from v2m.data.loading import EvalLoader
from v2m.tasks.detection import metrics
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.metrics import DetectionScores, to_entries
from v2m.tasks.detection.model import Detections, Detector

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

CPU = torch.device("cpu")
SIZES = [(60, 80), (200, 160), (120, 300), (64, 64), (90, 70)] * 3


class Guess(Detector):
    """Boxes and ellipses at random, some near the objects, with scores that are the same now and then."""

    def __init__(self, data, has_masks):
        torch.nn.Module.__init__(self)
        self.data, self.has_masks = data, has_masks
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def find(self, place):
        rng = np.random.default_rng(place)
        height, width = self.data.size(place)
        objects = self.data.objects(place)
        count = int(rng.integers(0, 130)) if place % 5 else 0
        boxes = [random_box(rng, height, width) for _ in range(count)]
        labels = rng.integers(0, 3, count)
        for i in range(0, count - 1, 3) if len(objects.boxes) else ():
            near = int(rng.integers(len(objects.boxes)))
            left, top, right, bottom = objects.boxes[near].tolist()
            boxes[i] = [left, top, right - left + rng.uniform(-2, 2), bottom - top + 1]
            labels[i] = objects.labels[near]
        corners = torch.tensor(boxes).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = torch.zeros(count, height, width, dtype=torch.bool)
        for i, box in enumerate(boxes):
            masks[i] = torch.from_numpy(ellipse(box, height, width))
        scores = torch.from_numpy(np.sort(rng.random(count).round(2))[::-1].copy()).float()
        return Detections(corners, torch.from_numpy(labels), scores, masks if self.has_masks else None)


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluate guesses in some processes; returns the results of all and the ground truth."""

    def run(has_masks=True, processes=1, sizes=SIZES, weight=0.0, **options):
        root = write_coco(tmp_path / "coco", dict(train=[(60, 80)], val=sizes), **options)
        evaluator = DetectionEvaluator(list(CLASSES), list(IDS), has_masks)
        data = evaluator.open_data(str(root), tmp_path)
        model = Guess(data, has_masks)
        torch.nn.init.constant_(model.weight, weight)
        states = []
        for rank in range(processes):
            part = evaluator.results(data)
            for batch in EvalLoader(data, 3, rank=rank, processes=processes, collate=evaluator.collate):
                places = batch.indices.tolist()
                monkeypatch.setattr(metrics, "detect", lambda *_, p=places: [model.find(i) for i in p])
                part.add(model, batch, CPU, contextlib.nullcontext)
            states.append(part.state())
        results = evaluator.results(data)
        results.merge(states)
        return results, json.loads((root / "annotations" / "instances_val.json").read_text())

    return run


def coco_eval(truth, entries, kind, folder):
    """What pycocotools makes of a file of results."""
    drop = "bbox" if kind == "segm" else "segmentation"
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(
        json.dumps([{k: v for k, v in e.items() if k != drop} for e in entries])
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_pycocotools(evaluate, tmp_path, seed):
    results, truth = evaluate(most=12, seed=seed)
    assert any(a["iscrowd"] for a in truth["annotations"])
    assert len({a["image_id"] for a in truth["annotations"]}) < len(truth["images"])
    scores, entries = results.scores(), results.entries()
    assert len({e["image_id"] for e in entries}) < len(truth["images"])
    assert scores.images == len(SIZES)
    for kind, own in (("bbox", scores.box), ("segm", scores.mask)):
        expected = coco_eval(truth, entries, kind, tmp_path)
        assert expected.stats.min() > 0
        np.testing.assert_allclose(astuple(own), expected.stats, rtol=0, atol=1e-6)
        for place, row in enumerate(scores.classes):
            precision = expected.eval["precision"][:, :, place, 0, -1]
            ap = row.box_ap if kind == "bbox" else row.mask_ap
            assert ap == pytest.approx(precision[precision > -1].mean(), abs=1e-6)
    counts = [sum(a["category_id"] == i and not a["iscrowd"] for a in truth["annotations"]) for i in IDS]
    assert [row.objects for row in scores.classes] == counts


def test_scores_are_those_of_torchmetrics_with_pycocotools(evaluate):
    results, _ = evaluate()
    metric = MeanAveragePrecision(
        iou_type=("bbox", "segm"),
        backend="pycocotools",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # by default those of COCO rounded to float32
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    metric.warn_on_many_detections = False
    data = results._data
    for place in range(len(data)):
        objects = data.objects(place)
        truth = dict(objects._asdict(), iscrowd=objects.crowd.long(), area=objects.areas)
        metric.update([results.detections(place)._asdict()], [truth])
    expected = metric.compute()
    scores = results.scores()
    for kind, own in (("bbox", scores.box), ("segm", scores.mask)):
        values = [expected[f"{kind}_{name}"].item() for name in metrics.NAMES]
        np.testing.assert_allclose(astuple(own), values, rtol=0, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_processes(evaluate, tmp_path):
    one, _ = evaluate()
    (tmp_path / "coco").rename(tmp_path / "before")
    several, _ = evaluate(processes=3)
    assert several.places == list(range(len(SIZES)))
    assert several.entries() == one.entries()
    assert several.scores() == one.scores()


def test_boxes_alone_are_scored_without_masks(evaluate, tmp_path):
    results, truth = evaluate(has_masks=False, masks=False)
    scores = results.scores()
    assert scores.mask is None
    assert set(scores.metrics) == {"box_ap", "box_ap50", "box_ap75"}
    assert all(row.mask_ap is None for row in scores.classes)
    assert results.detections(1).masks is None
    expected = coco_eval(truth, results.entries(), "bbox", tmp_path)
    np.testing.assert_allclose(astuple(scores.box), expected.stats, atol=1e-6)


def test_what_was_found_comes_back(evaluate):
    results, _ = evaluate(processes=2)
    given, kept = results._data, results.detections(3)
    expected = Guess(given, True).find(3)
    torch.testing.assert_close(kept.boxes, expected.boxes)
    assert torch.equal(kept.masks, expected.masks)
    assert torch.equal(kept.labels, expected.labels)
    place_entries = [e for e in results.entries() if e["image_id"] == given.image_ids[3]]
    again = to_entries(expected, given.image_ids[3], given.category_ids)
    assert [e["segmentation"] for e in again] == [e["segmentation"] for e in place_entries]
    assert [(e["category_id"], e["bbox"], e["score"]) for e in again] == [
        (e["category_id"], e["bbox"], e["score"]) for e in place_entries
    ]


def test_images_without_objects_or_detections_give_numbers(evaluate):
    """Place 0 has no detections; with one small image there are no large objects either."""
    results, _ = evaluate(sizes=[(40, 40)], most=1, crowds=False)
    scores = results.scores()
    assert scores.box.ap_large == -1
    assert scores.metrics == dict.fromkeys(scores.metrics, 0.0)
    assert len(scores.metrics) == 6
    absent = [row for row in scores.classes if not row.objects]
    assert absent
    assert all(row.box_ap is None and row.mask_ap is None for row in absent)


def test_images_that_were_not_read_do_not_count(evaluate, tmp_path):
    results, truth = evaluate()
    state = results.state()
    kept = [i for i, place in enumerate(state.places) if place not in (1, 6)]
    lists = {name: [values[i] for i in kept] for name, values in state.lists.items()}
    results.merge([state._replace(places=[state.places[i] for i in kept], lists=lists)])
    images = [image for i, image in enumerate(truth["images"]) if i not in (1, 6)]
    ids = {image["id"] for image in images}
    annotations = [a for a in truth["annotations"] if a["image_id"] in ids]
    expected = coco_eval(
        dict(truth, images=images, annotations=annotations), results.entries(), "segm", tmp_path
    )
    assert results.images == len(images)
    np.testing.assert_allclose(astuple(results.scores().mask), expected.stats, atol=1e-6)


def test_weights_that_are_no_numbers_give_no_scores(evaluate):
    results, _ = evaluate(weight=float("nan"), processes=2)
    scores = results.scores()
    assert isinstance(scores, DetectionScores)
    assert all(np.isnan(value) for value in scores.metrics.values())

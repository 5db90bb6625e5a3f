import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from v2m.features import probe as module
from v2m.features.files import Features
from v2m.features.probe import Accuracy, fit_linear, knn_accuracy, minimize, probe


def blobs(count, spread, classes=4, dimensions=6, seed=0):
    """Points around a centre per class."""
    centres = np.random.default_rng(7).normal(size=(classes, dimensions)) * 3
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, count)
    x = centres[y] + spread * generator.normal(size=(count, dimensions))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def plain_knn(train_x, train_y, x, y, classes, k):
    """The same image by image, in float64."""
    train_x, x, right, right5 = train_x.double(), x.double(), 0, 0
    for image, target in zip(x, y.tolist(), strict=True):
        similarity = [float(image @ other / image.norm() / other.norm()) for other in train_x]
        votes = [0.0] * classes
        for index in sorted(range(len(train_x)), key=lambda i: -similarity[i])[:k]:
            votes[train_y[index]] += np.exp(similarity[index] / 0.07)
        best = sorted(range(classes), key=lambda c: -votes[c])
        right += best[0] == target
        right5 += target in best[:5]
    return right / len(x), right5 / len(x)


@pytest.mark.parametrize("numbers", [2**26, 400])
def test_knn_is_the_plain_one_in_any_chunks(numbers, monkeypatch):
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", numbers)
    train, val = blobs(70, 4, classes=8), blobs(40, 4, classes=8, seed=1)
    found = knn_accuracy(*train, *val, 8)
    assert list(found) == [10, 20, 70], "no more neighbours than images"
    for k, accuracy in found.items():
        assert (accuracy.top1, accuracy.top5) == pytest.approx(plain_knn(*train, *val, 8, k))
    assert 0.3 < found[10].top1 < 0.9


def test_linear_classifier_separates_what_can_be_separated():
    train, val = blobs(200, 0.5), blobs(100, 0.5, seed=1)
    linear = fit_linear(*train, 4)
    assert Accuracy.of(linear(val[0]), val[1]).top1 == 1.0
    noise = torch.randn(200, 6)
    assert Accuracy.of(fit_linear(noise, train[1], 4)(val[0]), val[1]).top1 < 0.6


@pytest.mark.parametrize("numbers", [2**26, 100])
@pytest.mark.parametrize("decay", [0.1, 1e-3])
def test_the_minimum_is_that_of_scikit_learn(decay, numbers, monkeypatch):
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", numbers)
    x, y = blobs(150, 4)
    x = torch.tensor(StandardScaler().fit_transform(x))
    weight, bias = minimize(x, y, decay, x.new_zeros(4, 6), x.new_zeros(4))
    expected = LogisticRegression(C=1 / (decay * len(x)), tol=1e-10, max_iter=10000).fit(x, y)
    assert weight.numpy() == pytest.approx(expected.coef_, abs=2e-3)
    assert (bias - bias.mean()).numpy() == pytest.approx(
        expected.intercept_ - expected.intercept_.mean(), abs=2e-3
    )


def test_decay_is_chosen_on_training_images_and_matters():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 200, generator=generator)
    y = (x[:, :5].sum(1) > 0).long()
    linear = fit_linear(x, y, 2)
    assert list(linear.held_out) == list(module.DECAYS)
    best = max(linear.held_out.values())
    assert linear.decay == next(decay for decay, top1 in linear.held_out.items() if top1 == best)


def test_scale_and_constant_features_do_not_matter():
    train, val = blobs(150, 3), blobs(80, 3, seed=1)
    plain = fit_linear(*train, 4)

    def changed(x):
        return torch.cat([x * 1e-3 + 5, torch.full((len(x), 2), 0.1)], 1)

    other = fit_linear(changed(train[0]), train[1], 4)
    scores = Accuracy.of(plain(val[0]), val[1]).top1, Accuracy.of(other(changed(val[0])), val[1]).top1
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def features(x, y, split, **model):
    facts = dict(
        model=dict(source="runs/x", sha256="a") | model,
        data=dict(source="blobs", split=split),
        classes=list("abcd"),
        images=dict(in_chans=1),
    )
    return Features(x.numpy(), y.numpy(), np.arange(len(x)), [""] * len(x), facts)


def test_probe_reports_everything_and_checks_that_files_go_together():
    train, val = features(*blobs(120, 2), "train"), features(*blobs(50, 2, seed=1), "val")
    found = probe(train, val, torch.device("cpu"))
    assert (found.features, found.train_images, found.val_images, found.classes) == (6, 120, 50, 4)
    assert list(found.knn) == [10, 20, 100, 120]
    assert min(found.linear.top1, found.knn[10].top1) > 0.8
    assert found.linear.top5 == 1.0
    cpu = torch.device("cpu")
    with pytest.raises(
        ValueError, match="val: runs/y on blobs has another model than train, which is runs/x"
    ):
        probe(train, features(*blobs(50, 2), "val", source="runs/y", sha256="b"), cpu)
    with pytest.raises(ValueError, match="data: 1 training image, expected at least 2"):
        probe(features(*blobs(1, 2), "train"), val, cpu)
    bad = features(*blobs(50, 2), "val")
    bad.features[3, 2] = np.nan
    with pytest.raises(ValueError, match="val: features of runs/x are infinite or NaN"):
        probe(train, bad, cpu)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.targets.__setitem__(3, -1), "an image has class -1, expected 0 to 3"),
        (lambda f: f.targets.__setitem__(3, 99), "an image has class 99, expected 0 to 3"),
        (lambda f: f.features.__setitem__((3, 2), np.inf), "features of runs/x are infinite or NaN"),
        (lambda f: dataclasses.replace(f, targets=f.targets.astype(float)), "classes of type float64"),
        (lambda f: dataclasses.replace(f, features=f.features[:0], targets=f.targets[:0]), "shape .0, 6."),
        (lambda f: dataclasses.replace(f, features=f.features[:, :0]), "shape .50, 0."),
        (lambda f: dataclasses.replace(f, features=f.features[:, :5]), "5 features|6 features"),
    ],
)
def test_features_that_cannot_be_scored_are_refused(change, message):
    for name in ("train", "val"):
        found = {key: features(*blobs(50, 2), key) for key in ("train", "val")}
        found[name] = change(found[name]) or found[name]
        with pytest.raises(ValueError, match=f"^(val|{name}): .*{message}") as caught:
            probe(found["train"], found["val"], torch.device("cpu"))
        assert "\n" not in str(caught.value)

"""How good frozen features are: nearest neighbours, and a linear classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from v2m.features.files import Features
from v2m.system.errors import shown

KS = (10, 20, 100, 200)
"""Numbers of neighbours, and below the temperature of their votes: DINO's."""
TEMPERATURE = 0.07
DECAYS = tuple(10.0**-power for power in range(9))
"""Weight decays that are tried, from strong to weak."""
HELD_OUT = 5
"""One in so many training images is held out to choose the decay by."""
STEPS = 1000
"""The most iterations of L-BFGS for one decay."""
NUMBERS_AT_ONCE = 2**26
"""Largest number of scores that are in memory at once (256 MiB in float32)."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of images whose class has the best score, or one of the best five (or of all, if fewer)."""

    top1: float
    top5: float

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> "Accuracy":
        """The accuracy of scores ``[N, classes]`` for class indices ``[N]``."""
        best = scores.topk(min(5, scores.shape[1])).indices == targets[:, None]
        return cls(best[:, 0].float().mean().item(), best.any(1).float().mean().item())


@dataclass(frozen=True)
class Probe:
    """How well the classes of validation images are told from frozen features.

    Attributes:
        features: Features of each image, D.
        train_images: Images that vote, and that the classifier is fitted on.
        val_images: Images that are scored.
        classes: Number of classes.
        knn: Accuracy by the number of neighbours.
        linear: Accuracy of the linear classifier.
        decay: The classifier's weight decay, the best one on held-out training images.
        held_out: Top-1 accuracy on the held-out images, by weight decay.
    """

    features: int
    train_images: int
    val_images: int
    classes: int
    knn: dict[int, Accuracy]
    linear: Accuracy
    decay: float
    held_out: dict[float, float]


def probe(train: Features, val: Features, device: torch.device) -> Probe:
    """Score features of validation images by those of training images.

    Args:
        train: Features of training images, without augmentation.
        val: Features of validation images by the same model.
        device: Where to compute.

    Raises:
        ValueError: the two are of different models, classes or image settings, features or classes are out
            of range, or there are too few training images.
    """
    check_pair(train.facts, val.facts)
    classes = len(train.facts["classes"])
    x, y = _tensors("train", train, device)
    val_x, val_y = _tensors("val", val, device)
    if x.shape[1] != val_x.shape[1]:
        raise ValueError(f"val: {val_x.shape[1]} features of each image, those of train have {x.shape[1]}")
    knn = knn_accuracy(x, y, val_x, val_y, classes)
    linear = fit_linear(x, y, classes)
    return Probe(
        features=x.shape[1],
        train_images=len(x),
        val_images=len(val_x),
        classes=classes,
        knn=knn,
        linear=Accuracy.of(linear(val_x), val_y),
        decay=linear.decay,
        held_out=linear.held_out,
    )


def check_pair(train: dict[str, Any], val: dict[str, Any]) -> None:
    """Make sure that two files of features go together.

    Raises:
        ValueError: they are of different models, classes or image settings.
    """
    for name, ours, theirs in (
        ("model", val["model"]["sha256"], train["model"]["sha256"]),
        ("classes", val["classes"], train["classes"]),
        ("image settings", val["images"], train["images"]),
    ):
        if ours != theirs:
            sources = [
                shown(f"{facts['model']['source']} on {facts['data']['source']}") for facts in (val, train)
            ]
            raise ValueError(f"val: {sources[0]} has another {name} than train, which is {sources[1]}")


def _tensors(name: str, features: Features, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features ``[N, D]`` and class indices ``[N]`` on a device, if they can be probed."""
    # On a GPU a class index out of range would only end the process, without saying whose it is.
    classes, targets = len(features.facts["classes"]), features.targets
    if features.features.size == 0:
        raise ValueError(f"{name}: features have shape {list(features.features.shape)}, expected images")
    wrong = targets[(targets < 0) | (targets >= classes)]
    if targets.dtype != np.int64 or len(wrong):
        found = f"class {wrong[0]}" if len(wrong) else f"classes of type {targets.dtype}"
        raise ValueError(f"{name}: an image has {found}, expected 0 to {classes - 1}")
    if not torch.from_numpy(features.features).isfinite().all():
        source = shown(features.facts["model"]["source"])
        raise ValueError(f"{name}: features of {source} are infinite or NaN")
    return torch.from_numpy(features.features).to(device), torch.from_numpy(features.targets).to(device)


@torch.inference_mode()
def knn_accuracy(
    train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, classes: int, ks: Sequence[int] = KS
) -> dict[int, Accuracy]:
    """Classify by the votes of the nearest training images, as DINO does (arXiv:2104.14294, appendix F.1).

    The k images with the largest cosine similarity s vote for their class with weight exp(s / 0.07).

    Args:
        train_x: Features ``[N, D]`` of the images that vote.
        train_y: Their class indices ``[N]``.
        x: Features ``[M, D]`` of the images that are classified.
        y: Their class indices ``[M]``.
        classes: Number of classes.
        ks: Numbers of neighbours; those above N are N.

    Returns:
        Accuracy by the number of neighbours, ascending.
    """
    # One search finds the most neighbours that are asked for, nearest first; each k takes the first of them.
    ks = sorted({min(k, len(train_x)) for k in ks})
    bank = F.normalize(train_x).T
    rows = max(1, NUMBERS_AT_ONCE // max(len(train_x), classes * len(ks)))
    scores: dict[int, list[Tensor]] = {k: [] for k in ks}
    for part, targets in zip(x.split(rows), y.split(rows), strict=True):
        similarity, nearest = (F.normalize(part) @ bank).topk(ks[-1])
        votes, labels = (similarity / TEMPERATURE).exp(), train_y[nearest]
        for k in ks:
            counts = votes.new_zeros(len(part), classes).scatter_add_(1, labels[:, :k], votes[:, :k])
            best = counts.topk(min(5, classes)).indices == targets[:, None]
            scores[k].append(torch.stack([best[:, 0], best.any(1)], 1))
    return {k: Accuracy(*torch.cat(found).float().mean(0).tolist()) for k, found in scores.items()}


@dataclass(frozen=True)
class LinearClassifier:
    """Logistic regression on features, standardised by mean and deviation of the training images.

    Attributes:
        mean: Mean of each feature over the training images ``[D]``.
        std: Their standard deviation ``[D]``.
        weight: ``[classes, D]``.
        bias: ``[classes]``.
        decay: The weight decay that was chosen.
        held_out: Top-1 accuracy on held-out training images, by weight decay.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    decay: float
    held_out: dict[float, float]

    def __call__(self, x: Tensor) -> Tensor:
        """Class scores ``[N, classes]`` of features ``[N, D]``."""
        return F.linear((x - self.mean) / self.std, self.weight, self.bias)


def fit_linear(x: Tensor, y: Tensor, classes: int, seed: int = 0) -> LinearClassifier:
    """Fit a linear classifier on features ``[N, D]`` and class indices ``[N]``.

    The weight decay is the one with the best accuracy on a fifth of the images, which are held out; the
    strongest of equal ones. The classifier is then fitted on all images with it.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(x) < 2:
        raise ValueError(f"data: {len(x)} training image, expected at least 2")
    mean, std = x.mean(0), x.std(0, correction=0)
    std = std.clamp(min=max(1e-5 * std.max().item(), torch.finfo(std.dtype).tiny))  # for constant features
    x = (x - mean) / std
    # Drawn on the CPU, so that the same images are held out on every device.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    held, rest = order.tensor_split([max(1, len(x) // HELD_OUT)])
    held_x, held_y, rest_x, rest_y = x[held], y[held], x[rest], y[rest]
    weight, bias = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
    found = {}
    # Each fit starts where the one with the stronger decay ended, which is near.
    for decay in DECAYS:
        weight, bias = minimize(rest_x, rest_y, decay, weight, bias)
        found[decay] = Accuracy.of(F.linear(held_x, weight, bias), held_y).top1, weight, bias
    best = max(found, key=lambda decay: found[decay][0])
    weight, bias = minimize(x, y, best, *found[best][1:])
    held_out = {decay: top1 for decay, (top1, _, _) in found.items()}
    return LinearClassifier(mean, std, weight, bias, best, held_out)


def minimize(x: Tensor, y: Tensor, decay: float, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias that minimise mean cross-entropy + decay / 2 |weight|^2, by L-BFGS.

    Args:
        x: Features ``[N, D]``.
        y: Class indices ``[N]``.
        decay: Weight decay.
        weight: Where the search starts ``[classes, D]``.
        bias: Likewise ``[classes]``.
    """
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    rows = max(1, NUMBERS_AT_ONCE // len(bias))

    # Exact loss and gradient over all images, added up from pieces that fit in memory.
    def closure() -> Tensor:
        optimizer.zero_grad()
        total = decay / 2 * weight.square().sum()
        total.backward()
        for part, targets in zip(x.split(rows), y.split(rows), strict=True):
            loss = F.cross_entropy(F.linear(part, weight, bias), targets, reduction="sum") / len(x)
            loss.backward()
            total = total + loss.detach()
        return total.detach()

    optimizer.step(closure)
    return weight.detach(), bias.detach()

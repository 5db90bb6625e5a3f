"""The catalogue of studies. ``v2m study NAME`` runs one of them."""

from dataclasses import replace
from typing import Any

from v2m.recipes import fashion_mnist, scenes
from v2m.studies.study import Study, Variant
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig

SMALL_SHAPE: dict[str, Any] = dict(embed_dim=64, depth=2)
"""A small V2M: ``v2m_micro``, narrower, with two blocks."""

SMALL = SMALL_SHAPE | dict(directions="corners")
"""The same with the paper's directions."""

VIT = dict(
    model="vit_tiny_patch16_224",
    model_args=dict(patch_size=4, embed_dim=64, depth=2, num_heads=2, mlp_ratio=0.75),
)
"""timm's ViT of that width and depth, with so small MLPs that it has as many parameters."""

TRAINING: dict[str, Any] = dict(batch_size=32, ema_decay=0.99, optimizer=OptimizerConfig(lr=2e-3))
SMALL_BASE: dict[str, Any] = dict(model="v2m_micro", model_args=SMALL, **TRAINING)

STAGES: dict[str, Any] = dict(embed_dim=[32, 64, 96, 192], depths=[1, 1, 4, 1], mlp_ratio=3.0)
"""The shape of ``v2m_lite_nano``."""


def _small(about: str, **model_args: Any) -> Variant:
    """A variant of the small V2M."""
    return Variant(about, dict(model_args=SMALL | model_args))


def _stages(about: str, **model_args: Any) -> Variant:
    """A variant of a small hierarchical V2M."""
    return Variant(about, dict(model_args=STAGES | model_args))


CORNERS = Variant("the paper: four corners, rows then columns")
ROWS_FIRST = _small("four corners, rows always first", directions="corners_rows_first")
ONE_CORNER = _small("the top left corner only", directions="one_corner")
CONV2D = _small("corners, one 3x3 convolution before all scans", mixer="conv")
GEOMETRIC = _small("corners, one rate per channel", decay="geometric")
ONE_GATE = _small("corners, gated once after both passes", single_gate=True)
CONV2D_ONE_GATE = _small("one 3x3 convolution, gated once", mixer="conv", single_gate=True)
EXACT = _small("one 3x3 convolution and the exact recurrence", mixer="exact")
UNCOUPLED = _small("exact, its states never exchanged", mixer="exact", sweeps=0)
RASTER = Variant(
    "one dimension: raster order, both ways", dict(model_args=SMALL_SHAPE | dict(mixer="raster"))
)
LIGHT = Variant(
    "matrix products, one decay per head", dict(model_args=SMALL_SHAPE | dict(mixer="light", d_state=16))
)
ATTENTION = _small("attention in both blocks", attention_blocks=2)


def _without_positions(variant: Variant, about: str) -> Variant:
    """A variant of the small V2M, without its position embedding."""
    model_args = {**variant.overrides.get("model_args", SMALL), "use_pos_embed": False}
    return Variant(about, dict(model_args=model_args))


TOWARDS_EXACT = {
    "one-corner": ONE_CORNER,
    "one-gate": ONE_GATE,
    "conv2d": CONV2D,
    "conv2d-one-gate": CONV2D_ONE_GATE,
    "exact": EXACT,
    "uncoupled": UNCOUPLED,
}
"""The parts in which the exact recurrence differs from the paper's mixer, one by one."""

SCENES = "runs/scenes"
"""Where the studies of scenes look for them."""

BACKBONES = {
    "corners": Variant("the paper's mixer, four corners"),
    "raster": Variant(
        "its twin in one dimension", dict(model_args=scenes.SMALL_STAGES | dict(mixer="raster"))
    ),
    "resnet18": Variant("timm's ResNet-18", dict(model="resnet18", model_args={})),
}
"""Backbones of detectors and segmenters, whose training steps take about as long on a CPU."""

TRAINED_BACKBONES = {
    label: Variant(
        variant.about, {**variant.overrides, "pretrained": f"runs/study-scenes-backbones/{label}-seed0"}
    )
    for label, variant in BACKBONES.items()
}
"""The same, as the study of backbones has trained them."""

STUDIES = {
    "digits": Study(
        title="Directions of v2m_nano on the handwritten digits",
        base=ClassificationConfig(data="digits"),
        variants={
            "corners": Variant("the paper: rows first or columns first, by corner"),
            "rows-first": Variant(
                "rows first from every corner: 6 passes instead of 8",
                dict(model_args=dict(directions="corners_rows_first")),
            ),
            "released": Variant(
                "the authors' code: one corner twice, one never",
                dict(model_args=dict(directions="released")),
            ),
        },
    ),
    "fashion-mnist": Study(
        title="What mixes tokens, at equal parameters, on Fashion-MNIST",
        base=replace(fashion_mnist.CONFIG, epochs=1, **SMALL_BASE),
        variants={
            "corners": CORNERS,
            "rows-first": ROWS_FIRST,
            "released": _small("the authors' code, results out of place", directions="released"),
            "opposite-corners": _small("top left and bottom right", directions="opposite_corners"),
            "geometric": GEOMETRIC,
            **TOWARDS_EXACT,
            "iterative": _small("exact, by two sweeps", mixer="exact", sweeps=2),
            "raster": RASTER,
            "light": LIGHT,
            "hybrid": _small("corners, attention in the second block", attention_blocks=1),
            "attention": ATTENTION,
            "vit": Variant("timm's ViT, linear patches, MLPs", VIT),
            "no-positions": _without_positions(CORNERS, "corners, no position embedding"),
            "class-edge": _small("corners, class row and column at the edge", class_token="edge"),
            "class-middle": _small("corners, class row and column in the middle", class_token="middle"),
        },
    ),
    "fashion-mnist-longer": Study(
        title="Whether the exact recurrence stays ahead over three epochs of Fashion-MNIST",
        base=replace(fashion_mnist.CONFIG, epochs=3, **SMALL_BASE),
        variants={"corners": CORNERS, "exact": EXACT},
    ),
    "stages": Study(
        title="What mixes tokens in models of four stages, on Fashion-MNIST at 56x56 pixels",
        base=replace(
            fashion_mnist.CONFIG,
            model="v2m_hierarchical_small",
            model_args=STAGES,
            epochs=1,
            input=InputConfig(img_size=56),
            **TRAINING,
        ),
        variants={
            "corners": Variant("the paper's starred model, narrow"),
            "exact": _stages("the exact recurrence", mixer="exact"),
            "raster": _stages("one dimension: raster order, both ways", mixer="raster"),
            "light": Variant("v2m_lite_nano: matrix products", dict(model="v2m_lite_nano", model_args={})),
            "hybrid": _stages("corners, attention in the last stage", attention_stages=1),
            "hybrid-two": _stages("corners, attention in the last two stages", attention_stages=2),
            "edgenext": Variant("timm's EdgeNeXt-XXS", dict(model="edgenext_xx_small", model_args={})),
        },
    ),
    "scenes-backbones": Study(
        title="Backbones for scenes of garments, on single garments",
        base=scenes.CLASSIFICATION,
        variants=BACKBONES,
        seeds=(0,),
    ),
    "scenes-detection": Study(
        title="Backbones of Mask R-CNN on scenes of garments",
        base=replace(scenes.DETECTION, data=SCENES),
        variants=TRAINED_BACKBONES,
        seeds=(0, 1),
    ),
    "scenes-segmentation": Study(
        title="Backbones of UPerNet on scenes of garments",
        base=replace(scenes.SEGMENTATION, data=SCENES),
        variants=TRAINED_BACKBONES,
        seeds=(0, 1),
    ),
    "precision": Study(
        title="Matrix products in bfloat16, in a model as deep as V2M-T, on Fashion-MNIST",
        base=replace(
            fashion_mnist.CONFIG,
            model="v2m_tiny_patch16_224",
            model_args=dict(patch_size=7, embed_dim=64),
            epochs=1,
            batch_size=64,
            ema_decay=0.99,
            optimizer=OptimizerConfig(lr=2e-3),
            trackers=["tensorboard"],
        ),
        variants={
            "float32": Variant("all in float32"),
            "bfloat16": Variant("matrix products in bfloat16", dict(precision="bf16")),
        },
    ),
    "relations": Study(
        title="Where is the sneaker, seen from the bag: 2-D order in Fashion-MNIST scenes",
        base=ClassificationConfig(data="fashion-relations", epochs=1, **SMALL_BASE),
        variants={
            "corners": CORNERS,
            "geometric": GEOMETRIC,
            **TOWARDS_EXACT,
            "raster": RASTER,
            "light": LIGHT,
            "attention": ATTENTION,
            "corners-no-positions": _without_positions(CORNERS, "corners, no position embedding"),
            "exact-no-positions": _without_positions(EXACT, "exact, no position embedding"),
            "raster-no-positions": _without_positions(RASTER, "raster, no position embedding"),
            "light-no-positions": _without_positions(LIGHT, "light, no position embedding"),
            "attention-no-positions": _without_positions(ATTENTION, "attention, no position embedding"),
        },
    ),
}
"""The studies by name."""


def find_study(name: str) -> Study:
    """The study of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in STUDIES:
        raise ValueError(f"name: {name!r} is no study, there are: {describe_studies()}")
    return STUDIES[name]


def describe_studies() -> str:
    """Every study with its title."""
    return "; ".join(f"{name} ({study.title})" for name, study in STUDIES.items())

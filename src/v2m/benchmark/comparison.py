"""The readers' comparison: light models of timm beside ours, in classes of size.

Every measurement is a process of its own: it is ended where it takes too long, and what one model leaves in
memory would hide what the next one takes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from v2m.benchmark.alone import run_alone
from v2m.benchmark.memory import PeakMemory, give_back_free_memory
from v2m.benchmark.models import (
    CLASSES,
    INFERENCE,
    TRAINING,
    ModelChoice,
    build_call,
    describe,
    difference_from_reference,
    find_problem,
    new_model,
    random_images,
)
from v2m.benchmark.report import number
from v2m.benchmark.timing import Timing, timed
from v2m.models import MODELS
from v2m.pictures.speed import SpeedPanel, SpeedPoint
from v2m.tasks.timm_models import model_defaults

NEIGHBOURS = (
    "pvt_v2_b0",
    "pvt_v2_b1",
    "crossvit_tiny_240",
    "twins_svt_small",
    "swin_tiny_patch4_window7_224",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "resnet18",
    "resnet50",
    "regnety_040",
    "mambaout_femto",
    "efficientvim_m1",
    "efficientvim_m2",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "edgenext_x_small",
    "edgenext_small",
)
"""Models of timm that a reader may have in mind."""
VARIANTS = (
    "v2m_tiny_patch16_224:directions=corners_rows_first",
    "v2m_tiny_patch16_224:decay=geometric",
    "v2m_tiny_patch16_224:decay=geometric,directions=corners_rows_first",
)
"""Models of ours with another setting."""
LABELS = {
    "pvt_v2_b0": "PVTv2-B0",
    "pvt_v2_b1": "PVTv2-B1",
    "crossvit_tiny_240": "CrossViT-T",
    "twins_svt_small": "Twins-SVT-S",
    "swin_tiny_patch4_window7_224": "Swin-T",
    "deit_tiny_patch16_224": "DeiT-T",
    "deit_small_patch16_224": "DeiT-S",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "regnety_040": "RegNetY-4G",
    "mambaout_femto": "MambaOut-femto",
    "efficientvim_m1": "EfficientViM-M1",
    "efficientvim_m2": "EfficientViM-M2",
    "mobilenetv4_conv_small": "MobileNetV4-S",
    "mobilenetv4_conv_medium": "MobileNetV4-M",
    "edgenext_x_small": "EdgeNeXt-XS",
    "edgenext_small": "EdgeNeXt-S",
    "v2m_tiny_patch16_224": "V2M-T",
    "v2m_tiny_patch16_224:directions=corners_rows_first": "V2M-T, rows first",
    "v2m_tiny_patch16_224:decay=geometric": "V2M-T, geometric",
    "v2m_tiny_patch16_224:decay=geometric,directions=corners_rows_first": "V2M-T, rows, geom.",
    "v2m_tiny_local": "V2M-T with windows",
    "v2m_small_patch16_224": "V2M-S",
    "v2m_small_local": "V2M-S with windows",
    "v2m_hierarchical_small": "V2M-S*",
    "v2m_hierarchical_base": "V2M-B*",
}
"""Short names of models."""
CLASS_LIMITS = (9, 16, 35)
"""Most parameters of a class of size, in millions; the last class has no limit."""
NEAR = 0.1
"""How far, as a share, the only size of a model may be from the one that is asked for."""


@dataclass(frozen=True)
class Measurement:
    """What came of one model in one use.

    Attributes:
        mode: ``inference`` or ``training step``.
        batch_size: Images at once.
        timing: Seconds of one call; None if it was not timed.
        images_per_s: Images per second.
        memory: Peak memory in megabytes beyond model and images.
        note: Why it was not timed, where that is no fault: it took too long.
        problem: What is wrong with it, if anything.
    """

    mode: str
    batch_size: int
    timing: Timing | None = None
    images_per_s: float | None = None
    memory: float | None = None
    note: str | None = None
    problem: str | None = None

    @property
    def speed(self) -> str:
        """Its images per second as text, or why there are none."""
        return self.note or number(self.images_per_s, ",.2f")


@dataclass(frozen=True)
class ComparedModel:
    """A model at one image size, with what came of it.

    Attributes:
        model: The model as it was chosen.
        resolution: Height and width in pixels that were asked for.
        pixels: Those that were measured: models of one size alone may have another.
        parameters: Number of parameters.
        gmacs: Operations per image in 1e9, as ``v2m.models.flops`` counts them.
        note: Why it was not measured at all.
        measurements: Inference of one image and of a batch, and a training step.
    """

    model: str
    resolution: int
    pixels: int
    parameters: int
    gmacs: float
    note: str | None = None
    measurements: tuple[Measurement, ...] = ()

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "ComparedModel":
        """A model with its measurements, from what a file of results holds of it."""
        found = []
        for measurement in saved["measurements"]:
            timing = measurement["timing"] and Timing(**measurement["timing"])
            found.append(Measurement(**{**measurement, "timing": timing}))
        return cls(**{**saved, "measurements": tuple(found)})

    @property
    def size_class(self) -> str:
        """The class of its size."""
        low = max((limit for limit in CLASS_LIMITS if self.parameters > 1e6 * limit), default=None)
        high = min((limit for limit in CLASS_LIMITS if self.parameters <= 1e6 * limit), default=None)
        if low is None:
            return f"up to {high} M parameters"
        return f"above {low} M parameters" if high is None else f"{low} to {high} M parameters"

    @property
    def problem(self) -> str | None:
        """What is wrong with it, if anything."""
        return next((found.problem for found in self.measurements if found.problem), None)

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""
        row = {"model": self.model}
        for found in self.measurements:
            mode = "" if found.mode == INFERENCE else "training, "
            row[f"{mode}batch {found.batch_size}, images/s"] = found.speed
        row |= {"parameters": f"{self.parameters / 1e6:.1f} M", "GMACs": f"{self.gmacs:.2f}"}
        # The last measurement of a mode is that of the larger batch.
        memory = {found.mode: found.memory for found in self.measurements}
        row |= {f"{mode}, peak MB": number(megabytes, ",.0f") for mode, megabytes in memory.items()}
        return row | {"px": str(self.pixels)}


@dataclass(frozen=True)
class ComparisonSettings:
    """How models are compared.

    Attributes:
        batch_size: Images at once, besides one.
        rounds: Times that each is timed at most.
        limit: Seconds after which a measurement is ended.
        device: Where to run.
        dtype: Data type of parameters and images.
    """

    batch_size: int
    rounds: int
    limit: float
    device: torch.device
    dtype: torch.dtype

    @property
    def uses(self) -> list[tuple[str, int]]:
        """Modes and batch sizes to measure."""
        return list(
            dict.fromkeys([(INFERENCE, 1), (INFERENCE, self.batch_size), (TRAINING, self.batch_size)])
        )


def default_models() -> list[str]:
    """The neighbours and our whole family."""
    return [*NEIGHBOURS, *MODELS, *VARIANTS]


def plan(
    models: Sequence[str], resolutions: Sequence[int], settings: ComparisonSettings
) -> list[ComparedModel]:
    """The models that will be measured, by image size and from the smallest; nothing runs yet.

    Raises:
        ValueError: there is no such model, or it takes no such argument.
    """
    found = []
    for resolution in resolutions:
        of_size = [_describe(ModelChoice.parse(text), resolution, settings) for text in dict.fromkeys(models)]
        found += sorted(of_size, key=_parameters)
    return found


def measure(model: ComparedModel, settings: ComparisonSettings) -> ComparedModel:
    """The model with its measurements: it is checked first, and what is wrong is not timed."""
    choice, found = ModelChoice.parse(model.model), list(model.measurements)
    for i, blank in enumerate(model.measurements if model.note is None else ()):
        try:
            found[i] = run_alone(
                _measure, choice, model.pixels, blank, settings, i == 0, limit=settings.limit
            )
        except TimeoutError:
            found[i] = replace(blank, note=f"over {settings.limit:g} s")
        except (OSError, RuntimeError, ValueError) as error:
            found[i] = replace(blank, problem=str(error).partition("\n")[0])
        if i == 0 and found[i].problem:
            break
    return replace(model, measurements=tuple(found))


def panels(models: Sequence[ComparedModel]) -> list[SpeedPanel]:
    """Images per second over parameters, for a picture: a panel for each use and image size."""
    found: dict[str, list[SpeedPoint]] = {}
    for model in sorted(models, key=_resolution):
        for measurement in model.measurements:
            title = f"{measurement.mode}, {model.resolution} px, batch {measurement.batch_size}"
            points = found.setdefault(title, [])
            if measurement.images_per_s:
                name, is_ours = LABELS.get(model.model, model.model), model.model.startswith("v2m_")
                points.append(SpeedPoint(name, model.parameters, measurement.images_per_s, is_ours))
    # One image at a time is in the tables; two rows of panels can be read.
    alone = {f"{INFERENCE}, {model.resolution} px, batch 1" for model in models}
    chosen = [SpeedPanel(title, points) for title, points in found.items() if title not in alone]
    return sorted(chosen or [SpeedPanel(*item) for item in found.items()], key=_is_training)


def _resolution(model: ComparedModel) -> int:
    return model.resolution


def _is_training(panel: SpeedPanel) -> bool:
    return panel.title.startswith(TRAINING)


def _parameters(model: ComparedModel) -> int:
    return model.parameters


def _describe(choice: ModelChoice, resolution: int, settings: ComparisonSettings) -> ComparedModel:
    """A model before it runs: at the size that is asked for, or at its only one where that is near."""
    own = model_defaults(choice.name)["input_size"][-1]
    blanks = tuple(Measurement(*use) for use in settings.uses)
    for pixels in (resolution, own):
        try:
            row = describe(choice, pixels, settings.batch_size)
        except (ValueError, RuntimeError) as error:  # of building it, and of running it
            if pixels == own:
                # Not a matter of size: an argument is wrong.
                raise ValueError(f"models: {choice.text}: {error}") from error
            continue
        is_near = abs(pixels / resolution - 1) <= NEAR
        note = None if is_near else f"takes {own} px alone"
        return ComparedModel(
            choice.text, resolution, pixels, row.parameters, row.gflops, note, measurements=blanks
        )
    raise AssertionError("one of the sizes is the model's own")


def _measure(
    choice: ModelChoice, pixels: int, blank: Measurement, settings: ComparisonSettings, is_first: bool
) -> Measurement:
    """What a new process does: check the model if it is the first time, then time one use of it."""
    began, device = time.perf_counter(), settings.device
    case = (choice, pixels, blank.batch_size, blank.mode, settings.dtype, device)
    try:
        if is_first:
            model = new_model(choice, pixels, device)
            if problem := difference_from_reference(model, random_images(1, pixels, device)):
                return replace(blank, problem=problem)
        # A call of few images compiles and loads what is needed, and shows whether the result can be right.
        # Two of them, since batch normalisation cannot train on one.
        few = min(2, blank.batch_size)
        shape = (few, CLASSES) if blank.mode == INFERENCE else ()
        if problem := find_problem(build_call(choice, pixels, few, *case[3:]), shape):
            return replace(blank, problem=problem)
        give_back_free_memory()
        call = build_call(*case)
        peak = PeakMemory(device)
        timed(call, device)
        seconds: list[float] = []
        while len(seconds) < settings.rounds and (
            not seconds or time.perf_counter() - began < settings.limit / 2
        ):
            seconds.append(timed(call, device)[1])
    except torch.OutOfMemoryError:
        return replace(blank, problem="out of memory")
    timing = Timing.of(seconds)
    speed = blank.batch_size / timing.median
    return replace(blank, timing=timing, images_per_s=speed, memory=peak.megabytes())

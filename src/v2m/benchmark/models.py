"""The model benchmark: ours beside any of timm's, over image sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.benchmark.memory import peak_memory
from v2m.benchmark.report import number, timing_cells
from v2m.benchmark.timing import Timing, Tracker, silent, time_in_turns
from v2m.models.backbone import Backbone
from v2m.models.flops import count_flops
from v2m.ops import use_implementation
from v2m.pictures.scaling import Panel
from v2m.system.errors import DataError
from v2m.system.yaml_files import parse_yaml
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.timm_models import model_defaults

INFERENCE, TRAINING = MODES = ("inference", "training step")
CLASSES = 1000
LIMIT = 1e-4
"""The largest difference of float32 scores from those of the reference, as a share of the largest score."""


@dataclass(frozen=True, eq=False)
class ModelChoice:
    """A model by name, with arguments: ``v2m_nano``, ``v2m_nano:directions=released,d_state=4``."""

    text: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "ModelChoice":
        """Read a choice.

        Raises:
            ValueError: there is no such model, or an argument is not ``name=value``.
        """
        name, _, rest = text.partition(":")
        model_defaults(name)
        arguments = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not key or not equals:
                raise ValueError(
                    f"models: {part!r} in {text!r}, expected MODEL:argument=value,argument=value"
                )
            try:
                arguments[key] = parse_yaml(value)
            except DataError as error:
                raise ValueError(f"models: {part!r} in {text!r} is no value ({error})") from None
        return cls(text, name, arguments)

    def build(self, resolution: int) -> nn.Module:
        """A new model for square images, on the current default device.

        Raises:
            ValueError: the model takes no such argument or size.
        """
        size = InputConfig(img_size=(resolution, resolution))
        spec = resolve_image_spec(size, "", model_defaults(self.name))
        try:
            return build_classifier(self.name, self.arguments, CLASSES, spec)
        except AssertionError as error:  # how timm refuses some sizes
            raise ValueError(f"models: {self.text} at {resolution} px: {error}") from None


@dataclass(frozen=True)
class ModelRow:
    """What came of one model at one image size.

    Attributes:
        model: The model as it was chosen.
        mode: ``inference``, or ``training step`` (forward, cross-entropy, backward, AdamW).
        resolution: Height and width of the images in pixels.
        batch_size: Images at once.
        parameters: Number of parameters.
        gflops: Operations per image, in 1e9; see ``v2m.models.flops``.
        problem: Why it was not timed, if it was not.
        timing: Seconds of one call.
        images_per_s: Images per second.
        ratio: Its images per second over those of the first model.
        memory: Peak memory in megabytes beyond model and images.
    """

    model: str
    mode: str
    resolution: int
    batch_size: int
    parameters: int
    gflops: float
    problem: str | None = None
    timing: Timing | None = None
    images_per_s: float | None = None
    ratio: float | None = None
    memory: float | None = None

    def timed(self, timing: Timing, first: Timing | None) -> "ModelRow":
        """The row with its time, for that of the first model."""
        ratio = first.median / timing.median if first else None
        return replace(self, timing=timing, images_per_s=self.batch_size / timing.median, ratio=ratio)

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""
        return {
            "model": self.model,
            "images/s": number(self.images_per_s, ",.2f"),
            "speed ratio": number(self.ratio, ".2f"),
            **timing_cells(self.timing),
            "parameters": f"{self.parameters / 1e6:.1f} M",
            "GFLOPs": f"{self.gflops:.2f}",
            "peak MB": number(self.memory, ",.0f"),
        }


def bench_models(
    choices: Sequence[ModelChoice],
    resolutions: Sequence[int],
    batch_size: int,
    rounds: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    memory: bool = True,
    track: Tracker = silent,
) -> Iterator[list[ModelRow]]:
    """Check models against the reference, then time them.

    Args:
        choices: Models; ratios are against the first one.
        resolutions: Image sizes in pixels.
        batch_size: Images at once.
        rounds: Times that each model is timed.
        device: Where to run.
        dtype: Data type of parameters and images.
        memory: Measure the peak memory of each too, in a new process.
        track: Shows progress.

    Yields:
        A row per model, for each resolution: first inference, then training.

    Raises:
        ValueError: a model takes no such argument or size; before anything is timed.
    """
    cases = [(choice, resolution) for resolution in resolutions for choice in choices]
    # Built without weights first, so that a wrong argument ends this before anything is timed.
    blanks = {case: describe(*case, batch_size) for case in track(cases, "building: model", len(cases))}
    for resolution in resolutions:
        images = random_images(batch_size, resolution, device)
        models, wrong = {}, {}
        for choice in track(choices, f"checking at {resolution} px: model", len(choices)):
            model = new_model(choice, resolution, device)
            # In float32: a low precision would hide what is wrong with a kernel.
            wrong[choice] = difference_from_reference(model, images[:1])
            models[choice] = model.to(dtype)
        for mode in MODES:
            calls = {choice: _call(models[choice], images.to(dtype), mode) for choice in choices}
            # The first call compiles what it needs, and shows whether the result can be right.
            shape = (batch_size, CLASSES) if mode == INFERENCE else ()
            rows = {}
            for choice in track(choices, f"first {mode}: model", len(choices)):
                problem = wrong[choice] or find_problem(calls[choice], shape)
                rows[choice] = replace(blanks[choice, resolution], mode=mode, problem=problem)
            right = [choice for choice in choices if not rows[choice].problem]
            timings = time_in_turns({choice: calls[choice] for choice in right}, rounds, device, track)
            for choice in right:
                rows[choice] = rows[choice].timed(timings[choice], timings.get(choices[0]))
            for choice in track(right if memory else [], "measuring memory: model", len(right)):
                case = (choice, resolution, batch_size, mode, dtype, device)
                rows[choice] = replace(rows[choice], memory=peak_memory(build_call, *case, device=device))
            # Row by row of the sizes: whoever stops a long benchmark has what was measured so far.
            yield list(rows.values())


def panels(rows: Sequence[ModelRow]) -> list[Panel]:
    """Time per image and peak memory, for a plot over the resolution."""
    found = []
    for mode in MODES:
        of_mode = [row for row in rows if row.mode == mode]
        times = [(r.model, r.resolution, r.images_per_s and 1e3 / r.images_per_s) for r in of_mode]
        memory = [(row.model, row.resolution, row.memory) for row in of_mode]
        found += [Panel(mode, "ms per image", times), Panel(mode, "peak memory, MB", memory)]
    return found


def build_call(
    choice: ModelChoice,
    resolution: int,
    batch_size: int,
    mode: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[], Tensor]:
    """What is timed: one call of a new model."""
    model = new_model(choice, resolution, device).to(dtype)
    return _call(model, random_images(batch_size, resolution, device).to(dtype), mode)


def new_model(choice: ModelChoice, resolution: int, device: torch.device) -> nn.Module:
    """A model with random weights, the same ones each time."""
    # The process that measures memory builds the model that was timed.
    torch.manual_seed(0)
    return choice.build(resolution).to(device)


def random_images(batch_size: int, resolution: int, device: torch.device) -> Tensor:
    """Square images ``[B, 3, H, W]`` of noise."""
    return torch.randn(batch_size, 3, resolution, resolution, device=device)


def describe(choice: ModelChoice, resolution: int, batch_size: int) -> ModelRow:
    """A row with what is known of a model before it runs."""
    # On the meta device, where a model takes no memory and no time.
    with torch.device("meta"):
        model = choice.build(resolution)
    gflops = count_flops(model, (3, resolution, resolution)).total / 1e9
    parameters = sum(p.numel() for p in model.parameters())
    return ModelRow(choice.text, "", resolution, batch_size, parameters, gflops)


def _call(model: nn.Module, images: Tensor, mode: str) -> Callable[[], Tensor]:
    """A call that gives scores ``[B, classes]`` in inference, or the loss of a training step."""
    model.train(mode == TRAINING)
    if mode == INFERENCE:

        @torch.inference_mode()
        def infer() -> Tensor:
            return model(images)

        return infer
    optimizer = torch.optim.AdamW(model.parameters())
    targets = torch.arange(len(images), device=images.device)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images).float(), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@torch.inference_mode()
def difference_from_reference(model: nn.Module, image: Tensor) -> str | None:
    """What is wrong with the kernels in a model of ours, if anything."""
    # timm's models have no reference; that their results are finite is seen with the first call.
    if not isinstance(model, Backbone):
        return None
    scores = model.eval()(image)
    with use_implementation("reference"):
        expected = model(image)
    error = ((scores - expected).abs().max() / expected.abs().max()).item()
    return None if error <= LIMIT else f"wrong: {error:.0e} from the reference"


def find_problem(call: Callable[[], Tensor], shape: tuple[int, ...]) -> str | None:
    """What is wrong with the result of a call, if anything."""
    try:
        result = call()
    except torch.OutOfMemoryError:
        return "out of memory"
    if result.shape != shape:
        return f"wrong: scores of shape {list(result.shape)}"
    return None if result.isfinite().all() else "wrong: not finite"

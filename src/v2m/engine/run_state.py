"""Where a run is, as a checkpoint holds it beside what the learner learnt."""

from dataclasses import asdict, dataclass
from typing import Any

from v2m.engine.learner import StepResult
from v2m.system.errors import few


@dataclass
class EpochSums:
    """What the steps of an epoch add up to, over all processes. Times are those of the main process.

    Attributes:
        images: Images that were trained on.
        right: How much of them was right, in the unit of the task's ``train_metric``.
        counted: How much could have been right.
        loss: Sum of their losses.
        seconds: Time of the steps.
        waited: Time of it in which the model waited for images.
        skipped: Steps that were skipped.
    """

    images: int = 0
    right: int = 0
    counted: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0

    def add(self, result: StepResult) -> None:
        """Add a step."""
        self.loss += result.loss
        self.right += result.right
        self.counted += result.counted
        self.images += result.images


STATE: dict[str, Any] = dict(
    epoch=int,
    step=int,
    steps=int,
    images=int,
    classes=list,
    sums=dict,
    skipped_in_row=int,
    history=list,
    model=dict,
    ema=dict | None,
    optimizer=dict,
    scaler=dict | None,
)
"""What a checkpoint holds, by name and type. The last four are the learner's."""


def check_state(state: Any) -> None:
    """See that a checkpoint holds what resuming needs. Whether its weights fit is seen when they are loaded.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(state, dict):
        raise ValueError("holds no state of a run")
    for name, kind in STATE.items():
        if name not in state:
            raise ValueError(f"holds no {name}")
        if not isinstance(state[name], kind):
            raise ValueError(f"holds {name} of type {type(state[name]).__name__}")
    sums, rows = state["sums"], state["history"]
    is_plain = (
        state["epoch"] >= 1
        and 0 <= state["step"] <= state["steps"]
        and all(isinstance(name, str) for name in state["classes"])
        and sums.keys() == asdict(EpochSums()).keys()
        and all(isinstance(row, dict) and {"epoch", "train_loss", "seconds"} <= row.keys() for row in rows)
        and all(isinstance(value, int | float) for row in [sums, *rows] for value in row.values())
    )
    if not is_plain:
        raise ValueError("holds a place in the run, classes or metrics that cannot be")


def changed_classes(before: list[str], now: list[str]) -> str:
    """How the classes of a dataset differ from those that it had, in words."""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changes = [f"{what}: {few(names)}" for what, names in (("gone", gone), ("new", new)) if names]
    return f"the classes are not those it was trained on ({'; '.join(changes) or 'in another order'})"

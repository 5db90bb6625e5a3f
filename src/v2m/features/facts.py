"""What the features in a file are of: the model, the images and the classes, kept as JSON."""

import json
from dataclasses import dataclass, field
from typing import Any

from v2m.system.files import check_plain
from v2m.tasks.typed import typed


@dataclass(frozen=True)
class ModelFacts:
    """The model: where it is from, a hash of it, and its timm name."""

    source: str
    sha256: str
    architecture: str = ""


@dataclass(frozen=True)
class DataFacts:
    """The images: where they are from, their split and number, and a hash of their names and classes.

    ``allow_outside`` is in the file only where images outside of the folder were allowed.
    """

    source: str
    split: str = ""
    images: int = 0
    sha256: str = ""
    allow_outside: bool = False


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be read: its index in the dataset, its name, and why."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class FeatureFacts:
    """The types of ``Features.facts``, which is the same as plain data.

    Attributes:
        model: The model.
        data: The images.
        classes: Names of the classes.
        images: How images are prepared: the fields of ``ImageSpec``.
        unreadable: The images that were left out.
    """

    model: ModelFacts
    data: DataFacts
    classes: list[str]
    images: dict[str, Any]
    unreadable: list[LeftOut] = field(default_factory=list)


def parse_facts(text: str | bytes) -> dict[str, Any]:
    """Read the facts of a file of features.

    Raises:
        ValueError: the text is no JSON, or a fact is missing or of another type.
    """
    facts = parse_json(text)
    # Later versions may add facts of their own: unknown ones pass.
    typed(FeatureFacts, facts, "facts", is_open=True)
    return facts


def dump_facts(facts: dict[str, Any]) -> str:
    """Facts as JSON: the same text for the same facts."""
    return json.dumps(facts, sort_keys=True)


def parse_json(text: str | bytes) -> Any:
    """Read JSON that a stranger may have written.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or holds what is no plain data.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    check_plain(found)
    return found

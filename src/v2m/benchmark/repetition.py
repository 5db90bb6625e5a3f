"""Results of before beside new ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v2m.benchmark.models import ModelRow
from v2m.benchmark.report import number


@dataclass(frozen=True)
class RepeatedRow:
    """A model that was measured again.

    Attributes:
        row: What came of it here.
        there: Images per second in the file; None if it has none.
        ratio_there: Its images per second in the file over those of the first model.
    """

    row: ModelRow
    there: float | None
    ratio_there: float | None

    @property
    def problem(self) -> str | None:
        """Why it was not timed, if it was not."""
        return self.row.problem

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""
        here = self.row.images_per_s
        share = here / self.there if here and self.there else None
        return {
            "model": self.row.model,
            "images/s": number(here, ",.2f"),
            "in the file": number(self.there, ",.2f"),
            "here / file": number(share, ".2f"),
            "to the first": number(self.row.ratio, ".2f"),
            "to the first in the file": number(self.ratio_there, ".2f"),
        }


def beside(rows: Sequence[ModelRow], saved: Sequence[Mapping[str, Any]]) -> list[RepeatedRow]:
    """Rows, each with what a file of results has of the same model, mode and image size.

    Args:
        rows: New ones.
        saved: Those of the file.
    """
    known = {(row["model"], row["mode"], row["resolution"]): row for row in saved}
    found = []
    for row in rows:
        old = known.get((row.model, row.mode, row.resolution), {})
        found.append(RepeatedRow(row, old.get("images_per_s"), old.get("ratio")))
    return found

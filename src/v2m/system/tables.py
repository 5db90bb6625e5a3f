"""Tables of text that fit where they are printed: names are whole, and columns go before numbers are cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from v2m.system.errors import shown
from v2m.system.names import shortened

LONGEST_CELL = 1000
"""Letters of a cell; names may come from strangers."""
GAP = 2
"""Spaces between columns."""
LEAST_FOLDED, LEAST_TEXT = 12, 24
"""Letters of a line of what has to be folded, and of a text whose words are wrapped beside other columns."""


class Kind(Enum):
    """What is in a column: names are whole, numbers on one line to the right, texts wrapped at words."""

    NAME = "name"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Its heading, of which words are never cut.
        kind: What is in it.
    """

    heading: str
    kind: Kind = Kind.NUMBER


class TextTable:
    """A table that drops columns where there is little room, and says in a last line which they are.

    The first column and the most important other one stay. Names are folded over lines, whole, where these
    two have no room beside each other, and stand alone where not even a few letters of them have.

    Args:
        columns: Name first.
        first_left_out: Headings of columns that are left out first. The others are left out from the right.

    Attributes:
        rows: The cells of each row.
    """

    def __init__(self, *columns: Column, first_left_out: Sequence[str] = ()) -> None:
        self.columns = columns
        self.rows: list[list[str]] = []
        by_heading = {column.heading: place for place, column in enumerate(columns)}
        order = [by_heading[heading] for heading in first_left_out]
        self._order = order + [place for place in range(len(columns) - 1, 0, -1) if place not in order]

    def add_row(self, *cells: str) -> None:
        """Add a row, with a cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"cells: got {len(cells)}, expected {len(self.columns)}")
        self.rows.append([shortened(shown(cell), LONGEST_CELL) for cell in cells])

    def markdown(self) -> str:
        """The whole table in Markdown."""
        headings = [column.heading for column in self.columns]
        rules = ["---:" if column.kind is Kind.NUMBER else "---" for column in self.columns]
        return "\n".join(
            f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
            for cells in (headings, rules, *self.rows)
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._fit(options.max_width)
        table = Table(box=None, header_style="bold", padding=(0, GAP // 2), pad_edge=False)
        for place, width in widths.items():
            column = self.columns[place]
            is_number = column.kind is Kind.NUMBER
            table.add_column(
                Text(column.heading), width=width, justify="right" if is_number else "left", overflow="fold"
            )
        for row in self.rows:
            table.add_row(*(Text(row[place]) for place in widths))
        yield table
        left_out = [column.heading for place, column in enumerate(self.columns) if place not in widths]
        if left_out:
            line = Text(f"No room for: {', '.join(left_out)}. A wider terminal shows all, and so does | cat.")
            yield from line.wrap(console, options.max_width, overflow="fold", no_wrap=False)

    def _fit(self, room: int) -> dict[int, int]:
        """Places and widths of the columns for which there is room."""
        widths = {place: max(map(cell_len, self._cells(place))) for place in range(len(self.columns))}
        least = {place: self._least(place, width) for place, width in widths.items()}
        for place in self._order[:-1]:
            if _total(least) <= room:
                break
            del widths[place], least[place]
        # No column is left to go. Texts become narrow before names are folded.
        texts = [place for place in least if self.columns[place].kind is Kind.TEXT]
        for place in (*texts, 0):
            excess = max(0, _total(least) - room)
            least[place] = max(least[place] - excess, min(least[place], LEAST_FOLDED))
        if _total(least) > room:
            widths = least = {0: min(widths[0], room)}
        # The widest columns give way first.
        while _total(widths) > room:
            widest = max((place for place in widths if widths[place] > least[place]), key=widths.__getitem__)
            widths[widest] -= 1
        return widths

    def _cells(self, place: int) -> list[str]:
        return [self.columns[place].heading, *(row[place] for row in self.rows)]

    def _least(self, place: int, width: int) -> int:
        """The least width of a column; its heading may be wrapped at words, and so may texts."""
        heading, *cells = self._cells(place)
        word = max(map(cell_len, heading.split()), default=0)
        content = max(map(cell_len, cells), default=0)
        if self.columns[place].kind is Kind.TEXT:
            content = min(content, LEAST_TEXT)
        return min(width, max(word, content))


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)

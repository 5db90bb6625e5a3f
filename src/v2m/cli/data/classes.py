"""``v2m data check`` for images with a class each: a table, a picture and a list of what was found."""

from pathlib import Path

from rich.console import Console

from v2m.cli.data.annotated import PROBLEMS, AnnotatedSettings, extremes, problem_table, spread
from v2m.cli.data.check import CheckOptions
from v2m.data import find_splits
from v2m.data.check.problems import SERIOUS, Summary, write_problems
from v2m.data.classes.check import CheckedSplit, find_problems, inspect_images, summarise
from v2m.data.classes.division import Division
from v2m.data.classes.formats import missing_images
from v2m.engine.progress import track
from v2m.pictures import plot_classes
from v2m.system.tables import Column, Kind, TextTable

PICTURE = "classes.png"


def check(options: CheckOptions, settings: AnnotatedSettings, out: Console, errors: Console) -> int:
    """Check images: 1 if some are unreadable or bombs, or are in more than one split.

    Args:
        options: Which.
        settings: How.
        out: Where tables go.
        errors: Where progress goes.
    """
    source, output = options.source, settings.output
    data_dir = Path(options.data_dir)
    openers = find_splits(source, data_dir, allow_outside=options.allow_outside, division=Division())
    if not openers:
        raise missing_images(Path(source))
    # A split at a time, with the classes that it has itself: the check goes on where training would stop.
    splits = []
    for name, opener in openers.items():
        data = opener()
        facts = track(inspect_images(data, settings.workers), f"{name}: image", len(data), errors)
        splits.append(CheckedSplit(name, data, list(facts)))
    problems = find_problems(splits, settings.tiny)
    summaries = {split.name: summarise(split) for split in splits}

    output.mkdir(parents=True, exist_ok=True)
    write_problems(problems, output / PROBLEMS)
    title = f"Classes of {settings.title}"
    plot_classes({name: s.counts for name, s in summaries.items()}, output / PICTURE, title)
    out.print(_summary_table(summaries))
    out.print()
    out.print(problem_table(problems, list(summaries)) if problems else "no problems found")
    notes = [line for split in splits for line in split.data.notes]  # both sides tell how they were divided
    warnings = [f"warning: {line}" for split in splits for line in split.data.warnings]
    for line in (*dict.fromkeys(notes), *warnings):
        out.print(line)
    out.print()
    out.print(f"list: {output / PROBLEMS}")
    out.print(f"picture: {output / PICTURE}")
    return 1 if any(problem.kind in SERIOUS for problem in problems) else 0


def _summary_table(summaries: dict[str, Summary]) -> TextTable:
    rows = ("images", "classes", "largest class", "smallest class", "ratio", "widths", "heights", "modes")
    table = TextTable(Column("", Kind.NAME), *(Column(split, Kind.TEXT) for split in summaries))
    columns = [_summary_cells(summary) for summary in summaries.values()]
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(row, *cells)
    return table


def _summary_cells(summary: Summary) -> list[str]:
    counts = summary.counts
    images = sum(counts.values())
    largest, smallest = extremes(counts)
    most, least = max(counts.values()), min(counts.values())
    ratio = f"{most / least:.1f}" if least else "-"
    modes = (f"{mode} {count / images:.0%}" for mode, count in summary.modes.items())
    return [
        f"{images:,}",
        f"{len(counts):,}",
        largest,
        smallest,
        ratio,
        spread(summary.widths),
        spread(summary.heights),
        ", ".join(modes) or "-",
    ]

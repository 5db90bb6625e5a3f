"""Tables and numbers as documents write them."""


def markdown(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def significant(value):
    """A number with three digits that count, or all before the point; below 1 with two after it."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if value >= 1 else f"{value:.2f}"


def percent(share, digits=2):
    return f"{100 * share:.{digits}f} %"

"""The categories of a COCO file as classes."""

from collections import Counter
from collections.abc import Sequence

from v2m.data.coco.records import Records
from v2m.data.coco.values import cut
from v2m.system.errors import DataError, few


def name_classes_apart(records: Records) -> list[str]:
    """Add their ids to names of categories that are there twice; a line that says so."""
    counts = Counter(category["name"] for category in records.categories)
    # Data sets that were joined often have "car" twice, and annotations tell them apart by id.
    twice = [category for category in records.categories if counts[category["name"]] > 1]
    for category in twice:
        category["name"] += f" ({cut(category['id'])})"
    if not twice:
        return []
    told = few([category["name"] for category in twice])
    if len({category["name"] for category in records.categories}) < len(records.categories):
        raise DataError(f"data: {records.path} has category names twice, and others that are like {told}")
    return [f"{records.path}: categories of one name are kept apart by their ids: {told}"]


def match_classes(records: Records, classes: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Names of the classes, and COCO's id of each."""
    id_of = {c["name"]: c["id"] for c in sorted(records.categories, key=lambda category: category["id"])}
    if classes is None:
        classes = list(id_of)
    unknown = [name for name in id_of if name not in classes]
    missing = [name for name in classes if name not in id_of]
    if unknown or missing:
        found = [f"unknown: {few(unknown)}"] if unknown else []
        found += [f"missing: {few(missing)}"] if missing else []
        raise DataError(f"data: {records.path} has other categories than expected ({'; '.join(found)})")
    return list(classes), [id_of[name] for name in classes]

"""The tables of documents, each of result files or of what the code knows."""

import io
from statistics import mean

from rich.console import Console

from tests.documents.figures import DIGITS
from tests.documents.markdown import markdown, percent
from tests.documents.results import read_log, read_result, read_study, scores
from tests.documents.speeds import SPEED_TABLES
from v2m.recipes import COLUMNS, RECIPES
from v2m.studies.catalogue import find_study
from v2m.studies.results import results_table

BACKBONES = {
    "corners": "V2M, four corners",
    "raster": "its twin in one dimension",
    "resnet18": "timm's ResNet-18",
}


# Recipes and training runs.


def recipes():
    """The recipes, names of code in its font."""
    rows = [
        (f"`{name}`", f"`{model}`", *others)
        for name, model, *others in (recipe.cells for recipe in RECIPES.values())
    ]
    return markdown(COLUMNS, rows)


def papers_recipes(*names):
    """Recipes that the paper has scores of, or that are near its own."""
    rows = []
    for name in names:
        recipe = RECIPES[name]
        score = recipe.expected if recipe.expected == "unknown" else f"{recipe.expected} (paper)"
        rows.append((f"`{name}`", recipe.title, score))
    return markdown(("recipe", "what", "expected"), rows)


def first_run():
    """What ``make demo`` prints, the epochs in the middle left out."""
    lines = read_log(DIGITS).rstrip().splitlines()
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch ")]
    shown = [*lines[: epochs[3]], "...", *lines[epochs[-2] :]]
    return "\n".join(["```text", *shown, "```"])


def fashion_mnist_epochs():
    rows = [
        (
            str(row["epoch"]),
            f"{row['train_loss']:.3f}",
            percent(row["train_top1"]),
            f"{row['val_loss']:.3f}",
            percent(row["val_top1"]),
            str(row["images_per_s"]),
        )
        for row in read_result("noted_fashion-mnist")["rows"]
    ]
    headings = ("epoch", "train loss", "train accuracy", "test loss", "test accuracy", "images/s")
    return markdown(headings, rows)


def digits_finetune():
    runs = read_result("noted_digits")["finetune"]
    return _by_seed({"from `runs/digits`": runs["pretrained"], "from nothing": runs["nothing"]})


def digits_finetune_rates():
    rows = [
        (str(run["lr"]), str(run["layer_decay"]), percent(run["top1"]))
        for run in read_result("noted_digits")["finetune"]["rates"]
    ]
    return markdown(("learning rate", "layer decay", "top-1, seed 0"), rows)


def digits_distill():
    runs = read_result("noted_digits")["distill"]
    return _by_seed({"with the teacher": runs["teacher"], "without": runs["nothing"]})


def _by_seed(rows):
    seeds = [str(seed) for seed in range(len(next(iter(rows.values()))))]
    cells = [(name, *map(percent, values), percent(mean(values))) for name, values in rows.items()]
    return markdown(("seed", *seeds, "mean"), cells)


def digits_distill_others():
    rows = [
        (f"`{run['kind']}`", str(run["weight"]), str(run.get("temperature", "")), percent(run["top1"]))
        for run in read_result("noted_digits")["distill"]["others"]
    ]
    return markdown(("`--distill.kind`", "`weight`", "`temperature`", "top-1, seed 0"), rows)


def digits_probe():
    rows = [
        (row["model"], str(row["features"]), *map(percent, row["knn"].values()), percent(row["linear"]))
        for row in read_result("probe_digits_amd-epyc_20261128")["rows"]
    ]
    return markdown(("model", "features", "10-NN", "20-NN", "100-NN", "200-NN", "linear"), rows)


# Studies.


def study(name):
    """The table that ``v2m study`` writes."""
    chosen = find_study(name)
    about = {label: variant.about for label, variant in chosen.variants.items()}
    output = Console(file=io.StringIO(), width=1000)
    output.print(results_table(read_study(name), about, [("top1", "top-1")]))
    rows = [
        line.strip().strip("|").split("|") for line in output.file.getvalue().splitlines() if line.strip()
    ]
    headings, _, *cells = [[cell.strip() for cell in row] for row in rows]
    return markdown(headings, cells)


def precision():
    losses = {row["label"]: row for row in read_result("noted_precision")["rows"]}
    rows = [
        (
            label,
            *(f"{value:.2f} %" for value in scores("precision", label, "top1").values()),
            *(f"{value:.4f}" for value in losses[label]["train_loss"]),
            str(losses[label]["skipped"]),
        )
        for label in ("float32", "bfloat16")
    ]
    headings = ("precision", "top-1, seed 0", "seed 1", "training loss, seed 0", "seed 1", "steps skipped")
    return markdown(headings, rows)


def backbones():
    """Three backbones on scenes: mean, and in brackets each seed; the best mean of a column is bold."""
    sizes = {row["label"]: row for row in read_result("noted_scenes-backbones")["rows"]}
    columns = [
        ("scenes-detection", "box_ap"),
        ("scenes-detection", "mask_ap"),
        ("scenes-segmentation", "miou"),
    ]
    best = {
        column: max(BACKBONES, key=lambda label: mean(scores(column[0], label, column[1]).values()))
        for column in columns
    }
    parameters = {run.label: run.parameters for run in read_study("scenes-backbones")}
    rows = []
    for label, name in BACKBONES.items():
        cells = []
        for column in columns:
            values = scores(column[0], label, column[1]).values()
            average = f"{mean(values):.1f}"
            average = f"**{average}**" if best[column] == label else average
            cells.append(f"{average} ({', '.join(f'{value:.1f}' for value in values)})")
        (garments,) = scores("scenes-backbones", label, "top1").values()
        size = sizes[label]
        rows.append(
            (
                name,
                f"{parameters[label] / 1e6:.1f} M",
                f"{size['multiply_adds'] / 1e9:.2f} G",
                f"{size['step_ms']:.1f} ms",
                f"{garments:.2f} %",
                *cells,
            )
        )
    headings = (
        "backbone",
        "parameters",
        "multiply-adds",
        "step",
        "single garments",
        "box AP",
        "mask AP",
        "mIoU",
    )
    return markdown(headings, rows)


TABLES = {
    function.__name__: function
    for function in (
        *SPEED_TABLES,
        recipes,
        papers_recipes,
        first_run,
        fashion_mnist_epochs,
        digits_finetune,
        digits_finetune_rates,
        digits_distill,
        digits_distill_others,
        digits_probe,
        study,
        precision,
        backbones,
    )
}
"""Tables, by the word that documents have for them; the words after it are the arguments."""

"""The tables of documents, each of result files or of what the code knows."""

import io
from statistics import mean

from rich.console import Console

from tests.documents.figures import DIGITS
from tests.documents.results import read_log, read_result, read_study, scores, timed
from v2m.recipes import COLUMNS, RECIPES
from v2m.studies.catalogue import find_study
from v2m.studies.results import results_table

INFERENCE, STEP = "inference", "training step"
MODELS = {
    "deit_tiny_patch16_224": "DeiT-T",
    "swin_tiny_patch4_window7_224": "Swin-T",
    "v2m_tiny_patch16_224": "V2M-T",
    "v2m_tiny_patch16_224:directions=corners_rows_first": "V2M-T, rows first",
    "v2m_tiny_patch16_224:mixer=exact": "V2M-T, exact recurrence",
    "v2m_tiny_patch16_224:mixer=raster": "V2M-T, one dimension (`mixer=raster`)",
    "v2m_tiny_local": "V2M-T with windows",
    "v2m_hierarchical_small": "V2M-S*",
    "v2m_hierarchical_small:mixer=exact": "V2M-S*, exact recurrence",
    "v2m_hierarchical_base": "V2M-B*",
}
"""What documents call the models of a benchmark; the others have their own names."""
BACKBONES = {
    "corners": "V2M, four corners",
    "raster": "its twin in one dimension",
    "resnet18": "timm's ResNet-18",
}


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


# Benchmarks.


def speed(name, baseline, *models):
    """Images per second of models, and their share of the first one's."""
    rows, (_, _, resolution) = timed(name), next(iter(timed(name)))
    batch = read_result(name)["settings"]["batch_size"]
    cells = []
    for model in (baseline, *models):
        row = [MODELS.get(model, f"`{model}`")]
        for mode in (INFERENCE, STEP):
            own = rows[model, mode, resolution]["images_per_s"]
            share = own / rows[baseline, mode, resolution]["images_per_s"]
            row += [significant(own), "1" if model == baseline else f"{share:.2f}"]
        cells.append(row)
    share = f"to {MODELS[baseline]}"
    headings = (
        f"batch {batch}, {resolution} px",
        "inference, images/s",
        share,
        "training step, images/s",
        share,
    )
    return markdown(headings, cells)


def light_speed():
    """The light models at two batch sizes."""
    one, eight = (timed(f"models_amd-epyc-1-thread_20261122-{time}") for time in ("235609", "235619"))
    columns = [(one, INFERENCE), (eight, INFERENCE), (eight, STEP)]
    baseline = "deit_tiny_patch16_224"
    cells = []
    for model in (baseline, "v2m_lite_nano", "v2m_lite_tiny", "v2m_lite_small"):
        size = one[model, INFERENCE, 224]["parameters"]
        row = [f"{MODELS.get(model, f'`{model}`')}, {size / 1e6:.1f} M"]
        row += [_with_share(rows, model, baseline, mode, 224) for rows, mode in columns]
        cells.append(row)
    headings = (
        "light models, images/s (to DeiT-T)",
        "inference, batch 1",
        "inference, batch 8",
        "training step, batch 8",
    )
    return markdown(headings, cells)


def speed_by_resolution():
    rows = timed("models_amd-epyc-1-thread_20261122-222058")
    baseline, *models = dict.fromkeys(model for model, _, _ in rows)
    resolutions = (224, 512, 1024)
    cells = [
        [MODELS[model], *(_with_share(rows, model, baseline, INFERENCE, size) for size in resolutions)]
        for model in (baseline, *models)
    ]
    return markdown(("inference, images/s (to DeiT-T)", *(f"{size} px" for size in resolutions)), cells)


def _with_share(rows, model, baseline, mode, resolution):
    own = rows[model, mode, resolution]["images_per_s"]
    share = own / rows[baseline, mode, resolution]["images_per_s"]
    return f"{significant(own)} ({'1' if model == baseline else f'{share:.2f}'})"


def scans():
    """Implementations of a layer's scans, from the fastest."""
    rows = timed("operators_amd-epyc-1-thread_20261122-221809", "competitor")
    modes = ("forward", "forward + backward")
    seconds = {key: row["timing"]["median"] for key, row in rows.items()}
    names = sorted({name for name, _, _ in rows}, key=lambda name: seconds[name, modes[0], 14])
    cells = []
    for name in names:
        row = [f"`{name}`"]
        for mode in modes:
            ratio = seconds[name, mode, 14] / seconds["ours", mode, 14]
            row += [
                significant(1e3 * seconds[name, mode, 14]),
                "1" if name == "ours" else f"{ratio:#.2g}".rstrip("."),
            ]
        cells.append(row)
    return markdown(("", "forward, ms", "time / ours", "forward + backward, ms", "time / ours"), cells)


def scans_by_grid(*names):
    """Nanoseconds per token and scan of our kernels."""
    rows = {key: row for name in names for key, row in timed(name, "competitor").items()}
    grids = list(dict.fromkeys(grid for _, _, grid in rows))
    cells = [
        [title, *(significant(rows["ours", mode, grid]["ns_per_token"]) for grid in grids)]
        for mode, title in (
            ("forward", "forward, ns per token and scan"),
            ("forward + backward", "forward + backward"),
        )
    ]
    return markdown(("tokens", *(f"{grid}x{grid}" for grid in grids)), cells)


LAUNCHED = {
    "inference_mode_batch_128": "`inference_mode`",
    "no_grad_batch_128": "`no_grad`",
    "forward_backward_batch_32": "forward and backward, batch 32",
}
"""What was timed at several commits, and its heading."""


def launches():
    """What a GPU does while Python launches kernels."""
    cells = []
    for row in read_result("launches_nvidia-h100-80gb-hbm3_20261127-220530")["rows"]:
        graph = f"{row['cuda_graph_ms']:.1f}" if "cuda_graph_ms" in row else ""
        cells.append(
            [
                row["mode"],
                str(row["batch_size"]),
                significant(row["eager_ms"]),
                graph,
                significant(row["gpu_busy_ms"]),
            ]
        )
    return markdown(("V2M-T, 224 px", "batch", "ms", "ms as a CUDA graph", "ms that the GPU is busy"), cells)


def launches_by_commit():
    """Times of one model at three commits, in the order in which they took turns."""
    rows = [
        (f"`{row['commit']}`", *(significant(row[f"{key}_ms"]) for key in LAUNCHED))
        for row in read_result("commits_nvidia-h200_20261128")["rows"]
    ]
    return markdown(("commit", *(f"{heading}, ms" for heading in LAUNCHED.values())), rows)


def roofline(name):
    cells = []
    for row in read_result(name)["rows"]:
        seconds = row["timing"]["median"]
        floors = [row["work"][kind] / row["ceilings"][kind] for kind in ("exps", "flops", "bytes")]
        cells.append(
            [
                row["kernel"],
                significant(1e3 * seconds),
                *(f"{1e3 * floor:.2f}" for floor in floors),
                f"{max(floors) / seconds:.0%}",
                f"{(floors[0] + floors[1]) / seconds:.0%}",
            ]
        )
    headings = (
        "kernel",
        "ms",
        "ms of exps",
        "ms of FLOPs",
        "ms of bytes",
        "floor / ms",
        "(exps + FLOPs) / ms",
    )
    return markdown(headings, cells)


TABLES = {
    function.__name__: function
    for function in (
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
        speed,
        light_speed,
        speed_by_resolution,
        scans,
        scans_by_grid,
        launches,
        launches_by_commit,
        roofline,
    )
}
"""Tables, by the word that documents have for them; the words after it are the arguments."""

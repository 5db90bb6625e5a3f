"""What the commands do."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timm.layers import to_2tuple
from torch.utils.data import Subset

from v2m import create_model
from v2m.analysis import (
    choose_images,
    measure_refinement,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_refinement,
)
from v2m.cli import bench, embed, recipes, study
from v2m.cli import data as data_cli
from v2m.cli.parser import train_config
from v2m.data import DataError, LabelledImages, find_images, open_dataset
from v2m.data.errors import shown
from v2m.data.loading import EvalLoader
from v2m.engine import parallel
from v2m.engine.evaluate import Evaluation, classify_files, evaluate
from v2m.engine.parallel import best_device
from v2m.engine.progress import track
from v2m.engine.run import RunFolder
from v2m.engine.train import train
from v2m.models import MODELS, HierarchicalV2MConfig
from v2m.models.convert import convert_checkpoint
from v2m.models.flops import CONVENTION, count_flops
from v2m.ops.kernels import build
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import open_val_data, resolve_image_spec
from v2m.tasks.classification.head import WEIGHTS, load_model

SHEET_IMAGES = 40


def run_train(options: Any) -> int:
    """``v2m train``."""
    config = train_config(options)
    title = f"{config.model} on {Path(config.data).resolve().name}"

    def draw_curve(run: RunFolder) -> None:
        plot_learning_curve(run.read_metrics(), run.learning_curve, title)

    out = console(is_needed=False)
    result = train(config, out, resume=options.resume is not None, on_epoch=draw_curve)
    if not result.is_main:
        return 0
    run, scores = result.run, result.evaluation.scores
    data = open_dataset(config.data, "val", Path(config.data_dir), [c.name for c in scores.classes])
    out.print()
    _print_scores(out, result.evaluation)
    _draw_evaluation(run, title, data, result.evaluation)
    out.print(f"\nEverything is in {run.path}:")
    for name, meaning in (
        (WEIGHTS, "weights, with config.json in timm's hub format"),
        (f"{run.best.name}/", "the same of the epoch with the highest accuracy"),
        (run.config.name, "the resolved configuration"),
        (run.metrics.name, "metrics of every epoch"),
        (run.unreadable.name, "images that could not be read"),
        (f"{run.checkpoints.name}/", "what v2m train --resume goes on from"),
        (run.learning_curve.name, "loss and accuracy over the epochs"),
        (run.confusion_matrix.name, "which class was taken for which"),
        (run.predictions.name, "images and their predicted classes, the mistakes first"),
    ):
        if (run.path / name).exists():
            out.print(f"  {name:<24}{meaning}")
    out.print("\nTry next:")
    load = f"import timm, v2m; timm.create_model({f'local-dir:{run.path}'!r}, pretrained=True)"
    out.print(f"  {_program('v2m')} eval {shlex.quote(str(run.path))}")
    out.print(f"  {_program('v2m')} predict {shlex.quote(str(run.path))} IMAGE_OR_FOLDER")
    quoted = shlex.quote(load) if re.search(r'["$`\\!]', load) else f'"{load}"'
    out.print(f"  {_program('python')} -c {quoted}")
    return 0


def run_eval(options: Any) -> int:
    """``v2m eval``: 1 if an image could not be read."""
    path = Path(options.model)
    folder = path if path.is_dir() else path.parent
    model, name, classes, spec = load_model(path)
    source = options.data or _own_data(folder)
    accelerator = parallel.start()
    with accelerator.local_main_process_first():  # which may have to download
        data = open_val_data(source, Path(options.data_dir), spec, classes)
    batches = EvalLoader(
        data,
        options.batch_size,
        workers=options.workers,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    out = console() if accelerator.is_main_process else Console(quiet=True)
    with parallel.lost_processes(accelerator):
        watched = track(batches, "evaluating: batch", len(batches), out)
        found = evaluate(model.to(accelerator.device), watched, classes, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return 0
    scores = found.scores

    pictures = RunFolder(
        options.output or (folder / f"eval-{Path(source).resolve().name}" if options.data else folder)
    )
    table = _table("class", "images", "precision", "recall", "F1")
    for row in scores.classes:
        shares = (row.precision, row.recall, row.f1)
        table.add_row(row.name, str(row.images), *(f"{v:.1%}" if row.images else "-" for v in shares))
    out.print(table)
    out.print()
    _print_scores(out, found)
    pictures.path.mkdir(parents=True, exist_ok=True)
    data.transform = None
    _draw_evaluation(pictures, f"{name} on {Path(source).resolve().name}", data, found)
    pictures.write_unreadable(("val", *item) for item in found.unreadable)
    out.print(f"pictures: {pictures.confusion_matrix}, {pictures.predictions}")
    return 1 if found.unreadable else 0


def run_predict(options: Any) -> int:
    """``v2m predict``: 1 if a file could not be read."""
    model, _, classes, spec = load_model(Path(options.model))
    top = min(options.top, len(classes))
    out, errors = console(), console(stderr=True)
    paths: dict[Path, None] = {}  # in order, each once
    failures = []
    for argument in options.images:
        try:
            paths |= dict.fromkeys(find_images(Path(argument)))
        except DataError as error:
            failures.append(str(error))
    table = Table("image", *(f"{i + 1}." for i in range(top)), box=None, header_style="bold")
    outcomes = classify_files(model, spec, list(paths), best_device(), options.batch_size)
    for path, outcome in track(outcomes, "classifying: image", len(paths), errors):
        if isinstance(outcome, DataError):
            failures.append(str(outcome))
            continue
        values, indices = outcome.topk(top)
        best = [(classes[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]
        cells = [shown(str(path)), *(f"{name} {p:.1%}" for name, p in best)]
        if options.json:
            predictions = [{"class": name, "probability": round(p, 6)} for name, p in best]
            print(json.dumps({"image": str(path), "predictions": predictions}), flush=True)
        elif out.is_terminal:
            table.add_row(*cells)
        else:
            print("\t".join(cells), flush=True)
    if table.row_count:
        out.print(table)
    for failure in failures:
        errors.print(f"v2m: error: {failure}")
    return 1 if failures else 0


def run_refine(options: Any) -> int:
    """``v2m refine``."""
    path = Path(options.model)
    folder = path if path.is_dir() else path.parent
    model, name, classes, spec = load_model(path)
    source = options.data or _own_data(folder)
    data = open_val_data(source, Path(options.data_dir), spec, classes)
    step = max(1, len(data) // options.images)  # spread over the dataset, which may be sorted
    batch = next(iter(EvalLoader(Subset(data, range(0, len(data), step)), options.images)))
    out, device = console(), best_device()
    iterations = range(options.most + 1)
    found = measure_refinement(
        model.to(device), batch.images.to(device), batch.targets.to(device), iterations
    )
    rows = list(track(found, "sweeps", options.most + 2, out))
    table = _table("sweeps", "largest error", "same class", "accuracy")
    for row in rows:
        sweeps = "exact" if row.iterations is None else str(row.iterations)
        table.add_row(sweeps, f"{row.error:.1e}", f"{row.agreement:.2%}", f"{row.top1:.2%}")
    out.print(table)
    output = Path(options.output or folder)
    output.mkdir(parents=True, exist_ok=True)
    picture = RunFolder(output).refinement
    plot_refinement(rows, picture, f"{name} on {Path(source).resolve().name}: {len(batch.targets):,} images")
    out.print(f"\nLargest error: of a logit, as a share of the largest.\npicture: {picture}")
    return 0


def run_list(options: Any) -> int:
    """``v2m list``."""
    flops = ("GFLOPs", "of them scans") if options.flops else ()
    table = _table("model", "parameters", "image", "stride", "depth", "width", "state", *flops)
    for name in (name for name in MODELS if fnmatch(name, options.pattern)):
        with torch.device("meta"):
            model = create_model(name)
        c, count = model.config, sum(p.numel() for p in model.parameters())
        strides = dict.fromkeys(str(info["reduction"]) for info in model.feature_info)
        depths, widths = (
            (c.depths, c.embed_dim) if isinstance(c, HierarchicalV2MConfig) else ((c.depth,), (c.embed_dim,))
        )
        cells = [f"{count:,}", str(c.img_size)]
        cells += ["-".join(map(str, values)) for values in (strides, depths, widths, (c.d_state,))]
        if options.flops:
            found = count_flops(model, (c.in_chans, *to_2tuple(c.img_size)))
            cells += [f"{found.total / 1e9:.2f}", f"{found.scans / 1e9:.2f}"]
        table.add_row(name, *cells)
    if not table.row_count:
        raise ValueError(f"pattern: no model matches {options.pattern!r}, there are {', '.join(MODELS)}")
    console().print(table)
    if options.flops:
        console().print(f"\nGFLOPs: {CONVENTION}.")
    return 0


def run_kernels(options: Any) -> int:
    """``v2m kernels``: 1 where the CPU kernels cannot be had."""
    out = console()
    if options.action == "clear":
        out.print(f"deleted {build.clear()} compiled libraries from {build.cache_folder()}")
        return 0
    path = build.library_path()
    if options.action == "build":
        build.library()
    if not path.is_file():
        out.print(f"CPU: not compiled yet, will be on first use or by v2m kernels build ({path})")
        return 0
    build.library()
    out.print(f"CPU: compiled, {path} ({path.stat().st_size / 1024:.0f} kB)")
    return 0


def run_bench(options: Any) -> int:
    """``v2m bench``: 1 if a competitor was wrong or failed."""
    return bench.run(options, console(), console(stderr=True))


def run_study(options: Any) -> int:
    """``v2m study``: 1 if a run failed."""
    return study.run(options, console(), console(stderr=True))


def run_recipes(options: Any) -> int:
    """``v2m recipes``."""
    return recipes.run(options, console())


def run_data(options: Any) -> int:
    """``v2m data``: 1 if images cannot be used, or are in more than one split."""
    return data_cli.run(options, console(), console(stderr=True))


def run_embed(options: Any) -> int:
    """``v2m embed``."""
    return embed.run_embed(options, console(), console(stderr=True))


def run_probe(options: Any) -> int:
    """``v2m probe``."""
    return embed.run_probe(options, console(), console(stderr=True))


def run_convert(options: Any) -> int:
    """``v2m convert``."""
    model = convert_checkpoint(options.checkpoint)
    if options.labels:
        classes = Path(options.labels).read_text().splitlines()
    else:
        classes = [str(i) for i in range(model.num_classes)]
    if len(classes) != model.num_classes:
        raise ValueError(f"labels: {options.labels} has {len(classes)} lines, expected {model.num_classes}")
    output = RunFolder(options.output)
    output.create()
    spec = resolve_image_spec(InputConfig(img_size=to_2tuple(model.config.img_size)), "", model.default_cfg)
    output.write_model(model, classes, spec)
    console().print(
        f"{model.default_cfg['architecture']} with {model.num_classes} classes is in {output.path}"
    )
    return 0


def _program(name: str) -> str:
    """How to call a program of this environment: by name where it is on the path, else by its place."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == beside else os.path.relpath(beside)


class _Output(Console):
    """A console whose reader may go away: that ends a command which is there for its output."""

    is_needed = True

    def on_broken_pipe(self) -> None:
        """What rich calls then; it would exit with 1."""
        if self.is_needed:
            raise BrokenPipeError
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False, is_needed: bool = True) -> Console:
    """Where to print: text as it is, in lines as long as they are where nobody looks at them.

    Args:
        stderr: On standard error.
        is_needed: Whether a command ends where nobody reads its output any more.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    out = _Output(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=True)
    out.is_needed = is_needed
    return out


def _table(*columns: str) -> Table:
    """A table of names and, to the right, numbers."""
    table = Table(*columns, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _own_data(folder: Path) -> str:
    run = RunFolder(folder)
    if not run.config.is_file():
        raise ValueError(f"data: {folder} does not say what it was trained on, name a dataset with --data")
    return run.read_config()["data"]


def _print_scores(out: Console, found: Evaluation) -> None:
    scores = found.scores
    top5 = f"top-5 {scores.top5:.2%}, " if len(scores.classes) > 5 else ""
    out.print(
        f"test accuracy {scores.top1:.2%}  ({top5}loss {scores.loss:.3f}, {scores.images:,} images)",
        style="bold",
    )
    if found.unreadable:
        first = found.unreadable[0]
        out.print(
            f"warning: {len(found.unreadable)} of {scores.images + len(found.unreadable):,} images cannot be "
            f"read and do not count, the first is {shown(first.name)} ({first.reason})"
        )


def _draw_evaluation(run: RunFolder, title: str, data: LabelledImages, found: Evaluation) -> None:
    scores = found.scores
    classes = [c.name for c in scores.classes]
    heading = f"{title}: {scores.top1:.1%} of {scores.images:,} images right"
    plot_confusion_matrix(scores.confusion, classes, run.confusion_matrix, heading)
    chosen = choose_images(found.logits, found.targets, SHEET_IMAGES)
    probabilities, predicted = found.logits[chosen].softmax(-1).max(-1)
    plot_predictions(
        [data[i][0] for i in found.indices[chosen].tolist()],
        [classes[i] for i in found.targets[chosen].tolist()],
        [classes[i] for i in predicted.tolist()],
        probabilities.tolist(),
        run.predictions,
        heading,
    )


COMMANDS: dict[str, Callable[[Any], int]] = {
    "train": run_train,
    "eval": run_eval,
    "predict": run_predict,
    "refine": run_refine,
    "list": run_list,
    "convert": run_convert,
    "kernels": run_kernels,
    "bench": run_bench,
    "study": run_study,
    "recipes": run_recipes,
    "data": run_data,
    "embed": run_embed,
    "probe": run_probe,
}
"""Function of each command: options in, exit code out."""

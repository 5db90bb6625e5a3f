"""What the commands do."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from timm.layers import to_2tuple
from torch.utils.data import Subset

from v2m import create_model
from v2m.cli import (
    bench,
    classification,
    data,
    detection,
    embed,
    evaluate,
    predict,
    recipes,
    segmentation,
    study,
)
from v2m.cli.evaluate import own_data
from v2m.cli.output import console, note_if_unchecked, note_unchecked, number_table, print_unreadable
from v2m.cli.settings import train_config
from v2m.cli.views import View
from v2m.data.classes.division import FILE as SPLIT_FILE
from v2m.data.loading import EvalLoader
from v2m.engine import processes
from v2m.engine.device import find_device
from v2m.engine.progress import print_line, track
from v2m.engine.run_folder import RunFolder, best_row
from v2m.engine.stopping import when_stopped
from v2m.engine.train import TrainResult, train
from v2m.explain.sweeps import measure_refinement
from v2m.models import MODELS, HierarchicalV2MConfig
from v2m.models.convert import convert_checkpoint
from v2m.models.flops import CONVENTION, count_flops
from v2m.ops.kernels import build
from v2m.pictures import plot_learning_curve, plot_refinement
from v2m.recipes.photos import describe
from v2m.system.files import read_names
from v2m.system.names import shell_word
from v2m.tasks import find_task
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.saved import load, save
from v2m.tasks.model_folder import CONFIG, WEIGHTS, read_folder

VIEWS: dict[str, View] = {
    "classification": classification,
    "detection": detection,
    "segmentation": segmentation,
}
"""What people see of each task."""
REFINEMENT = "refinement.png"
"""Picture of ``v2m refine``: errors over the number of sweeps."""


def run_train(options: Any) -> int:
    """``v2m train``."""
    config = train_config(options)
    # Training goes on without a reader of its output, such as after a closed terminal.
    out = console(is_needed=False)
    if processes.is_main():
        start = "training" if options.resume is None else f"resuming {options.resume}:"
        out.print(f"{start} {config.model} on {config.data}")
    task, view = find_task(config.task), VIEWS[config.task]
    title = f"{config.model} on {Path(config.data).resolve().name}"
    if options.resume is None and processes.is_main():
        note_unchecked(console(stderr=True), *task.trained_models(config))

    def draw_curve(run: RunFolder) -> None:
        plot_learning_curve(run.read_metrics(), run.learning_curve, title, dict(task.val_metrics))

    if options.resume is None and not options.recipe and processes.is_main():
        for line in describe(config):
            print_line(out, line)
    result = train(config, out, resume=options.resume is not None, on_epoch=draw_curve)
    if not result.is_main:
        return 0
    run = result.run
    out.print()
    view.print_scores(out, result.evaluation)
    with when_stopped(partial(_last_words, run)):
        _report(out, result, title)
    return 0


def _last_words(run: RunFolder) -> str:
    return f"stopped; the run is complete, its pictures come by: v2m eval {shell_word(str(run.path))}"


def _report(out: Console, result: TrainResult, title: str) -> None:
    """Say which weights are where, draw, and tell what can be done next."""
    run, task = result.run, type(result.task)
    view, metrics = VIEWS[task.name], [key for key, _ in task.val_metrics]
    rows = run.read_metrics()
    best = best_row(rows, metrics)
    has_other = run.best.is_dir() and best["epoch"] < rows[-1]["epoch"]
    scores = (f"{label} {best[f'val_{key}']:.2%}" for key, label in task.val_metrics if f"val_{key}" in best)
    others = f": validation {', '.join(scores)}" if has_other else ""
    out.print(f"of {run.describe_weights(run.path, metrics)}{others}")
    print_unreadable(out, result.evaluation)
    view.draw(run.path, title, result.task.val_data, result.evaluation)
    out.print()
    out.print(f"Everything is in {run.path}:")
    for name, meaning in (
        (WEIGHTS, f"weights, with {CONFIG}" + (" in timm's hub format" if task.is_timm_format else "")),
        (f"{run.best.name}/", "the same of the best epoch"),
        (run.config.name, "the resolved configuration"),
        (SPLIT_FILE, "which images were trained on, and which are validated on"),
        (run.metrics.name, "metrics of every epoch"),
        (run.unreadable.name, "images that could not be read"),
        (f"{run.checkpoints.name}/", "what v2m train --resume goes on from"),
        (run.learning_curve.name, "loss and scores over the epochs"),
        *view.FILES,
    ):
        if (run.path / name).exists():
            out.print(f"  {name:<24}{meaning}")
    out.print()
    # Commands to paste into a shell as they are.
    out.print("Try next:")
    for folder in (run.path, run.best) if has_other else (run.path,):
        out.print(f"  {_program('v2m')} eval {shell_word(str(folder))}")
    out.print(f"  {_program('v2m')} predict {shell_word(str(run.path))} IMAGE_OR_FOLDER")
    if task.is_timm_format:
        load = f"import timm, v2m; timm.create_model({f'local-dir:{run.path}'!r}, pretrained=True)"
        quoted = shell_word(load) if re.search(r'["$`\\!]', load) else f'"{load}"'
        out.print(f"  {_program('python')} -c {quoted}")


def run_eval(options: Any) -> int:
    """``v2m eval``: 1 if an image could not be read."""
    return evaluate.run(options, VIEWS, console(), console(stderr=True))


def run_predict(options: Any) -> int:
    """``v2m predict``: 1 if a file could not be read."""
    return predict.run(options, VIEWS, console(), console(stderr=True))


def run_refine(options: Any) -> int:
    """``v2m refine``."""
    folder = read_folder(Path(options.model))
    note_if_unchecked(console(stderr=True), options.model, folder)
    saved = load(folder)
    source = options.data or own_data(folder.path)
    images = saved.evaluator.open_data(source, Path(options.data_dir), allow_outside=options.allow_outside)
    # Every so many images are taken, since the dataset may be sorted by class.
    step = max(1, len(images) // options.images)
    batch = next(iter(EvalLoader(Subset(images, range(0, len(images), step)), options.images)))
    out, device = console(), find_device(options.device)
    iterations = range(options.most + 1)
    found = measure_refinement(
        saved.model.to(device), batch.images.to(device), batch.targets.to(device), iterations
    )
    rows = list(track(found, "sweeps", options.most + 2, out))
    table = number_table("sweeps", "largest error", "same class", "accuracy")
    for row in rows:
        sweeps = "exact" if row.sweeps is None else str(row.sweeps)
        table.add_row(sweeps, f"{row.error:.1e}", f"{row.agreement:.2%}", f"{row.top1:.2%}")
    out.print(table)
    output = Path(options.output or folder.path)
    output.mkdir(parents=True, exist_ok=True)
    picture = output / REFINEMENT
    exact, *iterative = rows
    plot_refinement(
        [row.sweeps or 0 for row in iterative],
        [row.error for row in iterative],
        [row.top1 for row in iterative],
        exact.top1,
        picture,
        f"{saved.name} on {Path(source).resolve().name}: {len(batch.targets):,} images",
    )
    out.print()
    out.print("Largest error: of a logit, as a share of the largest.")
    out.print(f"picture: {picture}")
    return 0


def run_list(options: Any) -> int:
    """``v2m list``."""
    flops = ("GFLOPs", "of them scans") if options.flops else ()
    table = number_table("model", "parameters", *flops, "image", "stride", "depth", "width", "state")
    for name in (name for name in MODELS if fnmatch(name, options.pattern)):
        with torch.device("meta"):
            model = create_model(name)
        c, count = model.config, sum(p.numel() for p in model.parameters())
        strides = dict.fromkeys(str(info["reduction"]) for info in model.feature_info)
        depths, widths = (
            (c.depths, c.embed_dim) if isinstance(c, HierarchicalV2MConfig) else ((c.depth,), (c.embed_dim,))
        )
        cells = [str(c.img_size)]
        cells += ["-".join(map(str, values)) for values in (strides, depths, widths, (c.d_state,))]
        if options.flops:
            found = count_flops(model, (c.in_chans, *to_2tuple(c.img_size)))
            cells = [f"{found.total / 1e9:.2f}", f"{found.scans / 1e9:.2f}", *cells]
        table.add_row(name, f"{count:,}", *cells)
    if not table.rows:
        raise ValueError(f"pattern: no model matches {options.pattern!r}, there are {', '.join(MODELS)}")
    out = console()
    out.print(table)
    if options.flops:
        out.print()
        out.print(f"GFLOPs: {CONVENTION}.")
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
    build.check_owner(path)
    if not path.is_file():
        out.print(f"CPU: not compiled yet, will be on first use or by v2m kernels build ({path})")
        return 0
    build.library()
    out.print(f"CPU: compiled, {path} ({path.stat().st_size / 1024:.0f} kB)")
    return 0


def run_convert(options: Any) -> int:
    """``v2m convert``."""
    model = convert_checkpoint(options.checkpoint)
    if options.labels:
        classes = read_names(Path(options.labels))
    else:
        classes = [str(i) for i in range(model.num_classes)]
    if len(classes) != model.num_classes:
        raise ValueError(f"labels: {options.labels} has {len(classes)} lines, expected {model.num_classes}")
    output = RunFolder(options.output)
    output.create()
    spec = resolve_image_spec(InputConfig(img_size=to_2tuple(model.config.img_size)), "", model.default_cfg)
    evaluator = ClassificationEvaluator(classes, spec)
    output.write_model(lambda folder: save(model, evaluator, folder))
    console().print(
        f"{model.default_cfg['architecture']} with {model.num_classes} classes is in {output.path}"
    )
    return 0


def _program(name: str) -> str:
    """How to call a program of this environment: by name where it is on the path, else by its place."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == beside else os.path.relpath(beside)


COMMANDS: dict[str, Callable[[Any], int]] = {
    "train": run_train,
    "eval": run_eval,
    "predict": run_predict,
    "refine": run_refine,
    "list": run_list,
    "convert": run_convert,
    "kernels": run_kernels,
    "bench": bench.run,
    "study": study.run,
    "recipes": recipes.run,
    "data": data.run,
    "embed": embed.run_embed,
    "probe": embed.run_probe,
}
"""Function of each command: options in, exit code out."""

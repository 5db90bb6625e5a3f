"""``v2m embed`` and ``v2m probe``: features of frozen models, and how good they are."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console

from v2m.cli.output import NAME_FOLDER, console, note_unchecked, number_table
from v2m.data import Split
from v2m.engine.device import describe_device
from v2m.engine.stopping import when_stopped
from v2m.features.embed import EmbedConfig, embed, processes
from v2m.features.files import check_output, read_facts, read_features
from v2m.features.frozen import FrozenModel, open_frozen
from v2m.features.probe import Probe, probe
from v2m.pictures import plot_probes
from v2m.system.files import refuse_link, replace_file
from v2m.system.names import safe_name
from v2m.system.tables import TextTable

RESULTS, PICTURE = "probe.json", "probe.png"
MANY_CLASSES = 5


def run_embed(options: Any) -> int:
    """``v2m embed``: write the features of one split."""
    out, errors = console(), console(stderr=True)
    output = Path(options.out)
    check_output(output)
    with processes(options.device) as state:
        if state.is_main_process:
            what = f"{options.data} {options.split} by {options.model}"
            errors.print(f"embedding {what} on {describe_device(state.device)}")
            note_unchecked(errors, options.model)
        frozen = open_frozen(options.model, options.data)
        _embed(frozen, options.split, output, options, state, errors)
        if not state.is_main_process:
            return 0
    facts = read_facts(output)
    left_out = len(facts.get("unreadable", ()))
    images = f"{facts['data']['images'] - left_out:,} images"
    if left_out:
        images += f", {left_out} left out"
    out.print(f"{output}: features of {images}, {options.data} {options.split} by {options.model}")
    return 0


def run_probe(options: Any) -> int:
    """``v2m probe``: score frozen features."""
    _check(options)
    out, errors = console(), console(stderr=True)
    with processes(options.device) as state:
        found = _probe_files(options, state) if options.train else _probe_models(options, state, errors)
        if not state.is_main_process:
            return 0

    # The main process alone has results, and writes them.
    output = _results_folder(options)
    output.mkdir(parents=True, exist_ok=True)
    results = [asdict(result) | dict(facts=facts) for result, facts in found.values()]
    text = json.dumps(results, indent=2) + "\n"
    replace_file(output / RESULTS, lambda partial: partial.write_text(text, encoding="utf-8"))
    probes = {name: result for name, (result, _) in found.items()}
    any_result, any_facts = next(iter(found.values()))
    plot_probes(
        {name: {k: a.top1 for k, a in result.knn.items()} for name, result in probes.items()},
        {name: result.linear.top1 for name, result in probes.items()},
        output / PICTURE,
        f"Frozen features on {_title(any_facts['data']['source'])}: "
        f"{any_result.train_images:,} training images, {any_result.val_images:,} validation images",
    )
    out.print(_table(probes))
    images = f"{any_result.val_images:,} validation images by {any_result.train_images:,} training images"
    out.print()
    out.print(f"Accuracy on {images}: k nearest neighbours, and a linear classifier.")
    out.print(f"results: {output / RESULTS}")
    out.print(f"picture: {output / PICTURE}")
    return 0


def _check(options: Any) -> None:
    if options.train or options.val:
        if options.models or not (options.train and options.val):
            raise ValueError("train: expected both --train and --val and no models, or models and --data")
    elif not options.models or not options.data:
        raise ValueError("models: expected models and --data, or features by --train and --val")


def _embed(
    frozen: FrozenModel, split: Split, output: Path, options: Any, state: PartialState, errors: Console
) -> None:
    config = EmbedConfig(
        options.data_dir, options.batch_size, options.workers, allow_outside=options.allow_outside
    )
    with when_stopped(_last_words):
        embed(frozen, options.data, split, output, config, state, errors)


def _last_words() -> str:
    return "stopped; the same command goes on after the last whole part"


def _probe_models(
    options: Any, state: PartialState, errors: Console
) -> dict[str, tuple[Probe, dict[str, Any]]]:
    """The probe of each model with the facts of its features. It is empty in all but the main process."""
    found = {}
    for name in dict.fromkeys(options.models):
        if state.is_main_process:
            errors.print(f"probing {options.data} by {name} on {describe_device(state.device)}")
            note_unchecked(errors, name)
        frozen = open_frozen(name, options.data)
        folder = _features_folder(name, options)
        train_path, val_path = folder / "train.npz", folder / "val.npz"
        _embed(frozen, "train", train_path, options, state, errors)
        _embed(frozen, "val", val_path, options, state, errors)
        if state.is_main_process:
            train, val = read_features(train_path), read_features(val_path)
            found[name] = probe(train, val, state.device), val.facts
    return found


def _probe_files(options: Any, state: PartialState) -> dict[str, tuple[Probe, dict[str, Any]]]:
    train, val = read_features(Path(options.train)), read_features(Path(options.val))
    name = val.facts["model"]["source"]
    return {Path(name).name: (probe(train, val, state.device), val.facts)}


def _features_folder(model: str, options: Any) -> Path:
    """Where the features of a model are kept: with the results if --output is given, else with the model."""
    if not options.output and Path(model).exists():
        return _own_folder(model, options.data)
    return _results_folder(options) / safe_name(model)


def _results_folder(options: Any) -> Path:
    if options.output:
        return Path(options.output)
    if options.val:
        return Path(options.val).parent
    names = list(dict.fromkeys(options.models))
    if len(names) == 1 and Path(names[0]).exists():
        return _own_folder(names[0], options.data)
    return Path("runs") / safe_name(f"probe-{_title(options.data)}")


def _own_folder(model: str, data: str) -> Path:
    path = Path(model)
    own = (path if path.is_dir() else path.parent) / safe_name(f"probe-{_title(data)}")
    refuse_link(own, NAME_FOLDER)
    return own


def _title(data: str) -> str:
    return Path(data).resolve().name


def _table(probes: dict[str, Probe]) -> TextTable:
    counts = sorted({k for result in probes.values() for k in result.knn})
    has_top5 = any(result.classes > MANY_CLASSES for result in probes.values())
    top5 = ("20-NN top-5", "linear top-5") if has_top5 else ()
    neighbours = [f"{k}-NN" for k in counts]
    table = number_table("model", "features", *neighbours, "linear", *top5, first_left_out=["features"])
    for name, result in probes.items():
        knn = [f"{result.knn[k].top1:.2%}" if k in result.knn else "-" for k in counts]
        cells = [str(result.features), *knn, f"{result.linear.top1:.2%}"]
        if has_top5:
            voters = result.knn.get(20, next(iter(result.knn.values())))
            cells += [f"{voters.top5:.2%}", f"{result.linear.top5:.2%}"]
        table.add_row(name, *cells)
    return table

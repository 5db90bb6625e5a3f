"""Score frozen features: nearest neighbours, and a linear classifier.

Goes on where it was stopped.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.cli.embed import FeatureOptions, write_features
from v2m.cli.options import positional
from v2m.system.files import refuse_link
from v2m.system.names import safe_name

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from v2m.features.probe import Probe
    from v2m.system.tables import TextTable

RESULTS, PICTURE = "probe.json", "probe.png"
MANY_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(FeatureOptions):
    """Options of ``v2m probe``.

    Attributes:
        models: Run folders, or others in hub format; timm/NAME for timm's weights, random/NAME for an
            untrained model. Several are compared.
        data: Dataset by name or folder.
        train: Features of training images, instead of models.
        val: Features of validation images, likewise.
        output: Folder; by default in the model's, for several runs/probe-DATA.
    """

    models: tuple[str, ...] = positional(())
    data: str | None = None
    train: str | None = None
    val: str | None = None
    output: str | None = None


def run(options: ProbeOptions) -> int:
    """Score frozen features."""
    _check(options)

    from v2m.cli.output import console
    from v2m.features.embed import processes
    from v2m.pictures import plot_probes
    from v2m.system.files import replace_file

    out, errors = console(), console(stderr=True)
    with processes(options.device) as state:
        if options.train and options.val:
            found = _probe_files(options.train, options.val, state)
        else:
            found = _probe_models(options, options.data or "", state, errors)
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


def _check(options: ProbeOptions) -> None:
    if options.train or options.val:
        if options.models or not (options.train and options.val):
            raise ValueError("train: expected both --train and --val and no models, or models and --data")
    elif not options.models or not options.data:
        raise ValueError("models: expected models and --data, or features by --train and --val")


def _probe_models(
    options: ProbeOptions, data: str, state: "PartialState", errors: "Console"
) -> "dict[str, tuple[Probe, dict[str, Any]]]":
    """The probe of each model with the facts of its features. It is empty in all but the main process."""
    from v2m.cli.output import note_unchecked
    from v2m.engine.device import describe_device
    from v2m.features.files import read_features
    from v2m.features.frozen import open_frozen
    from v2m.features.probe import probe

    found = {}
    for name in dict.fromkeys(options.models):
        if state.is_main_process:
            errors.print(f"probing {data} by {name} on {describe_device(state.device)}")
            note_unchecked(errors, name)
        frozen = open_frozen(name, data)
        folder = _features_folder(name, data, options)
        train_path, val_path = folder / "train.npz", folder / "val.npz"
        write_features(frozen, data, "train", train_path, options, state, errors)
        write_features(frozen, data, "val", val_path, options, state, errors)
        if state.is_main_process:
            train, val = read_features(train_path), read_features(val_path)
            found[name] = probe(train, val, state.device), val.facts
    return found


def _probe_files(
    train_path: str, val_path: str, state: "PartialState"
) -> "dict[str, tuple[Probe, dict[str, Any]]]":
    from v2m.features.files import read_features
    from v2m.features.probe import probe

    train, val = read_features(Path(train_path)), read_features(Path(val_path))
    name = val.facts["model"]["source"]
    return {Path(name).name: (probe(train, val, state.device), val.facts)}


def _features_folder(model: str, data: str, options: ProbeOptions) -> Path:
    """Where the features of a model are kept: with the results if --output is given, else with the model."""
    if not options.output and Path(model).exists():
        return _own_folder(model, data)
    return _results_folder(options) / safe_name(model)


def _results_folder(options: ProbeOptions) -> Path:
    if options.output:
        return Path(options.output)
    if options.val:
        return Path(options.val).parent
    names, data = list(dict.fromkeys(options.models)), options.data or ""
    if len(names) == 1 and Path(names[0]).exists():
        return _own_folder(names[0], data)
    return Path("runs") / safe_name(f"probe-{_title(data)}")


def _own_folder(model: str, data: str) -> Path:
    from v2m.cli.output import NAME_FOLDER

    path = Path(model)
    own = (path if path.is_dir() else path.parent) / safe_name(f"probe-{_title(data)}")
    refuse_link(own, NAME_FOLDER)
    return own


def _title(data: str) -> str:
    return Path(data).resolve().name


def _table(probes: "dict[str, Probe]") -> "TextTable":
    from v2m.cli.output import number_table

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

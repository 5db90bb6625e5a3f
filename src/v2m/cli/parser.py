"""The command line: jsonargparse over the typed configurations.

Only ``v2m train`` has options from a configuration; those of the other commands are listed here.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeInt,
    PositiveInt,
)

from v2m import __version__
from v2m.cli.evaluate import add_task_options
from v2m.cli.plain import PLAIN, ConfigFile, ConfigFileError, check_given, plain_arguments
from v2m.cli.settings import find_start
from v2m.data.scenes.config import ScenesConfig
from v2m.engine import processes
from v2m.recipes import FOLDER, RECIPES
from v2m.studies.catalogue import describe_studies
from v2m.system.devices import AUTO
from v2m.system.errors import shown
from v2m.system.names import nearest
from v2m.tasks.config import TrainConfig, default_data_dir, settings

MODEL = (
    "Run folder, or another in hub format; timm/NAME for timm's weights, random/NAME for an untrained model."
)

DEVICE = "auto takes a GPU if there is one; else cpu, cuda, cuda:1 and so on, mps or xpu."

LONGEST_ERROR = 1000
"""Most letters of an error: it may show what it was given, however long that is."""


class Parser(ArgumentParser):
    """Prints one line for an error, with the nearest option where one is unknown."""

    _arguments: Sequence[str] = ()

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"parser_mode": PLAIN, **more})

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> Namespace:  # type: ignore[override]
        """Parse, and remember the arguments for the words of an error; the environment has no options."""
        self._arguments = sys.argv[1:] if args is None else args
        try:
            found = super().parse_args(plain_arguments(self._arguments), *others, **{"env": False, **more})
            if getattr(found, "command", None) == "train":
                check_given(type(find_start(self._arguments)), found.train)
            return found
        except (ConfigFileError, AttributeError) as error:
            # AttributeError comes of jsonargparse, which reads the value '!!timestamp x' by itself.
            self.error(str(error))

    def dump(self, *args: Any, **options: Any) -> str:
        """Settings as YAML, with escapes if there is what a terminal must not get."""
        text = super().dump(*args, **options)
        is_plain = all(shown(line) == line for line in text.split("\n"))
        return text if is_plain else yaml.safe_dump(yaml.safe_load(text), sort_keys=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with 2."""
        # jsonargparse writes several lines, and its own words around the name of a setting.
        message = re.sub(r'^Parser key "([\w.]+)": ', r"\1: ", " ".join(message.split()))
        if len(message) > LONGEST_ERROR:
            message = f"{message[:LONGEST_ERROR]}..."
        # Every process of a run comes here at once; the first one tells.
        processes.give_way()
        sys.stderr.write(shown(f"{self.prog.split()[0]}: error: {message}{self._suggestion(message)}") + "\n")
        sys.exit(2)

    def _suggestion(self, message: str) -> str:
        commands = self._subcommands_action.choices if self._subcommands_action else {}
        if choice := re.search(r"invalid choice: '([^']*)'", message):
            names = nearest(choice[1], commands)
            return f"; did you mean {names[0]!r}?" if names else ""
        found = re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
        command = next((commands[a] for a in self._arguments if a in commands), self)
        if not found:
            return ""
        group, dot, name = (found[1] or found[2]).rpartition(".")
        options = (option.removeprefix("--").rpartition(".") for option in command._option_string_actions)
        known = [last for first, _, last in options if first == group]
        names = nearest(name, known) or (known if group else [])
        words = " or ".join(f"--{group}{dot}{option}" for option in names)
        return f"; did you mean {words}?" if words else ""


def build_parser(arguments: Sequence[str] = ()) -> Parser:
    """The parser of ``v2m`` and its commands.

    Where ``arguments`` name a recipe, or a dataset that has one, ``v2m train`` starts from its settings.

    Raises:
        ValueError: there is no such recipe.
    """
    # Which options v2m train has, and their defaults, must be known before its arguments are parsed.
    try:
        start = find_start(arguments)
    except ConfigFileError as error:
        Parser(prog="v2m").error(str(error))
    parser = Parser(
        prog="v2m", description="Visual 2-Dimensional Mamba.", version=__version__, allow_abbrev=False
    )
    commands = parser.add_subcommands(dest="command")

    # Training: every setting of the task is an option.
    train = _command("Train a classifier, a detector or a segmenter.")
    train.add_argument("--config", action=ConfigFile, help="YAML file with any of these settings.")
    train.add_argument(
        "--recipe", type=str | None, metavar="NAME", help="Where the settings start from; see v2m recipes."
    )
    _add_settings(train, start)
    train.add_argument(
        "--resume",
        type=str | None,
        metavar="RUN",
        help="Continue the run in this folder; auto is the one in --output if it is there, else a new one.",
    )
    commands.add_subcommand("train", train, help="train a model")

    recipes = _command("List the recipes of v2m train, or show one of them.")
    recipes.add_argument("name", type=str | None, nargs="?", help=f"Which: {', '.join(RECIPES)}.")
    commands.add_subcommand("recipes", recipes, help="list the recipes of v2m train")

    # A trained model: its scores, its predictions.
    evaluate = _command("Score a model: its task's metrics, a table per class, pictures.")
    evaluate.add_argument("model", type=str, help="Run folder, or the output of v2m convert.")
    _add_data_of_model(evaluate)
    evaluate.add_argument(
        "--batch_size", type=PositiveInt | None, help="Images at once; by default 64, of a detector 8."
    )
    evaluate.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that read images.")
    evaluate.add_argument(
        "--output", type=str | None, help="Folder for the pictures; by default the model's."
    )
    _add_device(evaluate)
    add_task_options(evaluate)
    commands.add_subcommand("eval", evaluate, help="score a model on a dataset")

    predict = _command(
        "Classify images, or find and draw what is in them. Unreadable files are reported, the others still "
        "done."
    )
    predict.add_argument("model", type=str, help="Run folder, or the output of v2m convert.")
    predict.add_argument("images", type=str, nargs="+", help="Image files, or folders of them.")
    predict.add_argument("--top", type=PositiveInt, default=3, help="Classes to show per image.")
    predict.add_argument(
        "--threshold", type=ClosedUnitInterval, default=0.5, help="Least score of objects to show."
    )
    predict.add_argument(
        "--output", type=str | None, help="Folder for what is drawn; by default predictions in the model's."
    )
    predict.add_argument(
        "--batch_size", type=PositiveInt | None, help="Images at once; by default 64, of a detector 8."
    )
    predict.add_argument("--json", action="store_true", help="One JSON object per line instead of a table.")
    _add_device(predict)
    commands.add_subcommand("predict", predict, help="apply a model to image files")

    # Models and kernels, without training.
    models = _command("List the models of this package.")
    models.add_argument(
        "pattern", type=str, nargs="?", default="*", help="Show names that match, such as '*tiny*'."
    )
    models.add_argument("--flops", action="store_true", help="Count the operations for one image too.")
    commands.add_subcommand("list", models, help="list the models")

    convert = _command("Turn a checkpoint of the released V2M code into a folder in timm's hub format.")
    convert.add_argument("checkpoint", type=str, help="File with the released model's parameters.")
    convert.add_argument("output", type=str, help="New folder.")
    convert.add_argument("--labels", type=str | None, help="Text file with one class name per line.")
    commands.add_subcommand("convert", convert, help="convert a checkpoint of the released code")

    kernels = _command("Look after the CPU kernels, which are compiled on first use.")
    kernels.add_argument(
        "action",
        type=Literal["build", "status", "clear"],
        help="Compile them now (for a container image), tell what is there, or delete what was compiled.",
    )
    commands.add_subcommand("kernels", kernels, help="compile the CPU kernels, or tell about them")

    bench = _command("Measure speed and memory; what is wrong is not timed.")
    commands.add_subcommand("bench", bench, help="measure speed and memory")
    _add_benchmarks(bench)

    # Experiments: one model looked into, or many runs compared.
    refine = _command("Compare the exact recurrence of a trained model with its approximation by sweeps.")
    refine.add_argument("model", type=str, help="Run folder of a model with the mixer exact.")
    _add_data_of_model(refine)
    refine.add_argument("--images", type=PositiveInt, default=1000, help="Validation images to look at.")
    refine.add_argument("--most", type=PositiveInt, default=16, help="Largest number of sweeps.")
    refine.add_argument("--output", type=str | None, help="Folder for the picture; by default the model's.")
    _add_device(refine)
    commands.add_subcommand("refine", refine, help="compare the exact recurrence with sweeps")

    study = _command(
        "Train variants of a model with several seeds, and compare them. Goes on where it was stopped."
    )
    study.add_argument("name", type=str, help=f"Which: {describe_studies()}.")
    study.add_argument(
        "--seeds", type=NonNegativeInt, nargs="+", default=[], help="Seeds; by default the study's."
    )
    study.add_argument("--only", type=str, nargs="+", default=[], help="Variants to train; by default all.")
    study.add_argument(
        "--jobs", type=PositiveInt | None, help="Runs at a time; by default a core each, or one on a GPU."
    )
    study.add_argument("--output", type=str | None, help="Folder; by default runs/study-NAME.")
    _add_data_dir(study)
    commands.add_subcommand("study", study, help="compare variants of a model over several seeds")

    # Data, and what a frozen model says of them.
    data = _command("Look after datasets.")
    commands.add_subcommand("data", data, help="check a dataset, or make one of scenes")
    actions = data.add_subcommands(dest="action")
    _add_check(actions)
    _add_scenes(actions)

    embed = _command("Write the features of a frozen model, before its head. Goes on where it was stopped.")
    embed.add_argument("model", type=str, help=MODEL)
    embed.add_argument("data", type=str, help="Dataset by name or folder.")
    embed.add_argument("--split", type=Literal["train", "val"], default="val", help="Which images.")
    embed.add_argument("--out", type=str, required=True, help="File to write: .npz or .parquet.")
    _add_embedding(embed)
    commands.add_subcommand("embed", embed, help="write the features of a frozen model")

    probe = _command(
        "Score frozen features: nearest neighbours, and a linear classifier. Goes on where it was stopped."
    )
    probe.add_argument("models", type=str, nargs="*", default=[], help=f"{MODEL} Several are compared.")
    probe.add_argument("--data", type=str | None, help="Dataset by name or folder.")
    probe.add_argument("--train", type=str | None, help="Features of training images, instead of models.")
    probe.add_argument("--val", type=str | None, help="Features of validation images, likewise.")
    probe.add_argument(
        "--output", type=str | None, help="Folder; by default in the model's, for several runs/probe-DATA."
    )
    _add_embedding(probe)
    commands.add_subcommand("probe", probe, help="score the features of frozen models")
    return parser


def _add_settings(parser: Parser, start: TrainConfig) -> None:
    """An option for every setting of a task, with the values of a configuration as defaults."""
    parser.add_class_arguments(type(start), None)
    defaults = settings(start)
    if start.data == FOLDER:
        del defaults["data"]  # the user has to give it
    else:
        parser._option_string_actions["--data"].required = False  # the recipe has it
    parser.set_defaults(defaults)


def _add_data_of_model(parser: Parser) -> None:
    """Which images to try a trained model on."""
    parser.add_argument(
        "--data", type=str | None, help="Dataset by name or folder; by default the run's own."
    )
    _add_data_dir(parser)
    _add_allow_outside(parser)


def _add_data_dir(parser: Parser, help: str = "Where named datasets are kept.") -> None:
    parser.add_argument("--data_dir", type=str, default=default_data_dir(), help=help)


def _add_device(parser: Parser) -> None:
    parser.add_argument("--device", type=str, default=AUTO, help=DEVICE)


def _add_allow_outside(parser: Parser) -> None:
    parser.add_argument(
        "--allow_outside",
        type=bool,
        default=False,
        help="Read images outside of the data folder too, where COCO or parquet files name them.",
    )


def _add_embedding(parser: Parser) -> None:
    _add_data_dir(parser)
    _add_allow_outside(parser)
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once.")
    parser.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that read images.")
    _add_device(parser)


def _add_check(actions: Any) -> None:
    check = _command(
        "Look at every image of a dataset, its objects and its masks. Exits with 1 if images cannot be "
        "read, are in more than one split, or have a class that the training images lack, and if "
        "annotations or masks are missing or do not fit."
    )
    check.add_argument("source", type=str, help="Dataset by name or folder, as for v2m train --data.")
    _add_data_dir(check)
    _add_allow_outside(check)
    check.add_argument(
        "--workers", type=NonNegativeInt | None, help="Processes that read images; by default a core each."
    )
    check.add_argument("--tiny", type=NonNegativeInt, default=8, help="Pixels that a side should have.")
    check.add_argument(
        "--input.ignore_index", type=int, default=255, help="Label of pixels that have none, as in training."
    )
    check.add_argument(
        "--input.label_map",
        type=dict[int, int] | None,
        help="Labels of values in mask files, as in training.",
    )
    check.add_argument("--output", type=str | None, help="Folder; by default runs/data-check-NAME.")
    actions.add_subcommand("check", check, help="look at every image")


def _add_scenes(actions: Any) -> None:
    scenes = _command(
        "Make scenes of Fashion-MNIST garments, with boxes, masks of instances, and masks of classes."
    )
    scenes.add_argument("output", type=str, help="Folder; one of the same settings is made anew.")
    scenes.add_argument("--train", type=PositiveInt, default=ScenesConfig.train, help="Scenes to train on.")
    scenes.add_argument("--val", type=PositiveInt, default=ScenesConfig.val, help="Scenes to validate on.")
    scenes.add_argument(
        "--seed", type=NonNegativeInt, default=ScenesConfig.seed, help="Seed of every choice."
    )
    scenes.add_argument(
        "--sizes",
        type=str,
        nargs="+",
        default=[f"{height}x{width}" for height, width in ScenesConfig.sizes],
        metavar="HxW",
        help="Heights and widths in pixels; each scene has one of them.",
    )
    _add_data_dir(scenes, "Where Fashion-MNIST is kept.")
    actions.add_subcommand("scenes", scenes, help="make scenes with boxes and masks")


def _add_benchmarks(bench: Parser) -> None:
    operators = _command("Time the eight scans of one V2M layer: our kernels beside others.")
    operators.add_argument(
        "--competitors", type=str, nargs="+", default=[], help="Which, the first for ratios; by default all."
    )
    operators.add_argument(
        "--grids", type=PositiveInt, nargs="+", default=[14], help="Heights and widths in tokens."
    )
    models = _command("Time inference and a training step of models, ours or timm's.")
    models.add_argument(
        "--models",
        type=str,
        nargs="+",
        default=["v2m_tiny_patch16_224", "deit_tiny_patch16_224"],
        help="Which, the first for ratios; NAME, or NAME:argument=value,argument=value.",
    )
    models.add_argument(
        "--resolutions", type=PositiveInt, nargs="+", default=[224], help="Heights and widths in pixels."
    )
    roofline = _command("Compare our kernels with what this machine could do.")
    roofline.add_argument("--grid", type=PositiveInt, default=14, help="Height and width in tokens.")
    for parser in (operators, roofline):
        parser.add_argument("--channels", type=PositiveInt, default=384, help="Inner channels of the layer.")
        parser.add_argument("--states", type=PositiveInt, default=16, help="State size.")
    for parser in (operators, models):
        parser.add_argument("--memory", type=bool, default=True, help="Measure the peak memory too.")
        parser.add_argument("--plot", type=str | None, help="PNG to draw: time and memory over the size.")

    topics = bench.add_subcommands(dest="topic")
    for name, parser, help in (
        ("operators", operators, "the scans of a layer, by our kernels and others"),
        ("models", models, "inference and training of models"),
        ("roofline", roofline, "our kernels beside what the machine could do"),
    ):
        parser.add_argument("--batch_size", type=PositiveInt, default=8, help="Images at once.")
        parser.add_argument("--rounds", type=PositiveInt, default=10, help="Times that each is timed.")
        parser.add_argument(
            "--dtype",
            type=Literal["float32", "bfloat16"],
            default="float32",
            help="Of parameters and images.",
        )
        _add_device(parser)
        parser.add_argument("--threads", type=PositiveInt | None, help="Of PyTorch on the CPU.")
        parser.add_argument(
            "--output", type=str, default="benchmarks/results", help="Folder for the results."
        )
        topics.add_subcommand(name, parser, help=help)


def _command(description: str) -> Parser:
    return Parser(description=description, allow_abbrev=False)

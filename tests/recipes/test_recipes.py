from dataclasses import replace

import pytest
import timm
import torch
import yaml
from timm.scheduler import CosineLRScheduler

import v2m  # noqa: F401
from v2m.cli.options import Parser
from v2m.cli.train import TrainOptions
from v2m.data import DATASETS
from v2m.engine.run_folder import RunFolder
from v2m.models import MODELS
from v2m.recipes import FOLDER, RECIPES, find_recipe, recipe_of, starting_config
from v2m.recipes.recipe import NOT_MEASURED
from v2m.tasks import find_task
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.config import settings
from v2m.tasks.feature_backbone import OnBackbone
from v2m.tasks.timm_models import model_defaults

OWN_DATA = [name for name in RECIPES if RECIPES[name].config.data != FOLDER]
IMAGENET_IMAGES = 1_281_167


def parsed(*arguments):
    return TrainOptions.parse(Parser("train"), arguments).training


def example(name):
    """A recipe with its own data, or with those that are named by the user."""
    config = RECIPES[name].config
    return config if name in OWN_DATA else replace(config, data="some/folder")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_name_trains(name):
    data = [] if name in OWN_DATA else ["--data", "some/folder"]
    assert vars(parsed("--recipe", name, *data)) == vars(example(name))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_tells_command_score_hardware_and_time(name):
    recipe = RECIPES[name]
    start = f"--data {name}" if name in DATASETS else f"--recipe {name}"
    assert f"v2m train {start}" in recipe.commands[-1]
    assert ("--data FOLDER" in recipe.commands[-1]) == (
        recipe.config.data == FOLDER and recipe.images != "scenes"
    )
    assert recipe.source.startswith("run by us") or recipe.source.endswith(", not run by us")
    assert recipe.expected in ("unknown", NOT_MEASURED) or recipe.expected[0].isdigit()
    for text in (recipe.title, recipe.details, recipe.score_details):
        assert text.endswith(".") or not text
    assert recipe.hardware[-1].isalnum()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_its_model(name):
    config = example(name)
    assert config.model in MODELS
    if config.task != "classification":
        task = find_task(config.task)(find_task(config.task).resolve(config))
        task.classes = [str(i) for i in range(80)]
        with torch.device("meta"):
            assert isinstance(task.build(None), OnBackbone)
        return
    spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
    with torch.device("meta"):
        model = build_classifier(config.model, config.model_args, 1000, spec)
        logits = model(torch.empty(2, spec.in_chans, *spec.img_size))
    assert logits.shape == (2, 1000)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("imagenet")])
def test_learning_rates_of_imagenet_follow_the_epochs(name):
    config = example(name)
    steps = IMAGENET_IMAGES // config.batch_size
    total = config.epochs * steps
    warmup_epochs = {512: 5, 1024: 20}[config.batch_size]
    warmup = int(total * config.schedule.warmup)
    assert warmup == warmup_epochs * steps
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.optimizer.lr)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=total,
        lr_min=config.schedule.min_lr,
        warmup_t=warmup,
        warmup_lr_init=config.schedule.warmup_lr,
        t_in_epochs=False,
    )

    def rate(step):
        schedule.step_update(step)
        return optimizer.param_groups[0]["lr"]

    assert rate(0) == pytest.approx(1e-6)
    assert max(rate(warmup - 1), rate(warmup)) == pytest.approx(config.optimizer.lr, rel=2e-2)
    assert rate(warmup // 2) == pytest.approx((config.optimizer.lr + 1e-6) / 2, rel=1e-3)
    assert rate(total // 2) == pytest.approx((config.optimizer.lr + 1e-5) / 2)
    assert rate(total - 1) == pytest.approx(1e-5)


@pytest.mark.parametrize("epochs", [30, 100, 300])
def test_a_share_of_the_steps_is_whole_epochs(epochs):
    for steps in range(1, 5005):
        assert int(epochs * steps * (5 / epochs)) == 5 * steps


def test_the_papers_settings():
    tiny, small = example("imagenet-tiny"), example("imagenet-small")
    assert (tiny.optimizer.lr, tiny.optimizer.weight_decay, tiny.model_args) == (5e-4, 0.1, {})
    assert (small.optimizer.lr, small.optimizer.weight_decay) == (1e-3, 0.05)
    assert small.model_args == dict(drop_path_rate=0.05)
    for config in (tiny, small):
        assert (config.epochs, config.batch_size, config.ema_decay) == (300, 512, 0.99996)
        assert (config.input.img_size, config.input.crop_pct) == (224, 0.875)
        augment, loss = config.augment, config.loss
        assert (augment.auto_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.3)
        assert (augment.random_erasing, augment.mixup, augment.cutmix) == (0.25, 0.8, 1.0)
        assert (augment.repeats, loss.label_smoothing) == (3, 0.1)
    distill = example("imagenet-distill").distill
    assert timm.is_model_pretrained(distill.teacher)
    assert (distill.kind, distill.weight, distill.temperature) == ("hard", 0.5, 1.0)


@pytest.mark.parametrize("data", [name for name in RECIPES if name in DATASETS])
def test_recipe_of_a_dataset_is_what_its_name_trains(data):
    config = RECIPES[data].config
    assert config.data == data
    assert recipe_of(data) is RECIPES[data]
    assert vars(parsed("--data", data)) == vars(config)
    assert vars(parsed(f"--data={data}")) == vars(config)


@pytest.mark.parametrize("name", RECIPES)
def test_options_go_before_the_recipe(name):
    config = parsed("--recipe", name, "--data", "a", "--model", "resnet18", "--optimizer.lr", "0.5")
    assert (config.data, config.model, config.optimizer.lr) == ("a", "resnet18", 0.5)
    assert config.batch_size == example(name).batch_size
    assert parsed("--recipe", "imagenet-small", "--data", "digits").batch_size == 512


def test_one_argument_of_the_model_can_be_given_beside_the_recipes():
    config = parsed("--recipe", "imagenet-small", "--data", "a", "--model_args.directions", "released")
    assert config.model_args == dict(drop_path_rate=0.05, directions="released")


def test_the_last_name_counts():
    assert parsed("--recipe=digits", "--recipe=fashion-mnist").model == "v2m_micro"


def test_other_data_starts_from_the_general_settings():
    for data in ("some/folder", "imagenet-tiny"):
        assert vars(parsed("--data", data)) == vars(ClassificationConfig(data=data))


def test_a_configuration_file_may_name_a_recipe_or_its_dataset(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("recipe: imagenet-small\ndata: here\noptimizer:\n  lr: 0.5\n")
    config = parsed("--config", str(file), "--epochs", "3")
    assert (config.batch_size, config.epochs, config.optimizer.lr) == (512, 3, 0.5)
    assert (config.optimizer.weight_decay, config.model) == (0.05, "v2m_small_patch16_224")
    assert parsed("--config", str(file), "--recipe", "imagenet-hierarchical-small").batch_size == 1024
    file.write_text("data: fashion-mnist\n")
    assert vars(parsed("--config", str(file))) == vars(example("fashion-mnist"))
    file.write_text("recipe: imagenet-smal\ndata: here\n")
    with pytest.raises(ValueError, match="nearest: imagenet-small, "):
        parsed("--config", str(file))


def test_a_printed_configuration_is_the_recipe_again(tmp_path, capsys):
    arguments = ["--recipe", "imagenet-small", "--data", "here", "--epochs", "3", "--print_config"]
    with pytest.raises(SystemExit):
        parsed(*arguments)
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["batch_size"] == 512
    (tmp_path / "my.yaml").write_text(printed)
    expected = vars(parsed("--recipe", "imagenet-small", "--data", "here", "--epochs", "3"))
    assert vars(parsed("--config", str(tmp_path / "my.yaml"))) == expected


def test_resuming_needs_no_recipe(tmp_path):
    run = RunFolder(tmp_path)
    config = replace(RECIPES["imagenet-small"].config, data="here", output=str(tmp_path))
    run.write_config(config)
    assert vars(parsed("--resume", str(tmp_path))) == vars(config)
    with pytest.raises(ValueError, match="recipe: imagenet-tiny with --resume, expected none"):
        parsed("--resume", str(tmp_path), "--recipe", "imagenet-tiny")


def test_resume_auto_starts_with_the_recipe_and_goes_on_with_the_run(tmp_path):
    again = ["--recipe", "imagenet-small", "--data", "here", "--output", str(tmp_path), "--resume", "auto"]
    first = parsed(*again)
    assert vars(first) == vars(replace(RECIPES["imagenet-small"].config, data="here", output=str(tmp_path)))


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'fashion' is no recipe, nearest: fashion-mnist"):
        find_recipe("fashion")
    with pytest.raises(ValueError, match="nearest: digits, digits-finetune"):
        find_recipe("xyz")


@pytest.mark.parametrize("name", ["digits-distill", "imagenet-small", "scenes-detection"])
def test_options_leave_the_recipe_as_it_is(name):
    before = settings(RECIPES[name].config)
    changed = parsed("--recipe", name, "--data", "here", "--model_args.depth", "7")
    assert changed.model_args["depth"] == 7
    assert settings(RECIPES[name].config) == before
    assert vars(parsed("--recipe", name, "--data", "here")) == vars(
        replace(RECIPES[name].config, data="here")
    )


def test_a_recipe_for_another_task_is_refused():
    assert starting_config("scenes-detection", "detection") == RECIPES["scenes-detection"].config
    with pytest.raises(
        ValueError, match=r"^task: segmentation with --recipe scenes-detection, which is for detection"
    ):
        starting_config("scenes-detection", "segmentation")


def test_a_dataset_of_another_task_starts_from_the_general_settings():
    assert starting_config(data="fashion-mnist").epochs == 15
    assert starting_config(task="segmentation", data="fashion-mnist") == starting_config(task="segmentation")


def test_named_datasets_are_kept_where_the_environment_says_now(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert parsed("--recipe", "fashion-mnist").data_dir == str(tmp_path / "v2m")


def test_a_dataset_chooses_its_task():
    assert starting_config(data="camvid") == RECIPES["camvid"].config
    assert starting_config(task="segmentation", data="camvid") == RECIPES["camvid"].config
    assert starting_config(task="classification", data="camvid") == starting_config()
    assert parsed("--data", "camvid").task == "segmentation"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet", "camvid"])
def test_a_folder_of_the_same_images_is_trained_on_alike(name):
    """What a name knows of its images is in the recipe, so a folder with them needs no further option."""
    recipe = RECIPES[name].config
    named, folder = (
        find_task(recipe.task).resolve(parsed("--recipe", name, "--data", data))
        for data in (name, "some/folder")
    )
    assert vars(folder) == vars(named) | dict(data="some/folder")
    assert named.precision == "fp32"

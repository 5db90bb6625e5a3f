import pytest
import timm

from v2m.cli.parser import build_parser, train_config
from v2m.data import DATASETS
from v2m.engine.config import TrainConfig
from v2m.recipes import RECIPES


def parsed(*arguments):
    arguments = ["train", *arguments]
    parser = build_parser(arguments)
    return train_config(parser.instantiate(parser.parse_args(arguments)).train)


@pytest.mark.parametrize("data", RECIPES)
def test_recipe_of_a_dataset_is_what_its_name_trains(data):
    recipe = RECIPES[data]()
    assert recipe.data == data
    assert data in DATASETS
    assert f"v2m train --data {data}" in RECIPES[data].__doc__
    assert vars(parsed("--data", data)) == vars(recipe)
    assert vars(parsed(f"--data={data}")) == vars(recipe)


@pytest.mark.parametrize("data", RECIPES)
def test_options_go_before_the_recipe(data):
    config = parsed("--data", data, "--model", "resnet18", "--epochs", "1", "--optimizer.lr", "0.5")
    assert (config.model, config.epochs, config.optimizer.lr) == ("resnet18", 1, 0.5)
    assert config.batch_size == RECIPES[data]().batch_size


def test_other_data_starts_from_the_general_settings():
    assert vars(parsed("--data", "some/folder")) == vars(TrainConfig(data="some/folder"))


def test_fashion_mnist_is_small():
    model = timm.create_model(RECIPES["fashion-mnist"]().model, in_chans=1, num_classes=10)
    assert sum(p.numel() for p in model.parameters()) < 2_000_000

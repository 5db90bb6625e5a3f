"""Recipes that were run by us say what their result files say."""

from statistics import mean

import pytest

from tests.documents import figures
from tests.documents.results import read_result, scores
from v2m.recipes import RECIPES


def mean_top1(recipe, runs):
    return f"{100 * mean(read_result('noted_digits')[recipe][runs]):.2f} %"


def on_scenes(study, metrics, seed):
    return [f"{scores(study, 'corners', metric)[seed]:.1f}" for metric in metrics]


SCORES = {
    "digits": [figures.digits()],
    "digits-finetune": [mean_top1("finetune", "pretrained"), mean_top1("finetune", "nothing")],
    "digits-distill": [mean_top1("distill", "teacher"), mean_top1("distill", "nothing")],
    "fashion-mnist": [figures.fashion_mnist()],
    "cifar10": [figures.cifar10_recipe()],
    "camvid": [figures.camvid()],
    "scenes-backbone": [f"{scores('scenes-backbones', 'corners', 'top1')[0]:.2f} %"],
    "scenes-detection": [
        score for seed in (0, 1) for score in on_scenes("scenes-detection", ("box_ap", "mask_ap"), seed)
    ],
    "scenes-segmentation": [
        score for seed in (0, 1) for score in on_scenes("scenes-segmentation", ("miou",), seed)
    ],
}
"""What each recipe expects, and then what else it says of scores, in this order."""


def numbers(text):
    """The numbers of a text with a decimal point, and with percent where it has that."""
    words = text.replace(",", " ").replace(". ", " ").removesuffix(".").split()
    found = [i for i, word in enumerate(words) if "." in word and word.replace(".", "").isdigit()]
    return [f"{words[i]} %" if words[i + 1 : i + 2] == ["%"] else words[i] for i in found]


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].source.startswith("run by us")])
def test_a_recipe_has_the_scores_of_the_result_files(name):
    assert numbers(f"{RECIPES[name].expected} {RECIPES[name].score_details}") == SCORES[name]

import json
import shutil

import pytest
import torch

from tests.cli.test_cli import QUICK, fails
from v2m.cli import main
from v2m.recipes import RECIPES
from v2m.tasks import load_model


def test_the_table_names_every_recipe_and_where_it_is_from(capsys):
    assert main(["recipes"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for name, recipe in RECIPES.items():
        assert recipe.config.model in rows[name]
        for words in (recipe.images, recipe.expected, recipe.source):
            assert words in rows[name]


@pytest.mark.parametrize("name", RECIPES)
def test_one_recipe_is_shown_with_its_settings(name, capsys):
    assert main(["recipes", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == RECIPES[name].title
    assert any(line.startswith("Hardware and time: ") for line in lines)
    options = [line.split()[0] for line in lines if line.startswith("  --")]
    assert options[0] == "--data"
    assert ("--batch_size" in options) == (RECIPES[name].config.batch_size != 32)
    assert lines[-1].endswith(f"v2m train --recipe {name} --print_config")


@pytest.mark.parametrize(
    "arguments", [["recipes", "imagenet-smal"], ["train", "--recipe", "imagenet-smal", "--data", "digits"]]
)
def test_an_unknown_recipe_gets_one_line_with_the_nearest(arguments, capsys):
    code, error = fails(capsys, *arguments)
    assert code == 1
    assert "recipe: 'imagenet-smal' is no recipe, nearest: imagenet-small" in error


def test_a_recipe_that_needs_a_folder_says_so(capsys):
    code, error = fails(capsys, "train", "--recipe", "imagenet-tiny")
    assert code == 2
    assert "data" in error


def test_help_shows_the_recipes_settings(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "imagenet-small", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(type: int, default: 512)" in shown
    assert "Images per step, over all processes." in shown


def test_a_run_is_fine_tuned_at_another_size_and_resumed_without_the_first(image_folder, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    data = ["train", "--data", str(image_folder)]
    assert main([*data, *QUICK, "--output", str(first), "--epochs", "1"]) == 0
    options = ["--pretrained", str(first), "--output", str(second), "--epochs", "1", "--batch_size", "8"]
    options += ["--input.img_size", "16", "--optimizer.layer_decay", "0.5", "--ema_decay", "0"]
    options += ["--optimizer.lr", "1e-9", "--schedule.min_lr", "1e-9", "--schedule.warmup", "0"]
    assert main([*data, *options]) == 0
    before, after = load_model(first).model, load_model(second).model
    assert after.config.depth == before.config.depth == 1
    before.set_input_size(16)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    shutil.rmtree(first)
    assert main(["train", "--resume", str(second), "--epochs", "2"]) == 0
    assert len((second / "metrics.jsonl").read_text().splitlines()) == 2

    code, error = fails(capsys, *data, "--pretrained", str(second), "--model", "v2m_micro")
    assert (code, "holds a v2m_nano, but the model is v2m_micro; give --model v2m_nano" in error) == (1, True)


def test_a_run_is_the_teacher_of_another(image_folder, tmp_path, capsys):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    data = ["train", "--data", str(image_folder), *QUICK]
    assert main([*data, "--output", str(teacher), "--epochs", "1"]) == 0
    weights = (teacher / "model.safetensors").read_bytes()
    options = ["--distill.teacher", str(teacher), "--distill.kind", "feature", "--model_args.embed_dim", "8"]
    assert main([*data, *options, "--epochs", "1", "--output", str(student)]) == 0
    assert load_model(student).model.config.embed_dim == 8
    assert (teacher / "model.safetensors").read_bytes() == weights
    assert main(["train", "--resume", str(student), "--epochs", "2"]) == 0
    rows = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]

    code, error = fails(
        capsys, "train", "--data", "digits", "--distill.teacher", str(teacher), "--model", "v2m_nano"
    )
    assert code == 1
    assert "distill.teacher: " in error
    assert "has 3 classes, the data have 10" in error

import json

import pytest

from tests.studies.test_run import tiny_study, train_here
from v2m.studies.results import StudyResult, results_table, write_results
from v2m.tasks.task import Metric


def result(label, seed, top1):
    return StudyResult(
        label,
        seed,
        parameters=1234,
        epochs=3,
        metrics=dict(val_top1=top1, val_loss=0.5, train_top1=0.9),
        seconds=7.0,
        config={},
    )


def rows(results, about):
    """Cells of the Markdown table."""
    lines = results_table(results, about, [Metric("top1", "accuracy")]).markdown().splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def test_table_has_mean_deviation_and_the_difference_seed_by_seed():
    results = [result("a", 0, 0.90), result("a", 1, 0.94), result("a", 2, 0.92)]
    results += [result("b", 2, 0.93), result("b", 0, 0.89), result("c", 1, 0.95)]
    heading, _, *body = rows(results, dict(a="first", b="second", c="third", d="fourth"))
    assert heading == [
        "variant",
        "what it is",
        "parameters",
        "runs",
        "accuracy (%)",
        "difference to a",
        "pairs",
    ]
    assert body == [
        ["a", "first", "1,234", "3", "92.00 ± 2.00", "-", "-"],
        ["b", "second", "1,234", "2", "91.00 ± 2.83", "+0.00 ± 1.41", "2"],
        ["c", "third", "1,234", "1", "95.00", "+1.00", "1"],
        ["d", "fourth", "-", "0", "-", "-", "0"],
    ]


def test_a_baseline_without_runs_leaves_the_differences_open():
    assert rows([result("b", 0, 0.5)], dict(a="first", b="second"))[-1][-3:] == ["50.00", "-", "0"]


def test_a_result_is_what_the_run_folder_says(image_folder, tmp_path):
    run = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(4,))[1]
    train_here(run)
    found = StudyResult.of(run)
    last = run.folder.read_metrics()[-1]
    assert (found.label, found.seed, found.epochs) == ("wide", 4, 3)
    names = {"train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "val_images"}
    assert found.metrics == {name: last[name] for name in names}
    assert found.seconds == pytest.approx(sum(row["seconds"] for row in run.folder.read_metrics()))
    assert found.config["seed"] == 4
    assert not {"output", "data_dir"} & found.config.keys()
    assert found.parameters > 24 * 16 * 3

    write_results(tmp_path / "results.json", "Widths", [found])
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["study"] == "Widths"
    assert content["runs"][0]["config"]["model_args"]["embed_dim"] == 24

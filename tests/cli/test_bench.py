import json

import pytest
from PIL import Image

from tests.cli.test_cli import fails
from v2m.benchmark import operators
from v2m.benchmark.competitors import COMPETITORS, Competitor, our_scan
from v2m.cli import main

SMALL = ["--batch_size=1", "--rounds=2", "--device=cpu"]
SCANS = ["--channels=4", "--states=2", *SMALL]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "results"


def results(output):
    (path,) = output.glob("*.json")
    return json.loads(path.read_text())


def test_operators_prints_tables_and_keeps_results(output, tmp_path, capsys):
    arguments = ["--competitors", "lean_loop", "ours", "--grids", "2", "4", "--memory=false"]
    options = ["--output", str(output), "--plot", str(tmp_path / "plot.png")]
    assert main(["bench", "operators", *arguments, *options, *SCANS]) == 0
    out = capsys.readouterr().out
    for title in ("forward, 2x2 tokens, batch 1", "forward + backward, 4x4 tokens, batch 1"):
        assert title in out
    content = results(output)
    assert content["topic"] == "operators"
    assert content["settings"]["grids"] == [2, 4]
    assert [row["competitor"] for row in content["rows"]] == ["lean_loop", "ours"] * 4
    assert content["rows"][0]["ratio"] == 1
    assert all(row["timing"]["median"] > 0 for row in content["rows"])
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size > (600, 300)


def test_models_prints_tables_and_keeps_results(output, capsys):
    ours = ["v2m_nano:depth=1,embed_dim=8", "v2m_nano:depth=1,embed_dim=8,directions=corners_rows_first"]
    options = ["--resolutions", "8", "--memory=false", "--output", str(output)]
    assert main(["bench", "models", "--models", *ours, *options, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "training step, 8 px, batch 1" in out
    assert f"results: {output}" in out
    assert [row["model"] for row in results(output)["rows"]] == ours * 2


def test_roofline_prints_ceilings_and_kernels(output, capsys):
    assert main(["bench", "roofline", "--grid=3", "--output", str(output), *SCANS]) == 0
    out = capsys.readouterr().out
    assert "Gexp/s" in out
    for row in results(output)["rows"]:
        assert row["kernel"] in out
        assert row["ceilings"]["flops"] > 0


def test_a_wrong_competitor_is_shown_and_makes_the_command_fail(output, capsys, monkeypatch):
    monkeypatch.setitem(COMPETITORS, "other", Competitor(lambda scan: our_scan(scan) + 1))
    arguments = ["--competitors", "ours", "other", "--grids=2", "--memory=false", "--output", str(output)]
    assert main(["bench", "operators", *arguments, *SCANS]) == 1
    assert "wrong: the error is above" in capsys.readouterr().out
    assert results(output)["rows"][1]["timing"] is None


def test_ctrl_c_keeps_what_was_measured(output, capsys, monkeypatch):
    scans = operators.bench_operators

    def interrupted(*arguments):
        yield next(scans(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(operators, "bench_operators", interrupted)
    arguments = ["--competitors", "ours", "--grids=2", "--memory=false", "--output", str(output)]
    assert main(["bench", "operators", *arguments, *SCANS]) == 130
    out, error = capsys.readouterr()
    assert error == "v2m: stopped\n"
    assert f"results: {output}" in out
    assert [row["mode"] for row in results(output)["rows"]] == ["forward"]


def test_list_counts_operations(capsys):
    assert main(["list", "*nano*", "--flops"]) == 0
    out = capsys.readouterr().out
    heading, row = out.splitlines()[:2]
    assert "GFLOPs" in heading
    assert row.split()[2:4] == ["0.12", "0.08"]
    assert "9 per token, channel and state" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["operators", "--competitors", "lean_lop"], 1, ["'lean_lop' is unknown, nearest: lean_loop"]),
        (["operators", "--competitors", "mamba_ssm"], 1, ["mamba_ssm needs a CUDA GPU"]),
        (["operators", "--grids", "0"], 2, ["grids", "0"]),
        (["operators", "--grid", "14"], 2, ["did you mean --grids?"]),
        (["operators", "--rounds", "-1"], 2, ["rounds", "-1"]),
        (["models", "--models", "v2m_nanno"], 1, ["'v2m_nanno' is no model, nearest: v2m_nano"]),
        (["models", "--models", "v2m_nano:depth=0"], 1, ["depth is 0"]),
        (["models", "--dtype", "int8"], 2, ["dtype", "int8"]),
        (["modles"], 2, ["did you mean 'models'?"]),
        ([], 2, ["operators", "models", "roofline"]),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(capsys, output, arguments, code, words):
    options = ["--device=cpu", "--output", str(output)] if arguments[1:] else []
    got, error = fails(capsys, "bench", *arguments, *options)
    assert got == code
    for word in words:
        assert word in error
    assert not output.exists()

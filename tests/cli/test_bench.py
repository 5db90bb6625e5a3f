import json
from dataclasses import replace

import pytest
from PIL import Image

from tests.cli.test_cli import fails
from v2m.benchmark import comparison, operators
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


def test_nothing_is_written_unasked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "operators", "--competitors=ours", "--grids=2", "--memory=false", *SCANS]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "nothing was written: --output FILE.json or --output FOLDER keeps results"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_named_or_not_replaced(tmp_path, capsys):
    path = tmp_path / "mine.json"
    arguments = ["operators", "--competitors=ours", "--grids=2", "--memory=false", "--output", str(path)]
    assert main(["bench", *arguments, *SCANS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"results: {path}"
    assert json.loads(path.read_text())["rows"][0]["competitor"] == "ours"
    before = path.read_bytes()
    code, error = fails(capsys, "bench", *arguments, *SCANS)
    assert code == 1
    assert f"--output: {path} is there already" in error
    assert path.read_bytes() == before


OURS, THEIRS = "v2m_nano:depth=1,embed_dim=8", "resnet18"
COMPARE = ["--resolutions=32", "--batch_size=2", "--rounds=1", "--device=cpu"]


def measured_models(path):
    return [row["model"] for row in json.loads(path.read_text())["rows"]]


def test_a_comparison_that_is_stopped_has_kept_what_was_measured(tmp_path, capsys, monkeypatch):
    path = tmp_path / "comparison.json"

    def measure(model, settings):
        if model.model == THEIRS:
            raise KeyboardInterrupt
        return replace(model, note="not now")

    monkeypatch.setattr(comparison, "measure", measure)
    assert main(["bench", "compare", *COMPARE, "--models", OURS, THEIRS, "--output", str(path)]) == 130
    out, error = capsys.readouterr()
    assert error.endswith("v2m: stopped\n")
    assert f"{OURS}: not now" in out
    assert f"results: {path}" in out
    assert measured_models(path) == [OURS]


@pytest.mark.slow
def test_a_comparison_goes_on_with_its_file_and_is_drawn(tmp_path, capsys, monkeypatch):
    path, plot = tmp_path / "comparison.json", tmp_path / "speed.png"
    arguments = ["bench", "compare", *COMPARE, "--output", str(path)]
    assert main([*arguments, "--models", THEIRS]) == 0
    assert measured_models(path) == [THEIRS]
    first = json.loads(path.read_text())["rows"]
    measured, measure = [], comparison.measure

    def noting(model, settings):
        measured.append(model.model)
        return measure(model, settings)

    monkeypatch.setattr(comparison, "measure", noting)
    capsys.readouterr()
    assert main([*arguments, "--models", THEIRS, OURS, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert measured == [OURS]
    assert json.loads(path.read_text())["rows"][:1] == first
    assert out.index("32 px, up to 9 M parameters") < out.index("32 px, 9 to 16 M parameters")
    row = next(line for line in out.splitlines() if line.startswith(THEIRS))
    assert "11.7 M" in row
    assert "GMACs: 1e9 operations for one image" in out
    with Image.open(plot) as image:
        assert image.size > (1000, 600)
    code, error = fails(capsys, *arguments, "--models", OURS, "--limit", "5")
    assert code == 1
    assert f"--output: {path} is of limit 120.0, here it is 5.0: name another file" in error


def test_a_repetition_is_beside_its_file(tmp_path, capsys):
    path, new = tmp_path / "old.json", tmp_path / "new.json"
    options = ["--resolutions=16", "--memory=false", "--output", str(path), *SMALL]
    assert main(["bench", "models", "--models", OURS, "v2m_nano:depth=2,embed_dim=8", *options]) == 0
    content = json.loads(path.read_text())
    for row in content["rows"]:
        row["images_per_s"] = 12345.0
    # Files of before know less of the machine.
    for name in ("kernel_instructions", "caches", "threads_per_core"):
        del content["hardware"][name]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["bench", "repeat", str(path), "--rounds=1", "--device=cpu", "--output", str(new)]) == 0
    out = capsys.readouterr().out
    assert f"beside {path}: {content['hardware']['cpu']}" in out
    assert out.count("12,345.00") == 4
    again = json.loads(new.read_text())
    assert [row["model"] for row in again["rows"]] == [row["model"] for row in content["rows"]]
    assert again["settings"]["rounds"] == 1
    assert again["settings"]["resolutions"] == [16]


def test_a_file_that_is_no_result_is_not_repeated(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text("[1]")
    code, error = fails(capsys, "bench", "repeat", str(path))
    assert code == 1
    assert f"{path} is no file of results that v2m bench wrote" in error
    path.write_text(json.dumps(dict(topic="operators", hardware={}, settings={}, rows=[])))
    assert (
        f"{path} has results of operators, expected models" in fails(capsys, "bench", "repeat", str(path))[1]
    )


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
        (["compare", "--limit", "0"], 2, ["limit", "0"]),
        (["compare", "--models", "v2m_nano:depht=1"], 1, ["models", "v2m_nano:depht=1", "depht"]),
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

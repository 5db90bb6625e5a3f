"""Whatever goes wrong, a command says so in one line."""

import errno
import io
import json
import logging
import os
import shlex
import subprocess
import sys
import warnings

import pytest
import torch

from tests.cli.test_cli import QUICK, fails, run  # noqa: F401 - a fixture
from v2m.cli import list as list_command
from v2m.cli import main
from v2m.cli.list import ListOptions

LIST = ["list", "no model of this name"]


def raising(monkeypatch, error):
    def fail(options: ListOptions):
        raise error

    monkeypatch.setattr(list_command, "run", fail)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"), "CUDA out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
            "can't allocate memory",
        ),
        (RuntimeError("std::bad_alloc"), "bad_alloc"),
        (MemoryError(), "MemoryError"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate"),
    ],
)
def test_no_memory_is_one_line_with_advice(monkeypatch, capsys, error, words):
    raising(monkeypatch, error)
    code, text = fails(capsys, *LIST)
    assert code == 1
    assert text.startswith("v2m: error: this process is out of memory (")
    assert words in text
    assert text.endswith("try a smaller --batch_size, or more --accumulate in training\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            MemoryError(
                "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback:\nMemoryError"
            ),
            "a process that reads images is out of memory (MemoryError); try fewer --workers",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            "a process that reads images was killed, often for want of memory (DataLoader worker (pid(s) 7) "
            "exited unexpectedly); try fewer --workers; what was saved is kept "
            "(v2m train goes on with --resume)",
        ),
        (OSError(errno.EROFS, "Read-only file system", "a\nb"), "a\\nb: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_errors_of_the_system_are_one_line(monkeypatch, capsys, error, text):
    raising(monkeypatch, error)
    assert fails(capsys, *LIST) == (1, f"v2m: error: {text}\n")


def test_other_errors_are_faults_of_the_code_and_keep_their_traceback(monkeypatch):
    raising(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main(LIST)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"data: [digits\nepochs: {\n", "holds no settings (line 2: "),
        (b"data: digits\n\tepochs: 3\n", "holds no settings (line 2: "),
        (b"\x98\x00\xff", "holds no settings ('utf-8' codec"),
        (b"", "holds no settings (no settings"),
    ],
)
def test_configuration_files_that_cannot_be_read_are_named(tmp_path, capsys, content, words):
    path = tmp_path / "my.yaml"
    if content is not None:
        path.write_bytes(content)
    code, text = fails(capsys, "train", "--config", str(path))
    assert code == 2
    assert text.startswith(f"v2m: error: --config: {path} {words}")


def test_a_damaged_configuration_of_a_run_is_named(run, capsys):  # noqa: F811
    (run / "train.yaml").write_text("[1, {")
    for arguments in (["train", "--resume", str(run)], ["eval", str(run)]):
        code, text = fails(capsys, *arguments)
        assert code == 1
        assert text.startswith(f"v2m: error: {run}/train.yaml is damaged (line ")


def test_eval_prints_its_scores_even_if_the_pictures_cannot_be_written(run, tmp_path, capsys):  # noqa: F811
    (tmp_path / "file").write_text("")
    assert main(["eval", str(run), "--output", str(tmp_path / "file" / "below")]) == 1
    captured = capsys.readouterr()
    assert "validation accuracy" in captured.out
    assert captured.err == f"v2m: error: {tmp_path}/file/below: Not a directory\n"


def test_names_with_line_breaks_stay_on_their_line(run, image_folder, capsys):  # noqa: F811
    folder = image_folder / "val" / "red"
    (folder / "0.png").rename(folder / "a\nb.png")
    (folder / "c\nd.png").write_text("no image")
    assert main(["predict", str(run), str(folder)]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert f"{folder}/a\\nb.png\t" in captured.out
    assert captured.err.splitlines()[2:] == [
        f"v2m: error: {folder}/c\\nd.png: not a readable image (empty, or of no known format)"
    ]


def test_training_goes_on_where_nobody_reads_its_output_any_more(image_folder, tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", "--data", str(image_folder), "--output", str(folder), *QUICK]
    command = shlex.join([sys.executable, "-m", "v2m", *arguments])
    closed = subprocess.run(f"{command} | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash")
    assert closed.returncode == 0
    assert (folder / "predictions.png").is_file()


def test_libraries_warn_in_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main(["list", "v2m_nano"]) == 0
    text = warnings.formatwarning(UserWarning("too many\n  workers"), UserWarning, "/some/library.py", 12)
    assert text == "warning: too many workers\n"


def test_retries_of_the_hub_are_not_printed_but_waiting_is(caplog, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main(["list", "v2m_nano"]) == 0
    for message in (
        "'[Errno -2] Name or service not known' thrown while requesting HEAD https://huggingface.co/timm",
        "Retrying in 1s [Retry 1/5].",
        "Rate limited. Waiting 60s before retry [Retry 1/5].",
    ):
        logging.getLogger("huggingface_hub.utils._http").warning(message)
    assert [record.getMessage()[:12] for record in caplog.records] == ["Rate limited"]


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_one_line(tmp_path):
    arguments = ["embed", "timm/resnet18", "digits", "--out", str(tmp_path / "features.npz")]
    here = os.environ | dict(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "v2m", *arguments], env=here, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 1
    *told, line = done.stderr.splitlines()
    assert [text.split()[0] for text in told] == ["embedding"]
    assert line.startswith("v2m: error: pretrained: timm's weights of resnet18 cannot be loaded (")


def test_a_closed_output_is_no_error():
    closed = subprocess.run(
        f"{sys.executable} -m v2m recipes >&-", shell=True, stderr=subprocess.PIPE, text=True
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_the_commands_to_go_on_with_are_there_and_quoted_for_a_shell(
    image_folder, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / 'a "run" $HOME'
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a bin" / "python3"))  # with no v2m beside it
    assert main(["train", "--data", str(image_folder), "--output", str(folder), *QUICK, "--epochs=1"]) == 0
    out = capsys.readouterr().out
    words = [shlex.split(line) for line in out.partition("Try next:\n")[2].splitlines()]
    load = f"import timm, v2m; timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
    assert words[0] == ["a bin/python3", "-m", "v2m", "eval", str(folder)]
    assert words[-2] == ["a bin/python3", "-m", "v2m", "predict", str(folder), "IMAGE_OR_FOLDER"]
    assert words[-1] == ["a bin/python3", "-c", load]


def test_names_of_any_bytes_can_be_checked(image_folder, tmp_path, monkeypatch):
    folder = os.fsencode(image_folder / "val" / "red")
    with open(folder + b"/\xe9.png", "wb") as file:
        file.write(b"no image")
    output = tmp_path / "check"
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    assert main(["data", "check", str(image_folder), "--output", str(output), "--workers=0"]) == 1
    sys.stdout.flush()
    assert folder + rb"/\udce9.png" in printed.getvalue()
    (row,) = map(json.loads, (output / "problems.jsonl").read_text().splitlines())
    assert row["image"] == os.fsdecode(folder + b"/\xe9.png")

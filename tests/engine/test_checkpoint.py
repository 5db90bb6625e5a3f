import hashlib
import io
import os
import zipfile

import pytest
import torch

from v2m.engine.checkpoint import DAMAGED, Checkpoints, read_checkpoint


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep_last=3)


def nothing_to_warn_of(text):
    raise AssertionError(text)


def test_the_last_ones_are_kept(checkpoints):
    for epoch, step in ((1, 7), (1, 10), (2, 0), (2, 5)):
        checkpoints.save(epoch, step, dict(epoch=epoch, step=step))
    assert [read_checkpoint(path) for path in checkpoints.paths] == [
        dict(epoch=2, step=5), dict(epoch=2, step=0), dict(epoch=1, step=10)
    ]  # fmt: skip
    assert checkpoints.last_whole(nothing_to_warn_of).path == checkpoints.paths[0]
    assert checkpoints.paths[0].name.startswith("epoch-00002-step-0000005-")


def test_tensors_come_back(checkpoints):
    state = dict(model={"a.weight": torch.randn(3, 4)}, history=[dict(loss=0.5)], ema=None)
    restored = read_checkpoint(checkpoints.save(1, 0, state))
    assert torch.equal(restored["model"]["a.weight"], state["model"]["a.weight"])
    assert restored["history"] == state["history"]


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_damage_is_told_and_the_one_before_is_used(checkpoints, damage):
    for step in (1, 2):
        checkpoints.save(1, step, dict(weights=torch.randn(1000)))
    last, before = checkpoints.paths
    damage(last)
    warnings = []
    assert checkpoints.last_whole(warnings.append).path == before
    (warning,) = warnings
    assert warning.startswith(f"{last} is damaged")
    assert warning.endswith(f"going on from the one before, {before.name}")
    assert last.with_name(last.name + DAMAGED).is_file()
    assert checkpoints.last_whole(nothing_to_warn_of).path == before


def test_nothing_whole_is_an_error(checkpoints):
    with pytest.raises(FileNotFoundError, match="has no checkpoint; nothing was saved there yet"):
        checkpoints.last_whole(nothing_to_warn_of)
    flip_a_bit(checkpoints.save(1, 1, dict(epoch=1)))
    with pytest.raises(OSError, match=r"no checkpoint in .*checkpoints is whole"):
        checkpoints.last_whole(lambda text: None)


def test_an_interrupted_write_leaves_the_last_one(checkpoints, monkeypatch):
    checkpoints.save(1, 1, dict(epoch=1))

    def stop_half_way(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(1, 2, dict(epoch=1))
    assert [read_checkpoint(path) for path in checkpoints.folder.iterdir()] == [dict(epoch=1)]


def test_what_a_killed_process_left_is_no_checkpoint(checkpoints):
    checkpoints.save(1, 1, dict(epoch=1))
    left = checkpoints.folder / ".checkpoint-0123456789abcdef.partial"
    left.write_bytes(b"half")
    assert len(checkpoints.paths) == 1
    checkpoints.save(1, 2, dict(epoch=1))
    assert {path.suffix for path in checkpoints.folder.iterdir()} == {".pt"}


def test_code_is_not_run(checkpoints, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").write_text, ("",)

    path = checkpoints.save(1, 1, dict(trap=Trap()))
    with pytest.raises(OSError, match="cannot be read"):
        read_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_checkpoints_that_were_found_damaged_are_not_forgotten(checkpoints):
    damaged = checkpoints.save(1, 1, dict(epoch=1))
    cut_short(damaged)
    for _ in range(2):
        with pytest.raises(OSError, match=r"is whole; what they hold is in \*.damaged. .* --pretrained "):
            checkpoints.last_whole(lambda text: None)
    assert checkpoints.damaged == [damaged.with_name(damaged.name + DAMAGED)]


def plant(checkpoints, content, step=2):
    """A file under the name that a checkpoint with this content has."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = checkpoints.folder / f"epoch-00001-step-{step:07d}-{digest}.pt"
    path.write_bytes(content)
    return path


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def rewritten(content, compression=zipfile.ZIP_STORED, change=lambda pickle: pickle):
    """The archive again, with another compression or pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item.filename, change(data) if item.filename.endswith(".pkl") else data)
    return file.getvalue()


WEIGHTS = saved(dict(weights=torch.zeros(4)))
UNREADABLE = dict(
    empty=b"",
    text=b"no checkpoint",
    compressed=rewritten(saved(dict(weights=torch.zeros(2**20))), zipfile.ZIP_DEFLATED),
    prefixed=b"#" + WEIGHTS,
    call=rewritten(WEIGHTS, change=lambda _: b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x10\x00\x85R."),
    tensor=rewritten(WEIGHTS, change=lambda _: b"\x80\x02ctorch\nTensor\nJ\x00\x00\x10\x00\x85R."),
    large=rewritten(WEIGHTS, change=lambda old: old.replace(b"K\x04\x85", b"J\x00\x00\x10\x00\x85")),
    longer=rewritten(
        WEIGHTS, change=lambda old: old.replace(b"K\x04\x85", b"K\x40\x85").replace(b"K\x04t", b"K\x40t")
    ),
    noise=rewritten(WEIGHTS, change=lambda _: b"\x80\x02\xff"),
    old=b"\x80\x02}q\x00.",
)


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_told_and_the_one_before_is_used(checkpoints, content):
    before = checkpoints.save(1, 1, dict(epoch=1))
    last = plant(checkpoints, content)
    with pytest.raises(OSError, match=rf"^resume: {last} cannot be read \(.*\)$"):
        read_checkpoint(last)
    warnings = []
    assert checkpoints.last_whole(warnings.append).path == before
    (warning,) = warnings
    assert warning.startswith(f"{last} is damaged, it cannot be read (")
    assert "\n" not in warning
    assert last.with_name(last.name + DAMAGED).is_file()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_checkpoint(checkpoints, make):
    before = checkpoints.save(1, 1, dict(epoch=1))
    make(checkpoints.folder / "epoch-00001-step-0000002-0123456789abcdef.pt")
    warnings = []
    assert checkpoints.last_whole(warnings.append).path == before
    assert "is damaged, it is no regular file (" in warnings[0]


def test_states_that_are_none_are_told_and_the_one_before_is_used(checkpoints):
    def check(state):
        if state.get("epoch") != 1:
            raise ValueError("holds no epoch")

    before = checkpoints.save(1, 1, dict(epoch=1))
    last = checkpoints.save(1, 2, {})
    warnings = []
    assert checkpoints.last_whole(warnings.append, check).path == before
    assert warnings[0].startswith(f"{last} is damaged, it holds no epoch (it is {last.name}.damaged now)")


def test_old_checkpoints_that_are_links_go_without_what_they_link_to(checkpoints, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    checkpoints.folder.mkdir()
    for step in range(4):
        (checkpoints.folder / f"epoch-00001-step-{step:07d}-0123456789abcdef.pt").symlink_to(victim)
    (checkpoints.folder / f".checkpoint-{1:016}.partial").symlink_to(victim)
    checkpoints.save(2, 0, dict(epoch=2))
    assert len(list(checkpoints.folder.iterdir())) == 3
    assert victim.read_text() == "precious"

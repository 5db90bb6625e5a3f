import pytest
import torch

from v2m.engine.checkpoint import DAMAGED, PARTIAL, Checkpoints, read_checkpoint


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
    assert checkpoints.last_whole(nothing_to_warn_of) == checkpoints.paths[0]
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
    assert checkpoints.last_whole(warnings.append) == before
    (warning,) = warnings
    assert warning.startswith(f"{last} is damaged")
    assert warning.endswith(f"going on from the one before, {before.name}")
    assert last.with_name(last.name + DAMAGED).is_file()
    assert checkpoints.last_whole(nothing_to_warn_of) == before


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
    (checkpoints.folder / PARTIAL).write_bytes(b"half")
    assert len(checkpoints.paths) == 1
    checkpoints.save(1, 2, dict(epoch=1))
    assert not (checkpoints.folder / PARTIAL).exists()


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

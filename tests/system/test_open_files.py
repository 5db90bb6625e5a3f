"""Where the system lets a process open few files only."""

import multiprocessing

import pytest
import torch

from v2m.data import read_image
from v2m.data.loading import EvalLoader, collate_lists
from v2m.system.open_files import reserve_files

resource = pytest.importorskip("resource")


def in_process(answers, limit, function, arguments):
    """Put what a function returns or raises where few files can be opened."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 64), limit))
    try:
        answers.send(function(*arguments))
    except Exception as error:
        answers.send(f"{type(error).__name__}: {error}")


def limited(limit, function, *arguments):
    """The answer of a process of its own, as lowering a limit is for good."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=in_process, args=(sender, limit, function, arguments))
    process.start()
    sender.close()
    assert receiver.poll(60), "it hangs"
    answer = receiver.recv()
    process.join()
    return answer


def reserve_and_tell(workers):
    reserve_files(workers)
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def test_the_limit_is_raised_where_the_system_allows_it():
    assert limited(512, reserve_and_tell, 8) == (512, 512)
    assert limited(512, reserve_and_tell, 0) == (64, 512)
    text = limited(100, reserve_and_tell, 8)
    assert text.startswith("ValueError: workers: 8 processes that read images need some ")
    assert text.endswith("the limit is 100; raise it (ulimit -n 1024), or give fewer --workers")


def read_without_files(path):
    files = []
    try:
        while True:
            files.append(open("/dev/null"))  # noqa: SIM115
    except OSError:
        return read_image(path)


def test_an_image_that_cannot_be_opened_for_that_is_not_called_unreadable(image_folder):
    text = limited(64, read_without_files, image_folder / "val" / "blue" / "0.png")
    assert text.startswith("OSError: [Errno 24] Too many open files")


class Images:
    """Images that travel as two files each."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        return torch.ones(1), torch.ones(1)


def count_images():
    loader = EvalLoader(Images(), 200, workers=1, collate=collate_lists)
    return sum(len(batch.images) for batch in loader)


def test_a_batch_that_cannot_be_handed_over_is_not_waited_for(capfd):
    text = limited(128, count_images)
    assert text.startswith("RuntimeError: ")
    assert "Too many open files" in text + capfd.readouterr().err
    assert limited(4096, count_images) == 400

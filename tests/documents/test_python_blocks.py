"""The Python of every document runs, and prints what it says."""

import pytest

from tests.documents.blocks import PAGES, find_blocks, read_page
from tests.documents.python_blocks import run_block, run_page
from tests.documents.things import make_things

BLOCKS = {
    page: blocks
    for page in PAGES
    if (blocks := [block for block in find_blocks(page, read_page(page)) if block.language == "python"])
}


@pytest.mark.filterwarnings("ignore")  # of neighbouring packages
@pytest.mark.parametrize("page", BLOCKS)
def test_python_of_documents_runs(page, tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    make_things(tmp_path, "\n".join(block.text for block in BLOCKS[page]), kept)
    if left_out := run_page(BLOCKS[page]):
        pytest.skip("; ".join(left_out))


def test_something_else_than_the_comment_says_is_caught():
    run_block("x = 1\nprint(x)  # 1\nprint([x,\n  2])\n# [1,\n#  2]\n", "page", {})
    run_block("print(0.123456)  # 0.12...\nprint(3)\ny = 2  # no output\n", "page", {})
    for wrong in ("print(1)  # 2", "print(1)\n# 1\n# 2", "\nprint('a # b')  # a"):
        with pytest.raises(AssertionError, match=r"page, line . of the block prints"):
            run_block(wrong, "page", {})


def test_a_name_that_no_block_defines_is_caught():
    with pytest.raises(NameError, match="model"):
        run_block("print(model)", "page", {})

"""A few cases of every target, and that what is wrong is noticed; ``python -m tests.fuzz`` runs many."""

import pytest

from tests.fuzz.runner import Case, run_cases
from tests.fuzz.targets import TARGETS

CASES, SLOW_CASES = 6, 40


@pytest.fixture(scope="module")
def quick():
    """The results of some cases of every target, in one process."""
    return run_cases([Case(target, "quick", number) for target in TARGETS for number in range(CASES)])


@pytest.mark.parametrize("target", TARGETS)
def test_changed_files_are_read_or_refused_in_a_line(quick, target):
    found = [result for result in quick if result.case.target == target]
    assert len(found) == CASES
    assert not [result for result in found if result.outcome == "wrong"]
    assert found[0].outcome == "passed", "these files are as they were made"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_changed_files_are_read_or_refused_in_a_line(target):
    found = run_cases([Case(target, "slow", number) for number in range(SLOW_CASES)])
    assert not [result for result in found if result.outcome == "wrong"]

import pytest
import torch

from v2m.benchmark.timing import Timing, time_in_turns, timed

CPU = torch.device("cpu")


def test_calls_take_turns_after_a_round_that_warms_up():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    timings = time_in_turns(calls, rounds=2, device=CPU)
    assert order == list("abc") * 3
    assert list(timings) == list("abc")
    assert all(0 < t.low <= t.median <= t.high for t in timings.values())


def test_progress_is_told_of_every_call():
    seen = []

    def track(items, what, total):
        for item in items:
            yield item
            seen.append((item, what, total))

    time_in_turns({"a": int, "b": int}, rounds=3, device=CPU, track=track)
    assert seen == [("a", "timing: call", 8), ("b", "timing: call", 8)] * 4


def test_median_and_quartiles():
    timing = Timing.of([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (timing.low, timing.median, timing.high) == (2.0, 3.0, 4.0)
    assert Timing.of([7.0]) == Timing(7.0, 7.0, 7.0)


def test_a_timed_call_gives_its_result():
    result, seconds = timed(lambda: "result", CPU)
    assert result == "result"
    assert seconds > 0


def test_no_calls():
    assert time_in_turns({}, rounds=3, device=CPU) == {}


def test_a_call_that_fails_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        time_in_turns({"a": lambda: 1 / 0}, rounds=1, device=CPU)

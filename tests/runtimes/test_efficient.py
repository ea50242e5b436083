"""How many threads are enough: the fewest of nearly the best speed, whatever else runs meanwhile."""

from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from speaking import builtin, generate

from pilotlight.runtimes.efficient import Efficiency, candidates, find


def never() -> bool:
    return False


def saturating(enough: int) -> Callable[[int], float]:
    """Seconds per token of a machine whose memory is busy with so many threads."""
    return lambda threads: 1 / min(threads, enough)


def test_two_numbers_in_each_doubling_are_tried() -> None:
    """And all that there are, the most first."""
    assert candidates(1) == [1]
    assert candidates(2) == [2, 1]
    assert candidates(10) == [10, 8, 6, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("most", "enough", "found"), [(8, 8, 8), (8, 5, 6), (8, 2, 2), (24, 6, 6), (1, 1, 1)]
)
def test_the_fewest_that_are_nearly_as_fast(most: int, enough: int, found: int) -> None:
    """Of those that are tried."""
    assert find(most, saturating(enough), never) == found


def test_more_threads_may_be_slower() -> None:
    """As where some cores are small; the best speed is then not that of the most."""
    assert find(8, lambda threads: [0.0, 4, 2.1, 2.0, 2, 2.4, 2.6, 2.8, 3.0][threads], never) == 2


def test_what_disturbs_a_block_now_and_then_changes_nothing() -> None:
    """Each number has its fastest ones."""
    for seed in range(20):
        random = Random(seed)

        def block(threads: int, random: Random = random) -> float:
            return saturating(4)(threads) * (random.uniform(1.5, 4) if random.random() < 0.2 else 1.0)

        assert find(8, block, never) == 4


def test_more_threads_than_cores_may_be_erratic() -> None:
    """That they are slower is all that matters."""
    random = Random(2)

    def block(threads: int) -> float:
        return saturating(2)(threads) * (1.0 if threads <= 2 else random.uniform(1.3, 3))

    assert find(4, block, never) == 2


def test_on_a_machine_that_is_never_quiet_nothing_comes_out() -> None:
    """Rather than something wrong."""
    random, blocks = Random(1), iter(range(200))
    assert find(8, lambda _: random.lognormvariate(0, 2), lambda: next(blocks, None) is None) is None


def test_a_hopeless_number_is_not_tried_again() -> None:
    """One thread of a large model takes seconds per token."""
    tried: list[int] = []

    def block(threads: int) -> float:
        tried.append(threads)
        return saturating(8)(threads)

    assert find(8, block, never) == 8
    assert tried.count(1) == tried.count(2) == 0


def test_measuring_leaves_everything_as_it_was() -> None:
    """What was computed of a conversation is there afterwards, and the threads are as many as before."""
    bench = builtin("llamacpp")
    runtime, ticks = bench.runtime, count()
    bench.answer(generate("one two three four", max_tokens=4))
    efficiency = Efficiency(runtime._decoder, runtime._memory, lambda: next(ticks) / 100)
    assert efficiency.measure(4, never) == 1, "by that clock all are equally fast"
    assert efficiency.measure(4, lambda: True) == 0
    assert runtime.state().fault is None
    assert bench.answer(generate("one two three four", max_tokens=4)).end.cached_tokens > 0
    assert (runtime.enough_threads(never), runtime.state().threads) == (1, 1)


def test_nothing_is_measured_while_something_runs() -> None:
    """It would be in the way."""
    bench = builtin("llamacpp")
    bench.start(generate("one two three", max_tokens=4))
    assert bench.runtime.enough_threads(never) == 0
    bench.finish()

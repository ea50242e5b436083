"""Workers that go because their memory is wanted."""

import pytest
from anyio import wait_all_tasks_blocked as settle
from loop_bench import Bench

from pilotlight.core import WorkerState
from pilotlight.registry.pressure import Level
from pilotlight.scheduler import books, scheduler
from pilotlight.worker.protocol import Trim


async def test_pressure_is_a_notice_as_long_as_it_lasts(bench: Bench) -> None:
    """Workers are told to forget; when it is critical, idle ones go."""
    await bench.loop.load("b")
    bench.loop.press(Level.WARN)
    assert bench.codes() == ["memory_pressure"]
    await settle()
    assert Trim() in bench.worker.sent
    assert bench.loop.status()[1].state is WorkerState.READY
    bench.loop.press(Level.CRITICAL)
    await settle()
    assert bench.loop.status()[1].evictions == {"pressure": 1}
    assert bench.loop.status()[1].state is WorkerState.STOPPED
    bench.loop.press(Level.NONE)
    assert bench.codes() == []


async def evicted(bench: Bench, level: Level = Level.NONE) -> None:
    """A worker that has something to save is told to go."""
    await bench.loop.load("a")
    await settle()
    bench.worker.can_save = True
    if level is Level.NONE:
        bench.loop._unload("a")
    else:
        bench.loop.press(level)
    await settle()


async def test_a_worker_that_goes_saves_its_conversations_first(bench: Bench) -> None:
    """Then its end is no failure, and the next one may come."""
    await evicted(bench)
    assert not bench.worker.is_stopped
    assert bench.loop.status()[0].state is WorkerState.STOPPING
    bench.worker.save(2)
    await settle()
    status = bench.loop.status()[0]
    assert bench.worker.is_stopped
    assert (status.state, status.saved, status.restarts, bench.codes()) == (WorkerState.STOPPED, 2, 0, [])


async def test_one_that_does_not_end_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for its memory."""
    monkeypatch.setattr(books, "SAVE_S", 0.0)
    monkeypatch.setattr(books, "SAVE_LATE_S", 0.0)
    await bench.loop.load("a")
    bench.worker.can_save = True
    await bench.loop.unload("a")
    assert bench.worker.is_finishing
    assert bench.worker.is_stopped
    assert bench.loop.status()[0].state is WorkerState.STOPPED


async def test_when_memory_is_short_it_saves_and_when_there_is_none_it_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A critical machine gets its memory back at once."""
    monkeypatch.setattr(scheduler, "TRIM_S", 0.0)
    await evicted(bench, Level.WARN)
    assert not bench.worker.is_finishing, "at first it only forgets"
    bench.loop.press(Level.WARN)
    await settle()
    assert bench.worker.is_finishing
    bench.worker.save(1)
    bench.loop.press(Level.NONE)
    await settle()
    await evicted(bench, Level.CRITICAL)
    assert not bench.worker.is_finishing
    assert bench.worker.is_stopped

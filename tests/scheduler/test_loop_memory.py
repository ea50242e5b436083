"""Workers that go because their memory is wanted."""

from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked as settle
from fake_effects import request
from fake_worker import model
from loop_bench import Bench, done
from msgspec.structs import replace

from pilotlight.core import WorkerState
from pilotlight.errors import WorkerFailed
from pilotlight.registry.budget import Budget
from pilotlight.registry.finder import Finder
from pilotlight.registry.pressure import Level
from pilotlight.scheduler import books, scheduler, surveys
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


@pytest.mark.parametrize("is_broken_off", [True, False])
async def test_what_a_worker_holds_while_it_loads_is_no_other_programs(
    bench: Bench, is_broken_off: bool
) -> None:
    """The budget has it from the begin of the load; nothing is left of one that came to nothing."""
    bench.loader.may_end = anyio.Event()
    bench.loader.error = WorkerFailed("a: no such file")
    answer = bench.loop.submit(request("1"))
    await settle()
    assert bench.books["a"].bytes_private > 0
    if is_broken_off:
        answer.close()
        await bench.loop.unload("a")
    else:
        bench.loader.may_end.set()
        await settle()
    assert bench.loop.status()[0].loads == 0
    assert bench.books["a"].bytes_private == 0


async def test_the_budget_is_read_again_when_a_worker_is_ready(bench: Bench) -> None:
    """It was small for a while: who waited for room has it now."""
    bench.books._budget = Budget.parse("180MiB")
    bench.loader.may_end = anyio.Event()
    bench.loop.submit(request("1"))
    bench.loop.submit(request("2", model="b"))
    await settle()
    assert [loaded.name for loaded in bench.loader.models] == ["a"]
    bench.books._budget = Budget.parse("64GiB")
    bench.loader.may_end.set()
    await settle()
    assert [loaded.name for loaded in bench.loader.models] == ["a", "b"]


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_is_idle_after_an_answer_stays_by_the_memory_of_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """Other programs held much when it began, an hour ago."""
    monkeypatch.setattr(surveys, "MEASURE_EVERY_S", -1.0)
    answer, number = await bench.running("1")
    bench.books._budget = Budget.parse("1MiB")
    bench.loop._post(bench.loop._surveys.take_budget)
    await settle()
    bench.books._budget = Budget.parse("64GiB")
    if leaves:
        answer.close()
    else:
        bench.worker.say(done(number))
    await settle()
    status = bench.loop.status()[0]
    assert (status.state, status.active, status.evictions) == (WorkerState.READY, 0, {})


async def test_a_changed_model_that_waits_for_room_waits_for_what_it_takes_now(
    bench: Bench, tmp_path: Path
) -> None:
    """It is loaded at once if there is room for that."""
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.truncate(int(51.1 * 2**30))  # of which a worker just fits into the budget
    await bench.replace(model("a"), replace(model("b"), path=path))
    await bench.running("1")
    bench.loop.submit(request("2", model="b"))
    await settle()
    assert [loaded.name for loaded in bench.loader.models] == ["a"]
    await bench.replace(model("a"), model("b"))
    assert bench.loader.models == [model("a"), model("b")]


async def test_a_changed_model_is_not_loaded_for_what_it_took_before(bench: Bench) -> None:
    """Though there is room for that while it is still looked at."""
    bench.books._budget = Budget.parse("180MiB")
    _, number = await bench.running("1")
    bench.loop.submit(request("2", model="b"))
    await settle()
    changed = replace(model("b"), context=9)
    bench.loader.looks = iter((1000, 1000))
    await bench.catalog.replace([model("a"), changed], Finder())
    bench.worker.say(done(number))
    await bench.loop.unload("a")
    assert changed not in bench.loader.looked_at
    await settle()
    assert bench.loader.models == [model("a"), changed]
    assert bench.loader.looked_at_before == [True, True]


async def test_a_change_that_was_taken_back_while_it_was_looked_at_refuses_nobody(
    bench: Bench, tmp_path: Path
) -> None:
    """The look at the earlier settings ends after the one at those of now."""
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.truncate(2**30)
    bench.books._budget = Budget.parse("180MiB")
    _, number = await bench.running("1")
    bench.loop.submit(request("2", model="b"))
    await settle()
    bench.loader.looks = iter((1000,))
    corrected = replace(model("b"), context=9)
    for changed in (replace(model("b"), path=path), corrected):
        await bench.catalog.replace([model("a"), changed], Finder())
    await settle()
    assert [looked.path for looked in bench.loader.looked_at[-2:]] == [corrected.path, path]
    bench.worker.say(done(number))
    await bench.loop.unload("a")
    with anyio.fail_after(20):
        while len(bench.loader.models) < 2:
            await settle()
    assert bench.loader.models == [model("a"), corrected]

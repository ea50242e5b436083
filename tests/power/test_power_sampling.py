"""The machine is looked at while there is work, when somebody asks, and never else."""

import threading
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import to_thread

from pilotlight.power.finding import Finding, Known
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.power.sampling import FIRST_S, SETTLED_S, STALE_S, UNREAD, Sampler, local_minute
from pilotlight.registry.pressure import Level
from virtual_clock import run_virtual, scheduled

DAY_S = 24 * 3600.0


class Counted:
    """A machine that counts looks; with `held`, each waits for that."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.held: threading.Event | None = None
        self.slower: float | None = None
        self.load = 0.0
        self.heard: list[tuple[Supply | None, float | None]] = []
        """Supply and load that the measure of our own slowness heard of."""

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        self.looks.append(now)
        if self.held is not None:
            self.held.wait(10)
        return [Known("supply", Supply.BATTERY, "test"), Known("load", self.load or len(pids), "test")]

    def slowdown(self, reading: Reading) -> float | None:
        self.heard.append((reading.supply, reading.load))
        return self.slower


@asynccontextmanager
async def sampling(machine: Counted) -> AsyncIterator[Sampler]:
    sampler = Sampler(machine, lambda: (1, 2), machine.slowdown)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sampler.run)
        yield sampler
        tasks.cancel_scope.cancel()


def test_a_day_without_work_is_a_day_without_a_look() -> None:
    """Neither before the first request nor after the last one."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            await anyio.sleep(DAY_S)
            assert machine.looks == []
            await sampler.begin()
            sampler.end()
            await anyio.sleep(DAY_S)
            assert len(machine.looks) == 1

    run_virtual(main)


def test_work_is_looked_at_from_its_beginning_every_second() -> None:
    """`begin` returns with a reading; between two looks it is a second, and after the end there is none."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            await anyio.sleep(1000)
            await sampler.begin()
            assert (sampler.last.supply, sampler.last.load) == (Supply.BATTERY, 2.0)
            await sampler.begin()
            await anyio.sleep(9.5)
            sampler.end()
            await anyio.sleep(100)

    run_virtual(main)
    gaps = [after - before for before, after in zip(machine.looks, machine.looks[1:], strict=False)]
    assert len(machine.looks) == 10
    assert all(1 <= gap < 1.1 for gap in gaps), gaps


def test_when_something_depends_on_it_there_are_looks_after_the_end_of_work() -> None:
    """One before each of the times, and then none any more; none of them once there is work again."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            sampler.look_later(lambda: (0.0, 60.0, 300.0))
            for pause_s in (100.0, DAY_S):
                await sampler.begin()
                await anyio.sleep(0.5)
                sampler.end()
                await anyio.sleep(pause_s)

    run_virtual(main)
    times = [at - machine.looks[0] for at in machine.looks]
    assert times == pytest.approx([0, 58.5, 100.5, 159, 399], abs=0.1)


def test_a_machine_that_has_changed_is_looked_at_once_it_has_settled() -> None:
    """Once for several changes, though nothing runs, and soon if something does."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            began = anyio.current_time()
            for _ in range(3):
                await anyio.sleep(SETTLED_S - 1)
                sampler.look_once_settled()
            await anyio.sleep(DAY_S)
            assert machine.looks == [pytest.approx(began + 4 * SETTLED_S - 3, abs=0.1)]
            await sampler.begin()
            await anyio.sleep(0.5)
            sampler.look_once_settled()
            await anyio.sleep(0.01)
            assert len(machine.looks) == 3
            sampler.end()
            await anyio.sleep(DAY_S)

    run_virtual(main)
    assert len(machine.looks) == 3


def test_many_short_requests_cost_one_look_a_second() -> None:
    """What was read a moment ago is fresh enough."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            for _ in range(100):
                await sampler.begin()
                sampler.end()
                await anyio.sleep(0.1)

    run_virtual(main)
    assert 5 <= len(machine.looks) <= 11


def test_short_requests_wake_nobody_between_two_looks() -> None:
    """Neither their beginnings nor their ends; the next look comes in time all the same."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            await sampler.begin()
            await anyio.wait_all_tasks_blocked()
            with scheduled() as call_soon:
                for _ in range(10):
                    sampler.end()
                    await sampler.begin()
            call_soon.assert_not_called()
            await anyio.sleep(1.5)
            assert len(machine.looks) == 2

    run_virtual(main)


def test_sensors_that_do_not_answer_hold_up_nothing() -> None:
    """The first decision waits for a moment; no second thread looks beside the first, and what was known is
    forgotten."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            await sampler.fresh()
            machine.held = threading.Event()
            await anyio.sleep(5)
            asked_at = anyio.current_time()
            await sampler.begin()
            assert anyio.current_time() - asked_at <= FIRST_S * 1.1
            await anyio.sleep(30)
            assert len(machine.looks) == 2
            assert (sampler.reading().supply, sampler.last.supply) == (None, Supply.BATTERY)
            assert sampler.reading().unknown["supply"].startswith("not read for")
            machine.held.set()
            machine.held = None
            while sampler.reading().supply is None:  # noqa: ASYNC110 - the thread ends in time of its own
                await anyio.sleep(0.1)

    run_virtual(main)


def test_who_takes_all_threads_holds_up_no_look() -> None:
    """As forty files that are checked at once: a battery empties all the same."""

    async def main() -> None:
        others = to_thread.current_default_thread_limiter()
        for one in range(int(others.total_tokens)):
            others.acquire_on_behalf_of_nowait(one)
        async with sampling(Counted()) as sampler:
            assert (await sampler.fresh()).supply is Supply.BATTERY

    run_virtual(main)


def test_a_look_that_never_began_does_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was given up before it had a thread; the next one gets it."""
    machine = Counted()

    async def never(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        async with sampling(machine) as sampler:
            with monkeypatch.context() as patched:
                patched.setattr(to_thread, "run_sync", never)
                assert (await sampler.fresh()) is UNREAD
                await anyio.sleep(1)
            assert (await sampler.fresh()).supply is Supply.BATTERY

    run_virtual(main)


def test_a_reading_that_is_old_is_none() -> None:
    """After `STALE_S` of no look."""

    async def main() -> None:
        async with sampling(Counted()) as sampler:
            assert sampler.reading() is UNREAD
            await sampler.fresh()
            await anyio.sleep(STALE_S - 1)
            assert sampler.reading().supply is Supply.BATTERY
            await anyio.sleep(2)
            assert sampler.reading().supply is None

    run_virtual(main)


def test_who_asks_gets_one_look() -> None:
    """And the next one who asks within two seconds gets the same."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            first = await sampler.fresh()
            await anyio.sleep(1)
            assert await sampler.fresh() is first
            await anyio.sleep(DAY_S)

    run_virtual(main)
    assert len(machine.looks) == 1


def test_our_own_slowness_is_a_sign_of_heat() -> None:
    """Of a machine without a thermometer, too; who measures it hears what other programs take."""
    machine = Counted()
    machine.slower, machine.load = 0.3, 0.05

    async def main() -> None:
        async with sampling(machine) as sampler:
            first = await sampler.fresh()
            assert (first.slowdown, first.thermal) == (0.3, ThermalLevel.SERIOUS)
            assert machine.heard == [(Supply.BATTERY, 0.05)], "of the same look"

    run_virtual(main)


def test_who_is_in_a_hurry_gets_a_look_soon() -> None:
    """But five a second at most, and none once there is no work."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            await sampler.begin()
            await anyio.sleep(0.5)
            sampler.hurry()
            await anyio.sleep(0.01)
            assert len(machine.looks) == 2
            for _ in range(100):
                sampler.hurry()
                await anyio.sleep(0.01)
            assert 5 <= len(machine.looks) - 2 <= 6
            sampler.end()
            sampler.hurry()
            await anyio.sleep(DAY_S)

    run_virtual(main)
    assert len(machine.looks) <= 8


def test_what_the_kernel_says_of_memory_is_part_of_it() -> None:
    """Whatever is read elsewhere, until it says that it is over."""
    machine = Counted()

    async def main() -> None:
        async with sampling(machine) as sampler:
            sampler.press(Level.CRITICAL)
            assert (await sampler.fresh()).memory is Level.CRITICAL
            sampler.press(Level.NONE)
            await anyio.sleep(10)
            assert (await sampler.fresh()).memory is None

    run_virtual(main)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows asks for the time zone every time")
def test_a_machine_that_travels_takes_its_time_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time zone is not the one that the process has begun in."""
    minutes = []
    with monkeypatch.context() as elsewhere:
        for zone in ("HERE+0", "THERE-6"):
            elsewhere.setenv("TZ", zone)
            minutes.append(local_minute())
    time.tzset()
    assert (minutes[1] - minutes[0]) % 1440 in (360, 361)

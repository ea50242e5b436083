"""What the loop sleeps by."""

import asyncio
import math

import anyio
import pytest

from pilotlight.scheduler.alarm import Alarm
from virtual_clock import run_virtual


def test_it_wakes_when_it_is_time_or_when_it_rings() -> None:
    """Whichever comes first; without a time only the ringing does."""

    async def main() -> None:
        alarm, began = Alarm(), anyio.current_time()
        await alarm.sleep(began + 5)
        assert anyio.current_time() == pytest.approx(began + 5)
        for until in (began + 1000, math.inf):
            rung_at = anyio.current_time() + 100
            asyncio.get_running_loop().call_at(rung_at, alarm.ring)
            await alarm.sleep(until)
            assert anyio.current_time() == pytest.approx(rung_at)

    run_virtual(main)


def test_a_time_that_has_passed_is_no_sleep() -> None:
    async def main() -> None:
        alarm, began = Alarm(), anyio.current_time()
        await alarm.sleep(began - 5)
        assert anyio.current_time() == began

    run_virtual(main)


def test_what_rang_before_is_not_slept_through_but_others_run() -> None:
    """However often it rang: the next sleep is one."""

    async def main() -> None:
        alarm, others = Alarm(), []
        alarm.ring()
        alarm.ring()
        asyncio.get_running_loop().call_soon(others.append, "ran")
        await alarm.sleep(math.inf)
        assert others == ["ran"]
        with anyio.move_on_after(100) as scope:
            await alarm.sleep(math.inf)
        assert scope.cancelled_caught

    run_virtual(main)


def test_ringing_at_nobody_any_more_harms_nobody() -> None:
    """Who slept was cancelled, or has been rung for already."""

    async def main() -> None:
        alarm = Alarm()
        with anyio.move_on_after(1):
            await alarm.sleep(math.inf)
        alarm.ring()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarm.sleep, math.inf)

    run_virtual(main)


def test_no_timer_is_left_behind() -> None:
    """Neither by who was rung for, nor by who was cancelled: it would wake an idle daemon."""

    async def main() -> None:
        alarm, began = Alarm(), anyio.current_time()
        asyncio.get_running_loop().call_soon(alarm.ring)
        await alarm.sleep(began + 50)
        with anyio.move_on_after(1):
            await alarm.sleep(began + 60)
        with anyio.move_on_after(1000) as scope:
            await alarm.sleep(math.inf)
        assert scope.cancelled_caught

    run_virtual(main)

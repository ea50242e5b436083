"""When the desktop's power saver is held, and when no more: on a bus of our own; time passes by itself."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

pytest.importorskip("jeepney")

from desktop_bus import Service, service
from pilotlight.power.desktop import APPLICATION, PROFILES, SAVER
from pilotlight.power.saver import DELAYS, REASON, Saver, Wish
from virtual_clock import run_virtual, scheduled

PATIENCE_S = 20


@pytest.fixture(params=[names[0] for names in PROFILES])
def profiles(bus: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """The service that holds profiles, by its name of today and the one before."""
    with service(bus, request.param, {}) as said:
        yield said


@asynccontextmanager
async def saving() -> AsyncIterator[Saver]:
    saver = Saver()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saver.run)
        await anyio.wait_all_tasks_blocked()
        yield saver
        tasks.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Other threads take real time."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await anyio.sleep(0.1)


def test_it_is_held_once_background_work_has_run_alone_for_a_while(profiles: Service) -> None:
    """With a name and a reason that the user sees; and not for longer than that."""

    async def main() -> None:
        async with saving() as saver:
            saver.wish(Wish.HOLD)
            await anyio.sleep(DELAYS[Wish.HOLD] - 0.1)
            assert (saver.is_held, saver.is_slowing, profiles.holds) == (False, False, [])
            await until(lambda: saver.is_held)
            assert saver.is_slowing
            assert [words for _, words in profiles.holds] == [(SAVER, REASON, APPLICATION)]
            assert profiles.num_held == 1
            saver.wish(Wish.RELEASE)
            assert not saver.is_held and not saver.is_slowing
            await until(lambda: profiles.num_held == 0)

    run_virtual(main)


def test_a_pause_between_two_requests_ends_nothing(profiles: Service) -> None:
    """A longer one does."""

    async def main() -> None:
        async with saving() as saver:
            saver.wish(Wish.HOLD)
            await until(lambda: saver.is_held)
            saver.wish(Wish.REST)
            await anyio.sleep(DELAYS[Wish.REST] - 0.1)
            saver.wish(Wish.HOLD)
            await anyio.sleep(100)
            assert saver.is_held and len(profiles.holds) == 1
            saver.wish(Wish.REST)
            await anyio.sleep(DELAYS[Wish.REST] + 0.1)
            assert not saver.is_held

    run_virtual(main)


def test_it_is_gone_with_the_daemon(profiles: Service) -> None:
    """However that ends."""

    async def main() -> None:
        async with saving() as saver:
            saver.wish(Wish.HOLD)
            await until(lambda: saver.is_held)
        await until(lambda: profiles.num_held == 0)

    run_virtual(main)


def test_one_that_is_refused_is_not_asked_again(bus: str) -> None:
    """Until there was other work."""

    async def main() -> None:
        with service(bus, PROFILES[0][0], {}, grants=False) as said:
            async with saving() as saver:
                saver.wish(Wish.HOLD)
                await until(lambda: len(said.holds) == 1)
                await anyio.sleep(1000)
                assert (saver.is_held, saver.is_slowing, len(said.holds)) == (False, False, 1)
                saver.wish(Wish.RELEASE)
                await anyio.sleep(1)
                saver.wish(Wish.HOLD)
                await until(lambda: len(said.holds) == 2)

    run_virtual(main)


@pytest.mark.parametrize(("platform", "is_slowing"), [("linux", False), ("darwin", True), ("win32", True)])
def test_only_some_systems_lower_clocks_for_a_worker(platform: str, is_slowing: bool) -> None:
    """Where nothing is held, the others lower none, so heat is what makes answers slower there."""
    saver = Saver(platform)
    assert not saver.is_slowing
    saver.wish(Wish.HOLD)
    assert saver.is_slowing is is_slowing
    saver.wish(Wish.REST)
    assert not saver.is_slowing


def test_answers_that_need_no_saver_wake_nobody() -> None:
    """And background work after them has it as always."""

    async def main() -> None:
        async with saving() as saver:
            with scheduled() as call_soon:
                for _ in range(10):
                    saver.wish(Wish.REST)
                    saver.wish(Wish.RELEASE)
            call_soon.assert_not_called()
            with scheduled() as call_soon:
                saver.wish(Wish.HOLD)
            call_soon.assert_called()

    run_virtual(main)


def test_where_there_is_no_such_service_nothing_is_held(bus: str) -> None:
    """Nor started."""
    assert _tries() is False


def test_where_there_is_no_bus_nothing_is_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in most containers."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    assert _tries() is False


def _tries() -> bool:
    """Whether it is held after a while."""
    held: list[bool] = []

    async def main() -> None:
        async with saving() as saver:
            saver.wish(Wish.HOLD)
            await anyio.sleep(10)
            await anyio.to_thread.run_sync(time.monotonic)  # the one before it has ended, or is not needed
            held.append(saver.is_held)

    run_virtual(main)
    return held[0]

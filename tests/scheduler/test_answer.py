"""The stream between a producer and the one who reads it."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pilotlight.core import Accepted, Chunk, Finished, FinishReason
from pilotlight.errors import WorkerFailed
from pilotlight.scheduler.answer import Answer, Item

ITEMS: list[Item] = [
    Accepted(3),
    Chunk(0, "a", 1),
    Chunk(0, "b", 1),
    Finished(0, FinishReason.STOP, 2, 0),
]


class Releases:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0
        self.answer = Answer("1", self.release)

    def release(self) -> None:
        self.count += 1


async def test_items_come_in_the_order_they_were_put() -> None:
    """All that are there together, and then the end."""
    answer = Releases().answer
    for item in ITEMS:
        answer.put(item)
    answer.end()
    assert [items async for items in answer] == [ITEMS]


async def test_a_reader_waits_for_what_is_put_later() -> None:
    """Item by item, and for the end."""
    answer, heard = Releases().answer, []

    async def read() -> None:
        async for items in answer:
            heard.extend(items)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        for number, item in enumerate(ITEMS):
            answer.put(item)
            while len(heard) <= number:
                await checkpoint()
        answer.end()
    assert heard == ITEMS


async def test_an_error_comes_after_the_items_before_it() -> None:
    """What was said before the worker died is heard."""
    answer, heard = Releases().answer, []
    answer.put(ITEMS[0])
    answer.end(WorkerFailed("died"))
    with pytest.raises(WorkerFailed, match="died"):
        async for items in answer:
            heard += items
    assert heard == ITEMS[:1]


async def test_an_error_wakes_a_waiting_reader() -> None:
    """It does not wait for a chunk that never comes."""
    answer = Releases().answer
    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            with pytest.raises(WorkerFailed):
                await anext(answer)

        tasks.start_soon(read)
        await checkpoint()
        answer.end(WorkerFailed("died"))


async def test_leaving_releases_once() -> None:
    """However often it is closed."""
    releases = Releases()
    async with releases.answer:
        assert releases.count == 0
    releases.answer.close()
    assert releases.count == 1


async def test_an_exception_of_the_reader_releases() -> None:
    """And goes on its way."""
    releases = Releases()
    with pytest.raises(ZeroDivisionError):
        async with releases.answer:
            raise ZeroDivisionError
    assert releases.count == 1


async def test_a_cancelled_reader_releases() -> None:
    """The client left while nothing came."""
    releases = Releases()
    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            async with releases.answer as answer:
                await anext(answer)

        tasks.start_soon(read)
        await checkpoint()
        tasks.cancel_scope.cancel()
    assert releases.count == 1


async def test_what_comes_after_the_release_is_dropped() -> None:
    """Nobody will ever read it."""
    answer = Releases().answer
    answer.put(ITEMS[0])
    answer.close()
    answer.put(ITEMS[1])
    answer.end()
    assert [items async for items in answer] == []

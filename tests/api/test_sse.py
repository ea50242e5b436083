"""Event streams, as ASGI messages."""

from collections.abc import AsyncIterator

import anyio
import pytest
from starlette.types import Message, Scope

from pilotlight.api.sse import DIRECT, EventStream, event


async def _events() -> AsyncIterator[bytes]:
    yield event(b"1")
    yield event(b"2")


async def _never() -> Message:
    await anyio.sleep_forever()
    raise AssertionError("nobody wakes it")


@pytest.mark.parametrize("has_direct", [True, False])
async def test_events_pass_by_the_layers_around_a_stream(has_direct: bool) -> None:
    """Only its start is theirs; without a way past them everything is."""
    layered: list[Message] = []
    direct: list[Message] = []

    async def through_layers(message: Message) -> None:
        layered.append(message)

    async def past_them(message: Message) -> None:
        direct.append(message)

    scope: Scope = {"type": "http", "method": "POST"} | ({DIRECT: past_them} if has_direct else {})
    await EventStream(_events(), {}, keepalive_s=60)(scope, _never, through_layers)
    start, *rest = layered + direct
    assert start["type"] == "http.response.start"
    assert [message["body"] for message in rest] == [event(b"1"), event(b"2"), b""]
    assert [message["more_body"] for message in rest] == [True, True, False]
    assert len(layered) == (1 if has_direct else 4)

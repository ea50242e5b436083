"""The test that a new version must pass before it is active: a worker loads it, and it says something.

It is asked like any other model: it waits until there is room for it, others go for it, and it is refused if
it never fits. Knows no workers.
"""

import math
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio
from msgspec.structs import replace

from pilotlight.core import Accepted, Chunk, Finished, Model, Prompt, Request, Sampling
from pilotlight.errors import SmokeFailed, WorkerFailed

CONTEXT = 512
NUM_TOKENS = 4
ANSWER_S = 60.0
"""For four tokens: on a slow machine, of a model that just about fits."""

Item = Accepted | Chunk | Finished


class Runner(Protocol):
    """Who has models loaded; `scheduler.loop.Loop` is the real one."""

    def trying(
        self, model: Model, request: Request
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Item]]]:
        """The answer of a model that nobody serves; its worker is gone afterwards."""


class Smoke:
    """Tests models that are not served yet."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def test(self, model: Model, version: str) -> None:
        """Raises `SmokeFailed` with the reason, and any other error for which it could not be tested."""
        # As little memory as will do: others may be running.
        small = replace(
            model,
            name=f"{model.name} (version {version})",
            context=min(model.context or CONTEXT, CONTEXT),
            parallel=1,
            pin=False,
        )
        request = Request(
            id=f"smoke-{secrets.token_hex(8)}",
            model=small.name,
            prompt=Prompt(text="Hello"),
            sampling=Sampling(temperature=0.0),
            max_tokens=NUM_TOKENS,
            ignore_eos=True,
            cache_prompt=False,
            app="pilotlight",
        )
        async with self._runner.trying(small, request) as answer:
            await _said(await _begun(answer), answer, small.name)


async def _begun(answer: AsyncIterator[list[Item]]) -> list[Item]:
    """What is said first: it is loaded, however long it had to wait for its turn."""
    try:
        return await anext(answer)
    except WorkerFailed as exc:
        raise SmokeFailed(f"the new version does not load: {exc.message}") from exc


async def _said(items: list[Item], answer: AsyncIterator[list[Item]], name: str) -> None:
    num_tokens, reason = 0, f"no answer in {math.floor(ANSWER_S)} s"
    with anyio.move_on_after(ANSWER_S):
        try:
            async for more in answer:
                items += more
        except WorkerFailed as exc:
            reason = exc.message
    for item in items:
        if isinstance(item, Finished):
            num_tokens, reason = item.completion_tokens, "it ended at once"
    if not num_tokens:
        raise SmokeFailed(f"the new version says nothing: {name}: {reason}")

"""The test that a new version must pass before it is active: a worker loads it, and it says something."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from pilotlight.core import Model, Prompt, Sampling
from pilotlight.errors import SmokeFailed, WorkerFailed
from pilotlight.worker.protocol import Done, Generate, Refused, Step

if TYPE_CHECKING:
    from pilotlight.registry.loader import Loader
    from pilotlight.worker.handle import Said, Worker

CONTEXT = 512
NUM_TOKENS = 4
ANSWER_S = 60.0
"""For four tokens: on a slow machine, of a model that just about fits."""


class Smoke:
    """Tests models in workers of their own, which are gone afterwards."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    async def test(self, model: Model) -> None:
        """Raises `SmokeFailed` with the reason, or `RuntimeMissing` if nothing here could load it anyway."""
        # As little memory as will do: others may be running.
        small = replace(model, context=min(model.context or CONTEXT, CONTEXT), parallel=1)
        try:
            worker = await self._loader.load(small, lambda _: None)
        except WorkerFailed as exc:
            raise SmokeFailed(f"the new version does not load: {exc.message}") from exc
        try:
            await self._ask(worker)
        finally:
            await worker.stop()

    async def _ask(self, worker: "Worker") -> None:
        answer = _Answer()
        request = Generate(1, Prompt(text="Hello"), Sampling(temperature=0.0), NUM_TOKENS, (), 1, True, False)
        worker.send(request)
        with anyio.move_on_after(ANSWER_S):
            async with anyio.create_task_group() as tasks:

                async def run() -> None:
                    answer.reason = str(await worker.run(answer.hear))
                    answer.is_over.set()

                tasks.start_soon(run)
                await answer.is_over.wait()
                tasks.cancel_scope.cancel()
        if not answer.num_tokens:
            raise SmokeFailed(f"the new version says nothing: {worker.model.name}: {answer.reason}")


class _Answer:
    """What the worker said to the only request it gets."""

    def __init__(self) -> None:
        self.is_over = anyio.Event()
        self.num_tokens = 0
        self.reason = f"no answer in {math.floor(ANSWER_S)} s"

    def hear(self, message: "Said") -> None:
        for event in message.events if isinstance(message, Step) else ():
            if isinstance(event, Done):
                self.num_tokens, self.reason = event.completion_tokens, "it ended at once"
                self.is_over.set()
            elif isinstance(event, Refused):
                self.reason = event.message
                self.is_over.set()

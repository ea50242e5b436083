"""A fake `Service` that obeys the `Answer` contract; a script answers each request."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from pilotlight.api.keys import Keys
from pilotlight.config import Config
from pilotlight.core import (
    Accepted,
    Capabilities,
    Chunk,
    Cost,
    Finished,
    FinishReason,
    MemoryStatus,
    Model,
    ModelStatus,
    Request,
    Sampling,
    WorkerState,
)
from pilotlight.energy.accounts import Energy
from pilotlight.energy.ledger import Ledger
from pilotlight.errors import ConfigError, Error
from pilotlight.metrics import Metrics
from pilotlight.notices import Notices
from pilotlight.policy.settings import rules_of
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence, Reading, Supply
from pilotlight.power.sampling import Sampler
from pilotlight.power.saver import Saver
from pilotlight.registry.catalog import Catalog
from pilotlight.reload import Reloaded
from pilotlight.scheduler.answer import Answer, Item
from pilotlight.scheduler.gate import Gate, Policy
from pilotlight.scheduler.pacer import Pacer
from pilotlight.settings import ClassesSettings, ServerSettings
from pilotlight.store.shelf import Shelf

ADMIN_KEY = "the-key-of-the-tests"

MODELS = (
    Model(
        "tiny",
        Path("/models/tiny.gguf"),
        aliases=("small", "org/tiny"),
        sampling={"temperature": 0.25},
        created=1_700_000_000,
        capabilities=Capabilities(Sampling.__struct_fields__),
    ),
    Model("org/large", Path("/models/large.gguf"), context=4096, small="tiny"),
)

Script = Callable[[Request, Answer], None]


def say(
    *texts: str, reason: FinishReason = FinishReason.STOP, cached: int = 0, energy: Energy | None = None
) -> Script:
    """Answer every choice with these texts, at once."""

    def script(request: Request, answer: Answer) -> None:
        answer.put(Accepted(prompt_tokens=7))
        for index in range(request.n):
            for text in texts:
                answer.put(Chunk(index, text, 1))
            answer.put(Finished(index, reason, len(texts), cached))
        answer.energy = energy
        answer.end()

    return script


def backwards(request: Request, answer: Answer) -> None:
    """Answer every choice with a word, the last one first."""
    answer.put(Accepted(prompt_tokens=7))
    for index in reversed(range(request.n)):
        answer.put(Chunk(index, "Hello", 1))
        answer.put(Finished(index, FinishReason.STOP, 1, 0))
    answer.end()


def fail(error: Error, *, after: Sequence[Item] = ()) -> Script:
    """End with the error after these items."""

    def script(request: Request, answer: Answer) -> None:
        for item in after:
            answer.put(item)
        answer.end(error)

    return script


def hold(*items: Accepted | Chunk) -> Script:
    """Give these items and then nothing: the test goes on by itself."""

    def script(request: Request, answer: Answer) -> None:
        for item in items:
            answer.put(item)

    return script


class Unplugged:
    """A machine on its battery."""

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        return [
            Known("supply", Supply.BATTERY, "power_supply BAT0"),
            Known("percent", 41.5, "power_supply BAT0", Confidence.DERIVED),
            Missing("celsius", "there is no thermometer"),
        ]


class NoWork:
    """Workers that run nothing."""

    is_answering = False
    has_yielding = False
    num_yielding_tokens = 0

    def rest(self, is_resting: bool) -> None:
        """There is nothing to be held."""


class FakeReadings:
    """A machine of which nothing is known until a test says something."""

    def __init__(self) -> None:
        self.now = Reading()

    async def fresh(self, within_s: float) -> Reading:
        return self.now


@dataclass
class FakeService:
    """Records requests and releases; `script` answers them."""

    config: Config = field(default_factory=lambda: Config(ServerSettings(accept_s=5, keepalive_s=5)))
    keys: Keys = field(default_factory=lambda: Keys(ADMIN_KEY, Path("/state")))
    script: Script = field(default_factory=lambda: say("Hel", "lo"))
    is_ready: bool = True
    reloaded: Reloaded | None = None
    """What reading the settings again comes to; None: a wrong one."""
    cost: Cost | None = None
    """Of every model."""
    stands: str | None = None
    """Why requests do not run."""

    def __post_init__(self) -> None:
        self.catalog = Catalog(MODELS)
        self.notices = Notices()
        self.metrics = Metrics(self.status, self.memory)
        self.power = Sampler(Unplugged(), lambda: (), lambda reading: None)
        self.energy = Ledger()
        self.readings = FakeReadings()
        self.pacer = Pacer(NoWork(), lambda: False)
        self.saver = Saver()
        self.shelf = Shelf(Config(ServerSettings(store_dir=Path("/nowhere/store"))))
        self.gate = Gate(Policy(rules_of("balanced", ())), self.readings, max_held=2)
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.releases: list[str] = []
        self.loads: list[tuple[str, float | None]] = []
        self.unloads: list[str] = []
        self.load_error: Error | None = None
        self.submitted = anyio.Event()
        self.released = anyio.Event()

    def settings(self, **changes: Any) -> None:
        self.config = replace(self.config, server=ServerSettings(**changes))

    def submit(self, request: Request) -> Answer:
        def release() -> None:
            self.releases.append(request.id)
            self.released.set()

        self.catalog.get(request.model)  # raises what the daemon's does
        answer = Answer(request.id, release)
        self.requests.append(request)
        self.answers.append(answer)
        self.script(request, answer)
        self.submitted.set()
        return answer

    @property
    def classes(self) -> ClassesSettings:
        return self.config.classes

    @property
    def preset(self) -> str:
        return self.config.policy.preset

    def standing(self, request: Request) -> str | None:
        return self.stands

    def environ(self) -> dict[str, str]:
        return self.config.environ()

    async def reload(self) -> Reloaded:
        if self.reloaded is None:
            raise ConfigError("models.toml: unknown key server.prot; did you mean 'port'?")
        return self.reloaded

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        self.loads.append((model, keep_alive_s))
        if self.load_error is not None:
            raise self.load_error

    async def unload(self, model: str) -> None:
        self.unloads.append(model)

    def memory(self) -> MemoryStatus:
        return MemoryStatus(budget=2**30, charged=2**20)

    async def until_released(self) -> None:
        with anyio.fail_after(20):
            await self.released.wait()

    def status(self) -> Sequence[ModelStatus]:
        return [
            ModelStatus(model, WorkerState.STOPPED, None, 0.0, 0, 0, None, 0, None, cost=self.cost)
            for model in MODELS
        ]

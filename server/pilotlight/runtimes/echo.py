"""A runtime that repeats the prompt word by word and can be told to misbehave, for tests of everything around
it.

It lives up to `base.Runtime` without a native library, in the same worker process as the real ones. The
"model file" is a text file of `key = value` lines (TOML), see `Knobs`.
"""

import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from pilotlight.core import FinishReason, WorkerInfo
from pilotlight.errors import ContextOverflow
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.batching import on_shift
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.computing import Computing
from pilotlight.runtimes.limits import BRIEF_S, BUNDLE_S
from pilotlight.worker.protocol import (
    Admitted,
    Computed,
    Delta,
    Done,
    Event,
    Generate,
    Load,
    Saved,
    State,
    Threads,
)

THREADS = 4
"""If nobody says. It has no use for them, and can be told to have fewer."""


class Knobs(Struct, frozen=True):
    """How this echo behaves."""

    tokens_per_s: float = 0.0
    """0: as fast as it goes."""
    load_s: float = 0.0
    load_error: str = ""
    crash_modes: tuple[str, ...] = ()
    """Crash ladder modes in which loading dies of `crash_signal`."""
    crash_signal: str = "SIGSEGV"
    die_after_tokens: int = 0
    """0: never. SIGKILL of itself after so many tokens in all."""
    stderr_lines: int = 0
    """Noise on stderr before it is ready."""
    stdout_noise: bool = False
    enough_threads: int = 0
    """What comes out when that is measured."""
    ignore_cancel: bool = False
    """Leak what was cancelled."""
    context: int = 4096


@dataclass(slots=True)
class Speaking:
    """One running answer."""

    generate: Generate
    index: int
    words: list[str]
    num_prompt: int
    said: int = 0

    @property
    def yields(self) -> bool:
        return self.generate.request_class.yields


@dataclass(slots=True)
class Echo:
    """`base.Runtime` without a model."""

    _knobs: Knobs = field(default_factory=Knobs)
    _speaking: list[Speaking] = field(default_factory=list)
    _is_held: bool = False
    _threads: int = 1
    _total: int = 0
    _computing: Computing = field(default_factory=Computing)

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        self._knobs = knobs = _read_knobs(Path(load.path))
        for number in range(knobs.stderr_lines):
            print(f"noise {number} " + "x" * 100, file=sys.stderr)
        if knobs.stdout_noise:
            print("native code printed this", flush=True)
        if knobs.load_error:
            raise LoadError(knobs.load_error)
        for percent in range(0, 101, 10):
            progress(percent / 100)
            time.sleep(knobs.load_s / 11)
        if load.mode in knobs.crash_modes:
            os.kill(os.getpid(), signal.Signals[knobs.crash_signal])
        self._threads = load.threads or THREADS
        return WorkerInfo(
            pid=os.getpid(),
            runtime="echo",
            version="1",
            mode=load.mode,
            context=load.context or knobs.context,
            context_trained=knobs.context,
            parallel=load.parallel or 8,
            threads=self._threads,
            vocab=1,
            description="echo",
            bytes_model=0,
            num_parameters=0,
            has_chat_template=True,
            load_s=0.0,
            capabilities=CAPABILITIES["echo"],
        )

    def prepare(self, generate: Generate) -> Generate:
        words = _words(generate)
        if len(words) > self._knobs.context:
            raise ContextOverflow(f"{len(words)} words; {self._knobs.context} fit", param="messages")
        return generate

    def start(self, prepared: Generate) -> Event:
        words = _words(prepared)
        for index in range(prepared.n):
            self._speaking.append(Speaking(prepared, index, words, len(words)))
        return Admitted(prepared.id, len(words))

    def cancel(self, request_id: int) -> None:
        if not self._knobs.ignore_cancel:
            self._speaking = [one for one in self._speaking if one.generate.id != request_id]

    @property
    def has_ahead(self) -> bool:
        return False

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        raise AssertionError("there is never anything to do")

    @property
    def has_spare(self) -> bool:
        return False

    def rest(self) -> None:
        raise AssertionError("there is never anything to give back")

    @property
    def has_work(self) -> bool:
        return bool(self._shift)

    def set_threads(self, threads: int, prompt_threads: int) -> Threads:
        self._threads = threads
        return Threads(threads, prompt_threads)

    def enough_threads(self, is_wanted: Callable[[], bool]) -> int:
        return 0 if self._speaking else self._knobs.enough_threads

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held

    @property
    def num_paused(self) -> int:
        return len(self._speaking) - len(self._shift)

    @property
    def _shift(self) -> list[Speaking]:
        return on_shift(self._speaking, is_held=self._is_held)

    def step(self, is_wanted: Callable[[], bool] | None = None) -> list[Event]:
        started = time.perf_counter()
        if self._knobs.tokens_per_s:
            time.sleep(1 / self._knobs.tokens_per_s)
        events: list[Event] = []
        shift = self._shift
        for one in shift:
            self._say(one, events)
        self._computing.decode([one.generate.id for one in shift], time.perf_counter() - started)
        return events

    @property
    def is_brief(self) -> bool:
        return not self._knobs.tokens_per_s or 1 / self._knobs.tokens_per_s <= BRIEF_S

    @property
    def is_fluent(self) -> bool:
        return not self._knobs.tokens_per_s or 1 / self._knobs.tokens_per_s <= BUNDLE_S

    def settle(self) -> None:
        """It keeps nothing of what ended."""

    def take_computed(self) -> tuple[Computed, ...]:
        return self._computing.take()

    def _say(self, one: Speaking, events: list[Event]) -> None:
        limit = one.generate.max_tokens or len(one.words)
        events.append(Delta(one.generate.id, one.index, one.words[one.said % len(one.words)] + " ", 1))
        one.said += 1
        self._total += 1
        if self._total == self._knobs.die_after_tokens:
            os.kill(os.getpid(), signal.SIGKILL)
        if one.said >= limit:
            reason = FinishReason.LENGTH if one.said < len(one.words) else FinishReason.STOP
            events.append(Done(one.generate.id, one.index, reason, one.said, 0))
            self._speaking.remove(one)

    def trim(self) -> None:
        """It keeps nothing."""

    def save(self, within_s: float) -> Saved:
        return Saved(0, 0)

    def state(self) -> State:
        return State(len(self._speaking), 0, 0, 0, self._threads)


def _read_knobs(path: Path) -> Knobs:
    values = tomllib.loads(path.read_text())
    if "crash_modes" in values:
        values["crash_modes"] = tuple(values["crash_modes"])
    return Knobs(**values)


def _words(generate: Generate) -> list[str]:
    prompt = generate.prompt
    if prompt.messages is not None:
        return str(prompt.messages[-1].get("content") or "").split() or ["..."]
    return (prompt.text or "").split() or ["..."]

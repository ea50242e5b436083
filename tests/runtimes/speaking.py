"""Drives a runtime in this process, step by step, as the worker's loop would."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pilotlight
from pilotlight.core import Archive, Loading, Prompt, Sampling
from pilotlight.runtimes import create
from pilotlight.runtimes.running import Prepared
from pilotlight.runtimes.stepping import RowRuntime
from pilotlight.runtimes.transcripts import Transcripts
from pilotlight.worker.protocol import Admitted, Delta, Done, Event, Generate, Load

GREEDY = Sampling(temperature=0)

AUTO = Loading()

BUILTIN = Path(pilotlight.__file__).with_name("builtin")

_numbers = count(1)

_alive: list[RowRuntime] = []
"""llama.cpp logs to the last one loaded, so none may go before the process does."""


def generate(prompt: str | list[int] | Prompt, sampling: Sampling = GREEDY, **changes: Any) -> Generate:
    """A request under a fresh number."""
    if isinstance(prompt, str):
        prompt = Prompt(text=prompt)
    elif isinstance(prompt, list):
        prompt = Prompt(tokens=tuple(prompt))
    fields = {"max_tokens": 24, "stop": (), "n": 1, "ignore_eos": False, "cache_prompt": True}
    return Generate(next(_numbers), prompt, sampling, **fields | changes)


class Speech:
    """What one answer came to."""

    def __init__(self) -> None:
        self.pieces: list[Delta] = []
        self.done: list[Done] = []

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def end(self) -> Done:
        (done,) = self.done
        return done


class Bench:
    """A loaded runtime, and what it said by request and answer."""

    def __init__(
        self,
        name: str,
        path: Path,
        mode: str = "full",
        context: int = 1024,
        parallel: int = 4,
        loading: Loading = AUTO,
        archive: Archive | None = None,
    ) -> None:
        runtime = create(name)
        assert isinstance(runtime, RowRuntime)
        self.runtime = runtime
        _alive.append(runtime)
        self.progress: list[float] = []
        load = Load(str(path), mode, context, parallel, threads=1, loading=loading, archive=archive)
        self.info = self.runtime.load(load, self.progress.append)
        self.speeches: dict[tuple[int, int], Speech] = defaultdict(Speech)

    def start(self, asked: Generate) -> int:
        """Admit it; the number of its prompt's tokens."""
        prepared: Prepared = self.runtime.prepare(asked)
        admitted = self.runtime.start(prepared)
        assert isinstance(admitted, Admitted)
        return admitted.prompt_tokens

    def step(self, is_wanted: Callable[[], bool] | None = None) -> list[Event]:
        """One step, and whether it left everything in order."""
        events = self.runtime.step(is_wanted)
        self.runtime.settle()
        for event in events:
            speech = self.speeches[event.id, getattr(event, "index", 0)]
            assert not speech.done, "nothing comes after the end"
            if isinstance(event, Done):
                speech.done.append(event)
            else:
                assert isinstance(event, Delta)
                speech.pieces.append(event)
        state = self.runtime.state()
        assert state.fault is None, state.fault
        return events

    def finish(self) -> None:
        """Until nothing runs; a runtime that goes round in circles is found out."""
        for _ in range(5000):
            if not self.runtime.has_work:
                return
            self.step()
        raise AssertionError("it never ends")

    def speech(self, asked: Generate, index: int = 0) -> Speech:
        return self.speeches[asked.id, index]

    def answer(self, asked: Generate) -> Speech:
        """One request by itself, to its end."""
        (speech,) = self.answers([asked])
        return speech

    def answers(self, asked: Iterable[Generate]) -> list[Speech]:
        """Requests that come at the same time."""
        asked = list(asked)
        for one in asked:
            self.start(one)
        self.finish()
        return [self.speech(one) for one in asked]

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """By the model's own vocabulary."""
        return self.runtime._prompts._vocabulary.tokenize(text, add_special=add_special)

    def forget(self) -> None:
        """Nothing of earlier requests can be reused any more."""
        assert not self.runtime.has_work
        runtime = self.runtime
        runtime.trim()
        runtime._ahead._endings.clear()
        runtime._prompts.transcripts = Transcripts()


def builtin(name: str, **settings: Any) -> Bench:
    """The built-in model with the runtime of that name."""
    return Bench(name, BUILTIN / ("pilot.gguf" if name == "llamacpp" else f"pilot-{name}"), **settings)


def llamacpp(path: Path, mode: str = "full", **settings: Any) -> Bench:
    """A GGUF file with llama.cpp."""
    return Bench("llamacpp", path, mode, **settings)

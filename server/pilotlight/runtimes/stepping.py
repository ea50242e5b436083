"""Continuous batching over the rows of a `Decoder`, with prefix reuse: what runtimes share that bring no
batching of their own.

Sequences that generate are computed together, one token each; prompts in pieces between them, one at a time:
a row of the input cannot be shorter than another. Knows no library.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from pilotlight.core import WorkerInfo
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.batching import SMALLEST_CHUNK, Pace, is_worth_waiting, plan
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.limits import BUSY_STEP_S, DEFAULT_CONTEXT, DEFAULT_PARALLEL, STEP_S
from pilotlight.runtimes.prompts import Prompts
from pilotlight.runtimes.rows import DecodeError, Decoder, Memory, Source
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.runtimes.sampling import Sampler
from pilotlight.worker.protocol import Admitted, Event, Generate, Load, State

FILLER = 0
"""Stands in rows between those that generate; what it writes is overwritten by what belongs there."""

RowSequence = Running[Sampler]


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that its library has loaded, and what there is to say of it."""

    decoder: Decoder
    folder: Folder
    context_trained: int
    """Tokens it can be asked for at most."""
    threads: int
    version: str
    description: str
    bytes_model: int
    num_parameters: int = 0
    """0: nobody counted."""


Open = Callable[[Load, Callable[[float], None]], Opened]
"""Loads a model with one library and says how far it is, up to 0.9. Raises `LoadError`."""


class RowRuntime:
    """`base.Runtime` over a `Decoder`. The step loop owns everything; `prepare` only reads the vocabulary."""

    def __init__(self, name: str, open_model: Open) -> None:
        self._name = name
        self._open = open_model

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        started = time.perf_counter()
        opened = self._open(load, progress)
        self._decoder = opened.decoder
        self._folder = opened.folder
        self._threads = opened.threads
        self._parallel = load.parallel or DEFAULT_PARALLEL
        # Beyond the trained context a graph has no positions to look up, and a model no idea.
        self._context = min(load.context or DEFAULT_CONTEXT, opened.context_trained)
        self._decoder.open(num_rows=self._parallel, context=self._context)
        template = self._folder.template(load.chat_template)
        self._prompts = Prompts(self._folder, template, context=self._context, parallel=self._parallel)
        self._memory: Memory[RowSequence] = Memory(self._decoder, self._context)
        self._pace = Pace(STEP_S, BUSY_STEP_S, self._decoder.largest_run)
        self._sequences: list[RowSequence] = []
        self._work_done = 0
        self._warm_up(load.path)
        progress(1.0)
        return WorkerInfo(
            pid=os.getpid(),
            runtime=self._name,
            version=opened.version,
            mode=load.mode,
            context=self._context,
            context_trained=opened.context_trained,
            parallel=self._parallel,
            threads=self._threads,
            vocab=self._folder.num_vocab,
            description=opened.description,
            bytes_model=opened.bytes_model,
            num_parameters=opened.num_parameters,
            has_chat_template=template is not None,
            load_s=time.perf_counter() - started,
            capabilities=CAPABILITIES[self._name],
        )

    def _warm_up(self, path: str) -> None:
        """Touch every weight once, and find out whether the model works as we use it. Raises `LoadError`."""
        count = min(SMALLEST_CHUNK, self._context - 1, self._decoder.largest_run)
        started = time.perf_counter()
        try:
            self._decoder.compute(0, [[FILLER] * count], [0])
            self._pace.observe(count, time.perf_counter() - started)
            self._decoder.compute(0, [[FILLER]] * self._parallel, [row % 2 for row in range(self._parallel)])
            for row in reversed(range(self._parallel)):
                self._decoder.clear(row)
        except DecodeError as exc:
            raise LoadError(f"{path} cannot be computed: {exc}") from exc

    # --- requests ---

    def prepare(self, generate: Generate) -> Prepared:
        return self._prompts.prepare(generate)

    def start(self, prepared: Prepared) -> Event:
        generate = prepared.generate
        banned = tuple(self._folder.end_tokens) if generate.ignore_eos else ()
        for index in range(generate.n):
            sampler = Sampler(generate.sampling, index, prepared.tokens, banned)
            self._sequences.append(RowSequence(prepared, index, self._work_done, sampler))
        return Admitted(generate.id, len(prepared.tokens))

    def cancel(self, request_id: int) -> None:
        for sequence in [s for s in self._sequences if s.id == request_id]:
            self._end(sequence)

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def has_ahead(self) -> bool:
        """Never: a computation that has begun could not be interrupted."""
        return False

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        raise AssertionError("there is never anything to do")

    def set_threads(self, threads: int) -> None:
        """They stay as they were loaded; `State` goes on saying how many."""

    # --- the step ---

    def step(self) -> list[Event]:
        self._admit()
        generating = [s for s in self._memory.running if s.is_generating]
        chunk = self._pace.chunk(len(generating), num_prompts=len(self._sequences) - len(generating))
        batch = plan(self._sequences, self._work_done, chunk, self._decoder.largest_run)
        events: list[Event] = []
        if generating:
            self._decode(generating, events)
        for sequence, count in batch:
            if sequence not in generating:
                self._prefill(sequence, count, events)
        return events

    def _decode(self, generating: list[RowSequence], events: list[Event]) -> None:
        """One token for each; rows of prompts between them are computed along, for nobody."""
        last = max(sequence.slot or 0 for sequence in generating)
        rows = self._memory.running[: last + 1]
        tokens = [[s.tokens[s.num_computed] if s.is_generating else FILLER] for s in rows]
        logits = self._decoder.compute(0, tokens, [s.num_computed for s in rows])
        # All before any is taken: who ends makes room by moving another, with all that is computed of it.
        for sequence in generating:
            sequence.num_computed += 1
        for sequence, row in zip(rows, logits, strict=True):
            if sequence in generating:
                self._take(sequence, sequence.sampler.pick(row), events)

    def _prefill(self, sequence: RowSequence, count: int, events: list[Event]) -> None:
        """The next piece of a prompt; its first token if that was the last piece."""
        assert sequence.slot is not None
        done = sequence.num_computed
        piece = sequence.tokens[done : done + count]
        is_last = count == sequence.num_pending
        started = time.perf_counter()
        if is_last:
            logits = self._decoder.compute(sequence.slot, [piece], [done])
        else:
            self._decoder.read(sequence.slot, piece, done)
        self._pace.observe(count, time.perf_counter() - started)
        self._work_done += count
        sequence.num_computed += count
        if is_last:
            self._take(sequence, sequence.sampler.pick(logits[0]), events)

    def _take(self, sequence: RowSequence, token: int, events: list[Event]) -> None:
        if sequence.take(token, self._folder, events):
            self._prompts.remember(sequence)
            self._end(sequence)

    def _end(self, sequence: RowSequence) -> None:
        """The one place a sequence leaves."""
        self._sequences.remove(sequence)
        if sequence.slot is not None:
            self._memory.leave(sequence, keeps=sequence.keeps)

    def _admit(self) -> None:
        """Give waiting sequences a row, the most urgent first."""
        waiting = [sequence for sequence in self._sequences if sequence.slot is None]
        for sequence in sorted(waiting, key=lambda s: s.urgency(self._work_done)):
            running = self._memory.running
            if len(running) >= self._parallel:
                return
            sharing = [other for other in running if other.keeps] if sequence.keeps else []
            source = self._memory.find(sequence.tokens[:-1], sharing) if sequence.keeps else Source()
            if not is_worth_waiting(sequence, sharing, source.shared):
                self._memory.enter(sequence, source)

    # --- invariants ---

    def state(self) -> State:
        fault = None
        try:
            self._memory.check()
        except AssertionError as exc:
            fault = str(exc)
        running = self._memory.running
        return State(
            active=len(running),
            waiting=len(self._sequences) - len(running),
            cached=self._memory.num_kept,
            cells_used=sum(sequence.num_computed for sequence in running),
            threads=self._threads,
            fault=fault,
        )

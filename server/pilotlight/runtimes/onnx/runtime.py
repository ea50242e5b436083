"""The ONNX runtime: continuous batching over the rows of one exported graph, with prefix reuse.

Sequences that generate are computed together, one token each; prompts in pieces between them, one at a time:
a row of a graph's input cannot be shorter than another.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from pilotlight.core import WorkerInfo
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.batching import SMALLEST_CHUNK, Pace, is_worth_waiting, plan
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.limits import BUSY_STEP_S, DEFAULT_CONTEXT, DEFAULT_PARALLEL, STEP_S, num_cores
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.memory import Memory, Source
from pilotlight.runtimes.onnx.native import Graph, NativeError, library_version
from pilotlight.runtimes.prompts import Prompts
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.runtimes.sampling import Sampler
from pilotlight.worker.protocol import Admitted, Event, Generate, Load, State

FILLER = 0
"""Stands in rows between those that generate; what it writes is overwritten by what belongs there."""

OnnxSequence = Running[Sampler]


class Onnx:
    """`base.Runtime` on ONNX Runtime. The step loop owns everything; `prepare` only reads the vocabulary."""

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        started = time.perf_counter()
        path = Path(load.path)
        self._export = export = Export.read(path)
        self._folder = Folder(path, num_vocab=export.num_vocab, end_tokens=export.end_tokens)
        progress(0.1)
        self._parallel = load.parallel or DEFAULT_PARALLEL
        self._threads = load.threads or num_cores()
        # The graph holds the tables of its positions: beyond the trained context there is nothing to look up.
        self._context = min(load.context or DEFAULT_CONTEXT, export.context_trained)
        self._graph = Graph(export, self._threads)
        self._graph.open(num_rows=self._parallel, context=self._context)
        progress(0.9)
        template = self._folder.template(load.chat_template)
        self._prompts = Prompts(self._folder, template, context=self._context, parallel=self._parallel)
        self._memory: Memory[OnnxSequence] = Memory(self._graph, self._context)
        self._pace = Pace(STEP_S, BUSY_STEP_S, self._graph.largest_run)
        self._sequences: list[OnnxSequence] = []
        self._work_done = 0
        self._warm_up()
        progress(1.0)
        return WorkerInfo(
            pid=os.getpid(),
            runtime="onnx",
            version=library_version(),
            mode=load.mode,
            context=self._context,
            context_trained=export.context_trained,
            parallel=self._parallel,
            threads=self._threads,
            vocab=export.num_vocab,
            description=f"{export.kind} on CPU",
            bytes_model=sum(file.stat().st_size for file in path.glob(f"{export.graph.name}*")),
            num_parameters=0,
            has_chat_template=template is not None,
            load_s=time.perf_counter() - started,
            capabilities=CAPABILITIES["onnx"],
        )

    def _warm_up(self) -> None:
        """Touch every weight once, and find out whether the graph works as we use it. Raises `LoadError`."""
        count = min(SMALLEST_CHUNK, self._context - 1, self._graph.largest_run)
        started = time.perf_counter()
        try:
            self._graph.compute(0, [[FILLER] * count], [0])
            self._pace.observe(count, time.perf_counter() - started)
            self._graph.compute(0, [[FILLER]] * self._parallel, [0] * self._parallel)
            for row in range(self._parallel):
                self._graph.clear(row)
        except NativeError as exc:
            raise LoadError(f"{self._export.graph} cannot be computed: {exc}") from exc

    # --- requests ---

    def prepare(self, generate: Generate) -> Prepared:
        return self._prompts.prepare(generate)

    def start(self, prepared: Prepared) -> Event:
        generate = prepared.generate
        banned = tuple(self._folder.end_tokens) if generate.ignore_eos else ()
        for index in range(generate.n):
            sampler = Sampler(generate.sampling, index, prepared.tokens, banned)
            self._sequences.append(OnnxSequence(prepared, index, self._work_done, sampler))
        return Admitted(generate.id, len(prepared.tokens))

    def cancel(self, request_id: int) -> None:
        for sequence in [s for s in self._sequences if s.id == request_id]:
            self._end(sequence)

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def has_ahead(self) -> bool:
        """Never: a run that has begun could not be interrupted."""
        return False

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        raise AssertionError("there is never anything to do")

    def set_threads(self, threads: int) -> None:
        """Threads are those of the session; `State` goes on saying how many."""

    # --- the step ---

    def step(self) -> list[Event]:
        self._admit()
        generating = [s for s in self._memory.running if s.is_generating]
        chunk = self._pace.chunk(len(generating), num_prompts=len(self._sequences) - len(generating))
        batch = plan(self._sequences, self._work_done, chunk, self._graph.largest_run)
        events: list[Event] = []
        if generating:
            self._decode(generating, events)
        for sequence, count in batch:
            if sequence not in generating:
                self._prefill(sequence, count, events)
        return events

    def _decode(self, generating: list[OnnxSequence], events: list[Event]) -> None:
        """One token for each; rows of prompts between them are computed along, for nobody."""
        last = max(sequence.slot or 0 for sequence in generating)
        rows = self._memory.running[: last + 1]
        tokens = [[s.tokens[s.num_computed] if s.is_generating else FILLER] for s in rows]
        logits = self._graph.compute(0, tokens, [s.num_computed for s in rows])
        for sequence, row in zip(rows, logits, strict=True):
            if sequence in generating:
                sequence.num_computed += 1
                self._take(sequence, sequence.sampler.pick(row), events)

    def _prefill(self, sequence: OnnxSequence, count: int, events: list[Event]) -> None:
        """The next piece of a prompt; its first token if that was the last piece."""
        assert sequence.slot is not None
        done = sequence.num_computed
        started = time.perf_counter()
        logits = self._graph.compute(sequence.slot, [sequence.tokens[done : done + count]], [done])
        self._pace.observe(count, time.perf_counter() - started)
        self._work_done += count
        sequence.num_computed += count
        if not sequence.num_pending:
            self._take(sequence, sequence.sampler.pick(logits[0]), events)

    def _take(self, sequence: OnnxSequence, token: int, events: list[Event]) -> None:
        if sequence.take(token, self._folder, events):
            self._prompts.remember(sequence)
            self._end(sequence)

    def _end(self, sequence: OnnxSequence) -> None:
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

"""Continuous batching over the rows of a `Decoder`, with prefix reuse: the same for every library.

Sequences that generate are computed together, one token each; prompts in pieces between them, one at a time:
a row of the input cannot be shorter than another. Knows no library.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby

from pilotlight.core import FinishReason, RequestClass, WorkerInfo
from pilotlight.errors import NoMemory
from pilotlight.runtimes.ahead import Ahead
from pilotlight.runtimes.archive.keeper import Keeper
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.batching import SMALLEST_CHUNK, Pace, is_worth_waiting, on_shift, piece, prompts
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.computing import Computing
from pilotlight.runtimes.efficient import Efficiency
from pilotlight.runtimes.limits import (
    BRIEF_S,
    BUNDLE_S,
    BUSY_STEP_S,
    CROWD_STEP_S,
    DEFAULT_PARALLEL,
    STEP_S,
    YIELDING_STEP_S,
)
from pilotlight.runtimes.opened import Open, Opened, Sampler
from pilotlight.runtimes.prompts import Prompts
from pilotlight.runtimes.rows import DecodeError, Interrupted, Memory, Source
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.worker.protocol import Admitted, Event, Generate, Load, Refused, Saved, State, Threads

TRIM_SAVE_S = 1.0
"""For writing what is to be forgotten: memory is short, and whoever comes next waits for it."""

WARM_UP_TOKEN = 0
"""Every vocabulary has it."""

RowSequence = Running[Sampler]


class RowRuntime:
    """`base.Runtime` over a `Decoder`. The step loop owns everything; `prepare` only reads the vocabulary."""

    def __init__(self, name: str, open_model: Open) -> None:
        self._name = name
        self._open = open_model

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        started = time.perf_counter()
        opened = self._open(load, progress)
        self._decoder = opened.decoder
        self._vocabulary = opened.vocabulary
        self._make_sampler = opened.make_sampler
        self._most_threads = self._threads = self._prompt_threads = opened.threads
        self._parallel = load.parallel or DEFAULT_PARALLEL
        self._context = opened.context
        self._decoder.open(num_rows=self._parallel, context=self._context)
        self._prompts = Prompts(
            self._vocabulary, opened.template, context=self._context, parallel=self._parallel
        )
        self._memory: Memory[RowSequence] = Memory(self._decoder, self._context)
        self._keeper = self._open_archive(load, opened)
        self._ahead = Ahead(self._decoder, self._memory, self._prompts, opened.template)
        self._pace = Pace(STEP_S, BUSY_STEP_S, CROWD_STEP_S, self._decoder.largest_run)
        self._sequences: list[RowSequence] = []
        self._ended: list[RowSequence] = []
        """By themselves, in this step."""
        self._computing = Computing()
        self.take_computed = self._computing.take
        self._work_done = 0
        self._room = self._chunk = 0
        """Prompt tokens of this round: left to compute, and in all."""
        self._is_due = False
        """Somebody has waited for a token since this round began."""
        self._is_held = False
        self._yields = False
        """Nothing interactive is computed in this step."""
        self._is_wanted: Callable[[], bool] | None = None
        """Whether something interactive came during this step."""
        self._is_full = False
        """Somebody found no room; nobody gets a row until one has left."""
        self._is_spread = True
        """Memory may be laid out for sequences that have ended since."""
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
            vocab=self._vocabulary.num_vocab,
            description=opened.description,
            bytes_model=opened.bytes_model,
            num_parameters=opened.num_parameters,
            has_chat_template=opened.template is not None,
            load_s=time.perf_counter() - started,
            capabilities=CAPABILITIES[self._name],
        )

    def _open_archive(self, load: Load, opened: Opened) -> Keeper | None:
        """Conversations of earlier workers can be found from now on."""
        if load.archive is None:
            return None
        maker = " ".join(filter(None, (self._name, opened.version, opened.variant)))
        keeper = Keeper(load.archive, load, maker, self._decoder)
        for transcript in keeper.open(self._vocabulary.num_vocab):
            self._prompts.transcripts.add(transcript)
        return keeper

    def _warm_up(self, path: str) -> None:
        """Touch every weight once, and find out whether the model works as we use it. Raises `LoadError`."""
        count = max(1, min(SMALLEST_CHUNK, self._context - self._parallel, self._decoder.largest_run))
        others = self._parallel - 1
        starts = [count, *[0] * others]
        try:
            self._decoder.reserve([start + 1 for start in starts])
            started = time.perf_counter()
            self._decoder.compute(0, [[WARM_UP_TOKEN] * count], [0])
            self._pace.observe(count, time.perf_counter() - started)
            started = time.perf_counter()
            self._decoder.compute(0, [[WARM_UP_TOKEN]] * self._parallel, starts)
            self._decode_s = time.perf_counter() - started
            """What the last tokens took that were computed for those who generate."""
            for row in reversed(range(self._parallel)):
                self._decoder.clear(row)
        except DecodeError as exc:
            raise LoadError(f"{path} cannot be computed: {exc}") from exc

    # --- requests ---

    def prepare(self, generate: Generate) -> Prepared:
        prepared = self._prompts.prepare(generate)
        if self._keeper is not None and generate.cache_prompt:
            self._keeper.fetch(prepared.tokens)
        return prepared

    def start(self, prepared: Prepared) -> Event:
        generate = prepared.generate
        is_restored = self._park_fetched()
        banned = tuple(self._vocabulary.end_tokens) if generate.ignore_eos else ()
        for index in range(generate.n):
            sampler = self._make_sampler(prepared.sampling, index, prepared.tokens, banned)
            self._sequences.append(RowSequence(prepared, index, self._work_done, sampler))
        return Admitted(generate.id, len(prepared.tokens), is_restored)

    def _park_fetched(self) -> bool:
        """Have what was read for prompts at rest; False if there is nothing that memory does not know."""
        fetched = list(self._keeper.fetched(self._num_known)) if self._keeper is not None else []
        for parked in fetched:
            self._memory.park(parked)
        return bool(fetched)

    def _num_known(self, tokens: list[int]) -> int:
        """How many tokens at the start of a prompt are computed."""
        return self._memory.find(tokens, [other for other in self._memory.running if other.keeps]).shared

    def save(self, within_s: float) -> Saved:
        if self._keeper is None:
            return Saved(0, 0)
        return self._keeper.save(self._memory.kept(), self._prompts.transcripts, within_s)

    def cancel(self, request_id: int) -> None:
        for sequence in [s for s in self._sequences if s.id == request_id]:
            self._end(sequence)

    @property
    def has_work(self) -> bool:
        return bool(self._shift)

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held

    @property
    def num_paused(self) -> int:
        return len(self._sequences) - len(self._shift)

    @property
    def _shift(self) -> list[RowSequence]:
        """Those that are computed now."""
        return on_shift(self._sequences, is_held=self._is_held)

    @property
    def has_ahead(self) -> bool:
        return bool(self._ahead) and not self._sequences and not self._is_held

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        self._ahead.work(is_wanted)

    @property
    def has_spare(self) -> bool:
        return self._is_spread and not self._sequences

    def rest(self) -> None:
        self._memory.rest()
        self._is_spread = False

    def set_threads(self, threads: int, prompt_threads: int) -> Threads:
        if self._decoder.set_threads(threads, prompt_threads):
            self._threads, self._prompt_threads = threads, prompt_threads
        return Threads(self._threads, self._prompt_threads)

    def enough_threads(self, is_wanted: Callable[[], bool]) -> int:
        if self._sequences or not CAPABILITIES[self._name].live_threads:
            return 0
        try:
            return Efficiency(self._decoder, self._memory).measure(self._most_threads, is_wanted)
        finally:
            self._decoder.set_threads(self._threads, self._prompt_threads)

    # --- the step ---

    def step(self, is_wanted: Callable[[], bool] | None = None) -> list[Event]:
        """One computation: a token for everyone who generates, or a piece of a prompt if there is room.

        What was computed goes out at once; how many pieces stand between two tokens says `Pace`.
        """
        events: list[Event] = []
        if not self._memory.hold():
            self._make_room(events)
            return events
        shift = self._shift
        self._yields = all(sequence.yields for sequence in shift)
        # A brief step is over before anybody could notice; being asked at each node would make it longer.
        self._is_wanted = is_wanted if self._yields and not self.is_brief else None
        # In the order of their rows.
        generating = [s for s in self._memory.running if s.is_generating and s in shift]
        if not (generating and self._is_due):
            self._begin_round(shift, generating)
        with suppress(Interrupted):
            if not self._read_prompt(shift, events):
                self._decode(generating, events)
                self._begin_round(shift, generating)
        return events

    @property
    def is_brief(self) -> bool:
        # A token by itself waits for all weights: it may take as long as ten of a prompt.
        return self._has_brief_prompts and self._decode_s <= BRIEF_S

    @property
    def is_fluent(self) -> bool:
        return self._has_brief_prompts and self._decode_s <= BUNDLE_S

    @property
    def _has_brief_prompts(self) -> bool:
        return self._pace.seconds(sum(sequence.num_pending for sequence in self._shift)) <= BRIEF_S

    def settle(self) -> None:
        # What they computed and said may be of use. Copying it takes milliseconds for each hundred tokens.
        # The last row first: if all end now, none is moved.
        while self._ended:
            sequence = self._ended.pop()
            # Nobody who waits goes on with a line of a batch, nor may its words get into another's file.
            if not _is_of_batch(sequence) and self._prompts.remember(sequence):
                self._ahead.note(sequence)
            self._end(sequence)

    def _begin_round(self, shift: list[RowSequence], generating: list[RowSequence]) -> None:
        """From now on, so many tokens of prompts until the next token of everyone who generates."""
        longest_s = YIELDING_STEP_S if self._yields else math.inf
        waiting = [sequence for sequence in shift if not sequence.is_generating]
        self._room = self._chunk = self._pace.chunk(generating, waiting, longest_s)
        self._is_due = bool(generating)

    def _decode(self, generating: list[RowSequence], events: list[Event]) -> None:
        """One token for each, computed together where their rows are side by side."""
        started = time.perf_counter()
        is_wanted = self._is_wanted
        for _, neighbours in groupby(enumerate(generating), key=lambda pair: (pair[1].row or 0) - pair[0]):
            rows = [sequence for _, sequence in neighbours]
            assert rows[0].row is not None
            newest = [[sequence.tokens[-1]] for sequence in rows]
            starts = [sequence.num_computed for sequence in rows]
            logits = self._decoder.compute(rows[0].row, newest, starts, is_wanted)
            # All or nothing: what is drawn cannot be put back.
            is_wanted = None
            for sequence, row in zip(rows, logits, strict=True):
                sequence.num_computed += 1
                self._take(sequence, sequence.sampler.pick(row), events)
        self._decode_s = time.perf_counter() - started
        self._computing.decode([s.id for s in generating], self._decode_s)

    def _read_prompt(self, shift: list[RowSequence], events: list[Event]) -> bool:
        """The next piece of a prompt; False if there is none, or tokens are due first."""
        if self._room <= 0 or (sequence := self._next_prompt(shift, events)) is None:
            return False
        count = piece(sequence, self._room, is_first=self._room == self._chunk)
        if count:
            self._room -= count
            self._read(sequence, min(count, self._decoder.largest_run), events)
        return bool(count)

    def _read(self, sequence: RowSequence, count: int, events: list[Event]) -> None:
        """The next tokens of a prompt, and the first of the answer if those were the last."""
        assert sequence.row is not None
        done = sequence.num_computed
        tokens = sequence.tokens[done : done + count]
        is_last = count == sequence.num_pending
        started = time.perf_counter()
        if is_last:
            logits = self._decoder.compute(sequence.row, [tokens], [done], self._is_wanted)
        elif not self._decoder.read(sequence.row, tokens, done, self._is_wanted):
            raise Interrupted
        seconds = time.perf_counter() - started
        self._pace.observe(count, seconds)
        self._computing.prefill(sequence.id, count, seconds)
        self._work_done += count
        sequence.num_computed += count
        if is_last:
            self._take(sequence, sequence.sampler.pick(logits[0]), events)
            if not sequence.has_said and sequence not in self._ended:
                # Its client has nothing yet: its next token is due before other prompts.
                self._room, self._is_due = 0, True

    def _take(self, sequence: RowSequence, token: int, events: list[Event]) -> None:
        if sequence.take(token, self._vocabulary, events):
            self._ended.append(sequence)

    # --- rows ---

    def _next_prompt(self, shift: list[RowSequence], events: list[Event]) -> RowSequence | None:
        """The most urgent one. It gets a row only now, so that those who generate stay side by side."""
        for sequence in prompts(shift, self._work_done):
            if sequence.row is not None or self._enter(sequence, shift):
                return sequence
            if not self._memory.running:
                self._refuse(sequence, events)
                break
        return None

    def _enter(self, sequence: RowSequence, shift: list[RowSequence]) -> bool:
        """Give it a row; False if it has to wait. What is paused is set aside for it, as far as need be."""
        if any(other not in shift for other in self._memory.running):
            # Those for whom it was too full may be among the paused.
            self._is_full = False
        elif self._is_full or len(self._memory.running) >= self._parallel:
            # Before anything is looked for: who waits is asked about at every step.
            return False
        while True:
            sharing = [other for other in self._memory.running if other.keeps] if sequence.keeps else []
            # The last token of a prompt always is computed anew, for the logits.
            source = self._memory.find(sequence.tokens[:-1], sharing) if sequence.keeps else Source()
            computing = [other for other in sharing if other in shift] if self._decoder.can_cut else []
            if is_worth_waiting(sequence, computing, source.shared):
                return False
            if self._find_room(sequence, source):
                return True
            paused = [other for other in self._memory.running if other not in shift]
            if not paused:
                return False
            # The one in the last row: those behind it move up, and stay side by side.
            self._set_aside(paused[-1])
            self._is_full = False

    def _find_room(self, sequence: RowSequence, source: Source) -> bool:
        running = self._memory.running
        if self._is_full or len(running) >= self._parallel:
            return False
        is_in = self._memory.enter(sequence, source, outlives=not _is_of_batch(sequence))
        self._is_full = not is_in and bool(running)
        return is_in

    def _refuse(self, sequence: RowSequence, events: list[Event]) -> None:
        """There is no memory for it, and nobody runs who could give some back."""
        num_tokens = len(sequence.tokens)
        text = f"there is no memory for the {num_tokens} tokens of this request"
        events.append(Refused(sequence.id, NoMemory.__name__, text, None))
        self.cancel(sequence.id)

    def _make_room(self, events: list[Event]) -> None:
        """The memory is full: the newest sequence waits, of those that yield if there are any."""
        newest = max(self._memory.running, key=lambda sequence: (sequence.yields, sequence.arrival))
        if len(self._memory.running) > 1:
            self._set_aside(newest)
            self._is_full = True
        else:
            newest.finish(FinishReason.LENGTH, events)
            self._ended.append(newest)

    def _set_aside(self, sequence: RowSequence) -> None:
        """It loses its row, and goes on later. Nothing is lost but time."""
        self._leave(sequence)
        sequence.num_computed = 0

    def _end(self, sequence: RowSequence) -> None:
        """The one place a sequence leaves for good."""
        self._sequences.remove(sequence)
        self._is_spread = True
        if sequence.row is not None:
            self._leave(sequence)
        self._is_full = False

    def _leave(self, sequence: RowSequence) -> None:
        """Others find what it computed. Who deletes a batch deletes all of it: no file gets its words."""
        self._memory.leave(sequence, keeps=sequence.keeps, outlives=not _is_of_batch(sequence))

    def trim(self) -> None:
        if not self._sequences:
            # Nobody waits meanwhile, and what is forgotten cannot be saved when the worker goes.
            self.save(TRIM_SAVE_S)
        self._memory.forget()
        if self._keeper is not None:
            self._keeper.forget()

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
            cells_used=self._memory.num_tokens,
            threads=self._threads,
            fault=fault,
        )


def _is_of_batch(sequence: RowSequence) -> bool:
    return sequence.prepared.generate.request_class is RequestClass.BATCH

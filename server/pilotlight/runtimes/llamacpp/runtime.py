"""The llama.cpp runtime: continuous batching with prefix reuse over one unified memory.

A request becomes `n` running sequences. They wait until their prompt has room, take a slot, share what a kept
or running sequence already computed, are decoded together, and leave their tokens behind for the next
request.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotlight.chat.template import ChatTemplate
from pilotlight.core import FinishReason, WorkerInfo
from pilotlight.errors import BadRequest
from pilotlight.runtimes import batching
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.batching import Pace, is_worth_waiting, num_padding, plan
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.limits import (
    BUSY_STEP_S,
    DEFAULT_CONTEXT,
    DEFAULT_PARALLEL,
    HEADROOM,
    STEP_S,
    num_cores,
)
from pilotlight.runtimes.llamacpp.memory import NUM_KEPT, Memory, Source
from pilotlight.runtimes.llamacpp.native import MODES, Llama, library_version
from pilotlight.runtimes.llamacpp.sampler import Sampler
from pilotlight.runtimes.prompts import Prompts
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.worker.protocol import Admitted, Event, Generate, Load, State

FIRST_CELLS = 2048
"""Memory for tokens at the start; it doubles, up to the context, when the requests need it."""

LARGEST_BATCH = 512
"""Tokens per decode step: larger ones compute no faster on a CPU and delay cancels and new prompts."""

WARM_UP_TOKENS = batching.SMALLEST_CHUNK

FURTHEST_AHEAD = 256
"""Tokens of a next turn to compute at most before anybody asks for it: nobody may ever."""

MOST_AHEAD = 8
"""Conversations that ended lately whose next turn may be begun."""

LlamaSequence = Running[Sampler]


@dataclass(frozen=True, slots=True)
class Ending:
    """A chat's request and its whole answer."""

    generate: Generate
    answer: str


class LlamaCpp:
    """`base.Runtime` on llama.cpp. The step loop owns everything; `prepare` only reads the vocabulary."""

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        started = time.perf_counter()
        path = Path(load.path)
        _check_file(path)
        self._llama = llama = Llama(path, MODES[load.mode], progress)
        self._parallel = load.parallel or DEFAULT_PARALLEL
        self._threads = load.threads or num_cores()
        num_slots = self._parallel + NUM_KEPT
        self._context = load.context or min(DEFAULT_CONTEXT, llama.context_trained or DEFAULT_CONTEXT)
        llama.open(
            num_cells=min(self._context, FIRST_CELLS),
            num_slots=num_slots + 1,
            largest_batch=LARGEST_BATCH,
            threads=self._threads,
        )
        self._template = _template(llama, load.chat_template)
        self._filler = llama.warmup_token()
        self._memory = Memory(llama, num_slots, self._context)
        self._padding_slot = num_slots
        self._prompts = Prompts(llama, self._template, context=self._context, parallel=self._parallel)
        self._endings: deque[Ending] = deque(maxlen=MOST_AHEAD)
        self._pace = Pace(STEP_S, BUSY_STEP_S, llama.largest_batch - self._parallel)
        self._sequences: list[LlamaSequence] = []
        self._work_done = 0
        self._is_full = False
        """Memory ran out; no sequence starts until one has ended."""
        self._warm_up()
        return self._info(load, time.perf_counter() - started)

    def _warm_up(self) -> None:
        started = time.perf_counter()
        self._llama.warm_up(WARM_UP_TOKENS)
        self._pace.observe(WARM_UP_TOKENS, time.perf_counter() - started)

    def _info(self, load: Load, load_s: float) -> WorkerInfo:
        llama = self._llama
        return WorkerInfo(
            pid=os.getpid(),
            runtime="llamacpp",
            version=library_version(),
            mode=load.mode,
            context=self._context,
            context_trained=llama.context_trained,
            parallel=self._parallel,
            threads=self._threads,
            vocab=llama.num_vocab,
            description=llama.description,
            bytes_model=llama.bytes_model,
            num_parameters=llama.num_parameters,
            has_chat_template=self._template is not None,
            load_s=load_s,
            capabilities=CAPABILITIES["llamacpp"],
        )

    # --- requests ---

    def prepare(self, generate: Generate) -> Prepared:
        return self._prompts.prepare(generate)

    def start(self, prepared: Prepared) -> Event:
        generate = prepared.generate
        banned = self._llama.end_tokens if generate.ignore_eos else ()
        for index in range(generate.n):
            sampler = Sampler(self._llama, generate.sampling, index, prepared.tokens, tuple(banned))
            self._sequences.append(LlamaSequence(prepared, index, self._work_done, sampler))
        return Admitted(generate.id, len(prepared.tokens))

    def cancel(self, request_id: int) -> None:
        for sequence in [s for s in self._sequences if s.id == request_id]:
            self._end(sequence)

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def set_threads(self, threads: int) -> None:
        self._threads = threads
        self._llama.set_threads(threads)

    # --- the step ---

    def step(self) -> list[Event]:
        self._admit()
        num_running = sum(sequence.is_generating for sequence in self._sequences)
        chunk = self._pace.chunk(num_running, num_prompts=len(self._sequences) - num_running)
        batch = plan(self._sequences, self._work_done, chunk, self._llama.largest_batch)
        started = time.perf_counter()
        if not self._compute(batch):
            return self._make_room()
        self._pace.observe(sum(count for _, count in batch), time.perf_counter() - started)
        sampled = self._advance(batch)
        rows = self._llama.logits(len(sampled)) if sampled else ()
        events: list[Event] = []
        for output, sequence in enumerate(sampled):
            if sequence.take(sequence.sampler.pick(rows[output], output), self._llama, events):
                self._leave(sequence)
        return events

    def _compute(self, batch: list[tuple[LlamaSequence, int]]) -> bool:
        """Decode the batch, padded if that is faster; False if the memory is full."""
        padding = num_padding(sum(count for _, count in batch))
        self._fill(batch, padding)
        done = self._llama.decode()
        if padding and not done:
            self._fill(batch, 0)
            return self._llama.decode()
        if padding:
            self._llama.clear(self._padding_slot)
        return done

    def _fill(self, batch: list[tuple[LlamaSequence, int]], padding: int) -> None:
        target = self._llama.batch
        target.clear()
        for sequence, count in batch:
            assert sequence.slot is not None
            done = sequence.num_computed
            target.add(
                sequence.tokens[done : done + count],
                position=done,
                slot=sequence.slot,
                wants_logits=count == sequence.num_pending,
            )
        target.add([self._filler] * padding, position=0, slot=self._padding_slot, wants_logits=False)

    def _advance(self, batch: list[tuple[LlamaSequence, int]]) -> list[LlamaSequence]:
        """Note what was computed; return the sequences that have logits now, in output order."""
        sampled = []
        for sequence, count in batch:
            if not sequence.is_generating:
                self._work_done += count
            sequence.num_computed += count
            if sequence.num_pending == 0:
                sampled.append(sequence)
        return sampled

    def _leave(self, sequence: LlamaSequence) -> None:
        """It has ended by itself: what it computed and said may be of use."""
        generate = sequence.prepared.generate
        if self._prompts.remember(sequence) and generate.prompt.messages is not None:
            self._endings.append(Ending(generate, sequence.answer))
        self._end(sequence)

    def _end(self, sequence: LlamaSequence) -> None:
        """The one place a sequence leaves: its slot becomes a kept prefix, or free."""
        self._sequences.remove(sequence)
        sequence.sampler.free()
        if sequence.slot is None:
            return
        self._is_full = False
        if sequence.keeps:
            self._memory.keep(sequence)
        else:
            self._memory.release(sequence)
        if any(other.slot is not None for other in self._sequences):
            self._memory.clear_out()

    # --- the next turn ---

    @property
    def has_ahead(self) -> bool:
        return bool(self._endings)

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        """Begin the next turns of chats that ended: what stands before the user's next words is known."""
        while self._endings and not is_wanted():
            ending = self._endings.pop()
            if not self._look_ahead(ending, is_wanted):
                self._endings.append(ending)

    def _look_ahead(self, ending: Ending, is_wanted: Callable[[], bool]) -> bool:
        """Compute the end of the answer's turn and the header of the user's next; False if interrupted.

        A template that drops the reasoning from earlier turns has the rest of the answer computed, too.
        """
        if self._template is None or not self._llama.can_share_prefixes:
            return True
        generate = ending.generate
        messages = generate.prompt.messages or ()
        try:
            text = self._template.opening(messages, ending.answer, generate.prompt.template_kwargs)
        except BadRequest:
            return True
        tokens = self._prompts.tokenize(generate, text)
        source = self._memory.find(tokens, ())
        ahead = len(tokens) - source.shared
        if not source.shared or not 0 < ahead <= min(FURTHEST_AHEAD, self._llama.largest_batch):
            return True
        sequence = batching.Sequence(tokens, self._work_done)
        self._memory.enter(sequence, source)
        assert sequence.slot is not None
        if sequence.num_computed < source.shared:  # there was no room to take it out of the parking
            self._memory.release(sequence)
            return True
        batch = self._llama.batch
        batch.clear()
        batch.add(tokens[source.shared :], position=source.shared, slot=sequence.slot, wants_logits=False)
        is_done = self._llama.decode_unless(is_wanted)
        if is_done:
            sequence.num_computed = len(tokens)
        else:
            self._llama.cut(sequence.slot, sequence.num_computed)
        self._memory.keep(sequence)
        return is_done or not is_wanted()

    # --- room ---

    def _admit(self) -> None:
        """Give waiting sequences a slot, the most urgent first, while they fit beside those that run."""
        waiting = sorted(
            (s for s in self._sequences if s.slot is None), key=lambda s: s.urgency(self._work_done)
        )
        for sequence in waiting:
            running = [s for s in self._sequences if s.slot is not None]
            if running and (self._is_full or len(running) >= self._parallel):
                return
            source = self._source(sequence, running)
            held = sum(len(s.tokens) - s.cached_tokens for s in running)
            wanted = held + len(sequence.tokens) - source.shared + HEADROOM
            if running and wanted > self._context:
                return
            if self._is_being_computed(sequence, running, source.shared):
                continue
            if wanted > self._llama.num_cells:
                self._memory.grow(min(wanted, self._context), running)
                source = self._source(sequence, running)
            self._memory.enter(sequence, source)

    def _source(self, sequence: LlamaSequence, running: list[LlamaSequence]) -> Source:
        """Where its prompt is computed already; its last token always is anew, for the logits."""
        if not sequence.keeps:
            return Source()
        return self._memory.find(sequence.tokens[:-1], (other for other in running if other.keeps))

    def _is_being_computed(self, sequence: LlamaSequence, running: list[LlamaSequence], shared: int) -> bool:
        """A longer part of its prompt than the `shared` one is on
        its way in somebody else's: wait for that."""
        if not (sequence.keeps and self._llama.can_share_prefixes):
            return False
        return is_worth_waiting(sequence, (other for other in running if other.keeps), shared)

    def _make_room(self) -> list[Event]:
        """The memory is full: park a prefix at rest, else grow, else let the newest sequence start over."""
        started = [sequence for sequence in self._sequences if sequence.slot is not None]
        if self._memory.make_room() or self._memory.grow(self._llama.num_cells + 1, started):
            return []
        newest = max(started, key=lambda sequence: sequence.arrival)
        events: list[Event] = []
        if len(started) > 1:
            # Its tokens are computed again when there is room. Nothing is lost but time.
            self._memory.release(newest)
            self._is_full = True
        else:
            newest.finish(FinishReason.LENGTH, events)
            self._leave(newest)
        return events

    # --- invariants ---

    def state(self) -> State:
        fault = None
        try:
            self._memory.check(self._sequences)
        except AssertionError as exc:
            fault = str(exc)
        running = [sequence for sequence in self._sequences if sequence.slot is not None]
        return State(
            active=len(running),
            waiting=len(self._sequences) - len(running),
            cached=self._memory.num_kept,
            cells_used=sum(s.num_computed for s in running) + self._memory.num_kept_tokens,
            threads=self._threads,
            fault=fault,
        )


def _check_file(path: Path) -> None:
    """Refuse what is no GGUF before native code sees it."""
    if not path.exists():
        raise LoadError(f"{path} does not exist")
    if not path.is_file():
        raise LoadError(
            f"{path} is not a file; a model is a GGUF file, or a folder with a genai_config.json (ONNX) or "
            "a config.json (MLX)"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise LoadError(f"{path} is not a GGUF file: {size} bytes, starting with {magic!r}")


def _template(llama: Llama, override: str | None) -> ChatTemplate | None:
    source = override or llama.chat_template
    if source is None:
        return None
    return ChatTemplate(source, bos=llama.special_text("bos"), eos=llama.special_text("eos"))

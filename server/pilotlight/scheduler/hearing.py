"""What workers say of the requests they have, handed to the answers it belongs to."""

from collections.abc import Callable, Mapping

import anyio
import structlog

from pilotlight import errors
from pilotlight.core import Accepted, Chunk, Finished, Model, Request, Severity
from pilotlight.energy.ledger import Ledger
from pilotlight.errors import Error
from pilotlight.notices import Notices
from pilotlight.power.slowdown import Slowdown
from pilotlight.scheduler.answer import Answer
from pilotlight.scheduler.books import Books
from pilotlight.scheduler.dispatches import Dispatched, Dispatches
from pilotlight.worker.handle import Said
from pilotlight.worker.protocol import (
    Admitted,
    Delta,
    Done,
    Event,
    FirstDelta,
    Paused,
    Refused,
    Saved,
    State,
    Step,
    Threads,
)

REFUSALS = {kind.__name__: kind for kind in (errors.BadRequest, errors.ContextOverflow, errors.NoMemory)}
"""What a worker may refuse a request with."""

log = structlog.get_logger()


class Hearing:
    """Hears every worker; `done` is told of each request that has ended, with the error if there was one."""

    def __init__(
        self,
        answers: Mapping[str, Answer],
        dispatches: Dispatches,
        books: Books,
        slowdown: Slowdown,
        ledger: Ledger,
        notices: Notices,
        done: Callable[[Request, Error | None], None],
    ) -> None:
        self._answers = answers
        self._dispatches = dispatches
        self._books = books
        self._slowdown = slowdown
        self._ledger = ledger
        self._notices = notices
        self._done = done
        self.num_yielding_tokens = 0
        """That were generated so far by requests that yield."""

    def hear(self, model: Model, message: Said) -> None:
        """What the model's worker said."""
        match message:
            case Step():  # nearly all are
                self._on_step(model, message)
            case State():
                self._on_state(model, message)
            case Paused(num_sequences):
                self._books[model.name].pauses.note(num_sequences, anyio.current_time())
                self._slowdown.changed(model.name)
                self._ledger.paused(model.name, num_sequences, anyio.current_time())
            case Threads(threads, prompt_threads):
                self._books[model.name].note_threads(message)
                self._slowdown.changed(model.name)
                log.info("threads", model=model.name, threads=threads, prompt_threads=prompt_threads)
            case Saved(count, num_bytes):
                self._books[model.name].saved += count
                log.info("conversations saved", model=model.name, count=count, bytes=num_bytes)

    def _on_step(self, model: Model, step: Step) -> None:
        now = anyio.current_time()
        self._ledger.computed(model.name, step.computed, now)
        tokens: dict[tuple[int, int], int] = {}
        for event in step.events:
            dispatched = self._dispatches.get(event.id)
            if dispatched is not None:  # else cancelled while the frame was on its way
                self._on_event(dispatched, event)
                if isinstance(event, Delta):
                    # Of a fast model one frame brings several pieces.
                    sequence = event.id, event.index
                    tokens[sequence] = tokens.get(sequence, 0) + event.tokens
        if tokens:
            at = self._books[model.name]
            assert at.info is not None, "a worker that speaks has said what it is"
            self._slowdown.said(model, at.info.mode, tokens, (at.threads, at.prompt_threads), now)

    def _on_event(self, dispatched: Dispatched, event: Event) -> None:
        answer = self._answers.get(dispatched.request.id)
        if answer is None:
            return
        match event:
            case Delta(_, index, text, tokens):
                self.num_yielding_tokens += tokens if dispatched.request.yields else 0
                cached_tokens = event.cached_tokens if isinstance(event, FirstDelta) else 0
                answer.put(Chunk(index, text, tokens, cached_tokens))
            case Admitted(_, prompt_tokens, restored):
                self._books[dispatched.request.model].restored += restored
                answer.put(Accepted(prompt_tokens))
                self._slowdown.admitted(dispatched.request.model, dispatched.number, prompt_tokens)
            case Done(_, index, reason, completion_tokens, cached_tokens):
                answer.put(Finished(index, reason, completion_tokens, cached_tokens))
                dispatched.unfinished -= 1
                self._slowdown.ended(dispatched.request.model, [(dispatched.number, index)])
                if not dispatched.unfinished:
                    self._done(dispatched.request, None)
            case Refused(_, code, text, param):
                self._done(dispatched.request, REFUSALS.get(code, errors.BadRequest)(text, param=param))

    def _on_state(self, model: Model, state: State) -> None:
        """It counted when its last request had ended and before the next one came, so nothing may run."""
        log.debug("worker counted", model=model.name, active=state.active, waiting=state.waiting)
        left = state.active + state.waiting
        fault = state.fault or (f"{left} sequences belong to no request" if left else None)
        if fault:
            log.error("worker broke an invariant", model=model.name, fault=fault)
            self._notices.raise_(f"worker_fault_{model.name}", Severity.ERROR, fault)

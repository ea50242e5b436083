"""The worker's thread that reads frames, renders and tokenizes, beside the step loop.

It ends the process when stdin closes, even while native code computes or loads.
"""

import os
import queue
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from pilotlight.errors import BadRequest
from pilotlight.runtimes.base import Runtime
from pilotlight.worker import heap
from pilotlight.worker.protocol import (
    Cancel,
    Event,
    Finish,
    Generate,
    Hold,
    Inspect,
    Load,
    Measured,
    MeasureThreads,
    Refused,
    SetThreads,
    Splitter,
    ToDaemon,
    ToWorker,
    Trim,
    decode_to_worker,
)

READ_BYTES = 1 << 16

Task = Callable[[Runtime], Event | ToDaemon | None]


class Intake:
    """Reads frames from the daemon and turns each into a task for the step loop."""

    def __init__(self, source: BinaryIO) -> None:
        self._fd = source.fileno()
        self._splitter = Splitter()
        self._is_reading = False
        """What was read is not put yet."""
        self._urgent: deque[int] = deque()
        """Interactive requests that were read and have not begun."""
        self._is_held = False
        self.tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self.runtime: Runtime | None = None
        """Set once loaded; the daemon sends requests only after `Ready`."""

    def read_load(self) -> Load:
        """The first message; nothing follows it before `Ready`."""
        while not (bodies := self._splitter.feed(self._read())):
            pass
        (message,) = map(decode_to_worker, bodies)
        assert isinstance(message, Load), f"the first message is {type(message).__name__}, not Load"
        return message

    def run(self) -> None:
        """Until stdin closes."""
        while True:
            for body in self._splitter.feed(self._read()):
                self.take(decode_to_worker(body))
            self._is_reading = False

    def take(self, message: ToWorker) -> None:
        """Put what the step loop has to do for it, once that is prepared."""
        self.tasks.put(self._task(message))

    def is_wanting(self) -> bool:
        """A task is there, or about to be."""
        return self._is_reading or not self.tasks.empty()

    def is_urgent(self) -> bool:
        """An interactive request is there, and nobody knows of it."""
        return bool(self._urgent)

    def _read(self) -> bytes:
        data = os.read(self._fd, READ_BYTES)
        if not data:
            # The daemon is gone or wants us gone. Nothing here outlives the process, so there is nothing to
            # clean up, and the main thread may be deep in native code.
            os._exit(0)
        self._is_reading = True
        return data

    def _task(self, message: ToWorker) -> Task:
        match message:
            case Generate():
                return self._prepare(message) if message.request_class.yields else self._hurry(message)
            case Hold(is_held):
                return lambda runtime: self._hold(runtime, is_held)
            case Cancel(request_id):
                return lambda runtime: runtime.cancel(request_id)
            case SetThreads(threads, prompt_threads):
                return lambda runtime: runtime.set_threads(threads, prompt_threads)
            case MeasureThreads():
                return lambda runtime: Measured(runtime.enough_threads(self.is_wanting))
            case Trim():
                return _trim
            case Inspect():
                return lambda runtime: runtime.state()
            case Finish(within_s):
                return lambda runtime: runtime.save(within_s)
            case Load():
                raise AssertionError("a worker loads one model once")

    def _hurry(self, generate: Generate) -> Task:
        """What yields makes way for it while it is still being prepared."""
        self._urgent.append(generate.id)
        self.tasks.put(lambda runtime: runtime.hold(True))
        begin = self._prepare(generate)

        def task(runtime: Runtime) -> Event | ToDaemon | None:
            reply = begin(runtime)
            self._urgent.popleft()
            self._hold(runtime, self._is_held)
            return reply

        return task

    def _hold(self, runtime: Runtime, is_held: bool) -> None:
        """As the daemon says, and as long as something interactive is being prepared."""
        self._is_held = is_held
        runtime.hold(is_held or bool(self._urgent))

    def _prepare(self, generate: Generate) -> Task:
        assert self.runtime is not None, "the daemon sent a request before Ready"
        try:
            prepared = self.runtime.prepare(generate)
        except BadRequest as exc:
            refused = Refused(generate.id, type(exc).__name__, exc.message, exc.param)
            return lambda runtime: refused
        return lambda runtime: runtime.start(prepared)


def _trim(runtime: Runtime) -> None:
    runtime.trim()
    heap.give_back()

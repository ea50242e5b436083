"""The worker process: one model, one loop. Started as `python -m pilotlight.worker.child RUNTIME`.

Two threads. The intake reads frames, renders and tokenizes, and ends the process when stdin closes, even
while native code computes or loads. The main thread owns the runtime: it takes what the intake prepared,
steps, and writes what happened as frames.
"""

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import BinaryIO

from msgspec.structs import replace

from pilotlight.core import LULL_S
from pilotlight.errors import BadRequest
from pilotlight.runtimes import create
from pilotlight.runtimes.base import LoadError, MissingLibraryError, Runtime
from pilotlight.worker import heap
from pilotlight.worker.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Computed,
    Delta,
    Event,
    Finish,
    Generate,
    Hello,
    Hold,
    Inspect,
    Load,
    LoadFailed,
    Measured,
    MeasureThreads,
    Paused,
    Progress,
    Ready,
    Refused,
    Saved,
    SetThreads,
    Splitter,
    Step,
    Threads,
    ToDaemon,
    ToWorker,
    Trim,
    decode_to_worker,
    encode,
)

READ_BYTES = 1 << 16

SWITCH_INTERVAL_S = 0.0005
"""How long the intake may hold the interpreter when the step
loop wants it; Python's own 5 ms is a decode step."""

PROGRESS_STEP = 0.01

BUNDLE_S = 0.008
"""Text may wait this long for more of it; half of what one frame of a 60 Hz screen takes."""

TELL_S = 0.25
"""How often the daemon is told for whom was computed, between the ends of requests."""

Task = Callable[[Runtime], Event | ToDaemon | None]


def main() -> None:
    """Run until stdin closes, the daemon has enough, or the model cannot be loaded."""
    output = _take_stdout()
    # ggml would start a debugger to print a backtrace before it aborts: seconds of waiting, and memory in a
    # log.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    def send(message: ToDaemon) -> None:
        _write(output, encode(message))

    send(Hello(PROTOCOL_VERSION, os.getpid()))
    threading.excepthook = _end_process
    intake = Intake(sys.stdin.buffer)
    load = intake.read_load()
    threading.Thread(target=intake.run, name="intake", daemon=True).start()
    try:
        runtime = create(sys.argv[1])
        info = runtime.load(load, _throttled(send))
    except LoadError as exc:
        send(LoadFailed(str(exc), missing=isinstance(exc, MissingLibraryError)))
        return
    if load.measures_threads:
        send(Progress(1.0, is_measuring=True))
        info = replace(info, enough_threads=runtime.enough_threads(lambda: False))
    heap.give_back()  # what was only needed to load
    intake.runtime = runtime
    send(Ready(info))
    serve(runtime, intake, send)
    # Sooner than by taking everything apart: its memory is wanted.
    os._exit(0)


def serve(runtime: Runtime, intake: "Intake", send: Callable[[ToDaemon], None]) -> None:
    """The step loop, until `Saved` is said; waits without a timer when there is nothing to do."""
    outbox = Outbox(send, runtime.take_computed)
    tasks = intake.tasks
    while True:
        events: list[Event] = []
        while not tasks.empty() or not runtime.has_work:
            # What comes now may make the next step a long one.
            outbox.flush()
            outbox.tell_paused(runtime.num_paused)
            reply = _next_task(runtime, intake)(runtime)
            if isinstance(reply, Event):
                events.append(reply)
            elif reply is not None:
                send(reply)
            if isinstance(reply, Saved):
                return
            if events and not runtime.has_work:
                break
        if events and runtime.has_work and runtime.is_brief:
            # A frame less for the daemon to wake up for, on this processor while this waits.
            outbox.hold(events)
        else:
            # An admission or refusal must not wait for a long prompt to be computed.
            outbox.add(events)
        outbox.tell_paused(runtime.num_paused)
        if runtime.has_work:
            outbox.add(runtime.step(intake.is_urgent))
            runtime.settle()
            if not runtime.is_brief:
                outbox.release()


def _next_task(runtime: Runtime, intake: "Intake") -> Task:
    """Wait for it; in a lull, the runtime works ahead."""
    while True:
        is_worth_it = runtime.has_ahead and not runtime.has_work
        try:
            return intake.tasks.get(timeout=LULL_S if is_worth_it else None)
        except queue.Empty:
            runtime.work_ahead(intake.is_wanting)


class Outbox:
    """Sends events as they come, and bundles text that comes faster than anybody can see.

    A tiny model makes a token in half a millisecond; waking the daemon and the client for each would cost
    them more than the token costs us.
    """

    def __init__(
        self,
        send: Callable[[ToDaemon], None],
        take_computed: Callable[[], tuple[Computed, ...]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._send = send
        self._take_computed = take_computed
        self._clock = clock
        self._held: list[Event] = []
        self._sent_at = self._told_at = -BUNDLE_S
        self._num_paused = 0

    def add(self, events: Sequence[Event]) -> None:
        """Send what is held and these, unless that is only text and the last text is younger than
        `BUNDLE_S`."""
        self.hold(events)
        now = self._clock()
        is_text = all(isinstance(event, Delta) for event in self._held)
        if not is_text or now - self._told_at >= TELL_S:
            self.flush()
        elif now - self._sent_at >= BUNDLE_S:
            self.release()

    def hold(self, events: Sequence[Event]) -> None:
        """Send them with what comes next."""
        self._held += events

    def tell_paused(self, num_sequences: int) -> None:
        """Send how many are paused, if that is news."""
        if num_sequences != self._num_paused:
            self._num_paused = num_sequences
            self._send(Paused(num_sequences))

    def release(self) -> None:
        """Send what is held."""
        self._write(())

    def flush(self) -> None:
        """Send what is held, and for whom was computed."""
        self._told_at = self._clock()
        self._write(self._take_computed())

    def _write(self, computed: tuple[Computed, ...]) -> None:
        if not self._held and not computed:
            return
        self._send(Step(tuple(self._held), computed))
        if any(isinstance(event, Delta) for event in self._held):
            self._sent_at = self._clock()
        self._held = []


class Intake:
    """Reads frames from the daemon and turns each into a task for the step loop."""

    def __init__(self, source: BinaryIO) -> None:
        self._fd = source.fileno()
        self._splitter = Splitter()
        self._is_reading = False
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
                self.tasks.put(self._task(decode_to_worker(body)))
            self._is_reading = False

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
                return lambda runtime: Threads(runtime.set_threads(threads, prompt_threads))
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


def _end_process(failed: threading.ExceptHookArgs) -> None:
    """A bug in the intake: without it nobody hears requests, nor that stdin closed."""
    sys.excepthook(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    sys.stderr.flush()
    os._exit(1)


def _take_stdout() -> int:
    """Keep the pipe to the daemon to ourselves: what native code prints goes to stderr."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _throttled(send: Callable[[ToDaemon], None]) -> Callable[[float], None]:
    """Progress in steps of a percent: llama.cpp calls once per tensor."""
    last = -1.0

    def progress(fraction: float) -> None:
        nonlocal last
        if fraction - last >= PROGRESS_STEP:
            last = fraction
            send(Progress(fraction))

    return progress


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)

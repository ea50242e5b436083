"""The worker process: one model, one loop. Started as `python -m pilotlight.worker.child RUNTIME`.

Two threads. The intake reads frames, renders and tokenizes (`intake`). The main thread owns the runtime: it
takes what the intake prepared, steps, and writes what happened as frames.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from msgspec.structs import replace

from pilotlight.core import LULL_S
from pilotlight.runtimes import create
from pilotlight.runtimes.base import LoadError, MissingLibraryError, Runtime
from pilotlight.runtimes.limits import BUNDLE_S
from pilotlight.worker import heap
from pilotlight.worker.intake import Intake, Task
from pilotlight.worker.protocol import (
    PROTOCOL_VERSION,
    Computed,
    Delta,
    Event,
    Hello,
    LoadFailed,
    Paused,
    Progress,
    Ready,
    Saved,
    Step,
    ToDaemon,
    encode,
)

SWITCH_INTERVAL_S = 0.0005
"""How long the intake may hold the interpreter when the step loop wants it; Python's own 5 ms is a decode
step."""

INTAKE_STACK_BYTES = 256 * 2**20
"""llama.cpp splits texts with `std::regex`, which calls itself for every character in a row. Takes no memory
before it is used; enough for `prompts.LONGEST`."""

PROGRESS_STEP = 0.01

REST_S = 60.0
"""Without a request for so long, memory is worth more than the moment that a crowd waits until it is made."""

TELL_S = 0.25
"""How often the daemon is told for whom was computed, between the ends of requests."""


def main() -> None:
    """Run until stdin closes, the daemon has enough, or the model cannot be loaded."""
    sys.excepthook = _tell_bug
    source, output = _take_stdin(), _take_stdout()
    # ggml would start a debugger to print a backtrace before it aborts: seconds of waiting, and memory in a
    # log.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    def send(message: ToDaemon) -> None:
        _write(output, encode(message))

    send(Hello(PROTOCOL_VERSION, os.getpid()))
    threading.excepthook = _end_process
    intake = Intake(source)
    load = intake.read_load()
    _run_beside(intake.run)
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


def serve(runtime: Runtime, intake: Intake, send: Callable[[ToDaemon], None]) -> None:
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
            if not runtime.is_fluent:
                outbox.release()


def _next_task(runtime: Runtime, intake: Intake) -> Task:
    """Wait for it; in a lull, the runtime works ahead, and then gives back memory."""
    while True:
        has_ahead = runtime.has_ahead and not runtime.has_work
        patience_s = LULL_S if has_ahead else REST_S if runtime.has_spare else None
        try:
            return intake.tasks.get(timeout=patience_s)
        except queue.Empty:
            if has_ahead:
                runtime.work_ahead(intake.is_wanting)
            else:
                runtime.rest()


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


def _run_beside(run: Callable[[], None]) -> None:
    """In the intake's thread, with a large stack where the system grants one."""
    try:
        threading.stack_size(INTAKE_STACK_BYTES)
        threading.Thread(target=run, name="intake", daemon=True).start()
    except (ValueError, RuntimeError):
        threading.stack_size(0)
        threading.Thread(target=run, name="intake", daemon=True).start()
    finally:
        threading.stack_size(0)


def _tell_bug(kind: type[BaseException], bug: BaseException, trace: TracebackType | None) -> None:
    """What it is and where it happened, without messages and locals: they may hold a prompt, and this goes
    into the log, its last line to other clients."""
    frames = traceback.extract_tb(trace)
    where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in frames[-1:])
    told = f"Traceback (most recent call last):\n{''.join(frames.format())}{kind.__name__}{where}"
    print(told, file=sys.stderr)


def _end_process(failed: threading.ExceptHookArgs) -> None:
    """A bug in the intake: without it nobody hears requests, nor that stdin closed."""
    sys.excepthook(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    sys.stderr.flush()
    os._exit(1)


def _take_stdin() -> BinaryIO:
    """Keep the pipe from the daemon to ourselves: on Windows whoever asks about it waits until something is
    read from it, and numpy's library asks about stdin when it is imported (numpy #24290)."""
    source = os.dup(sys.stdin.fileno())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return open(source, "rb", buffering=0, closefd=False)


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

"""The order of things in the worker's loop."""

import queue
import threading
from collections.abc import Callable

import pytest

from pilotlight.core import FinishReason
from pilotlight.runtimes.computing import Computing
from pilotlight.runtimes.limits import BUNDLE_S
from pilotlight.worker import child
from pilotlight.worker.child import TELL_S, Outbox, serve
from pilotlight.worker.intake import Task
from pilotlight.worker.protocol import (
    Admitted,
    Computed,
    Delta,
    Done,
    Event,
    Refused,
    Saved,
    State,
    Step,
    ToDaemon,
)


class Script:
    """A runtime and its intake: writes down what is called; a step says one word, and the last one ends the
    loop."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.running: list[int] = []
        self.tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self.steps_left = 3
        self.is_brief = self.is_fluent = False
        self.ahead: list[Task] = []
        """Each is put while the runtime works ahead."""
        self.spare: list[Task] = []
        """Each is put while the runtime rests."""
        self.replies: list[Task] = []
        """Each is put when something is sent: the daemon answers to what it hears."""

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    def start(self, id: int) -> Event:
        self.running.append(id)
        self.did.append(f"start {id}")
        return Admitted(id, 1)

    def cancel(self, id: int) -> None:
        if id in self.running:
            self.running.remove(id)
        self.did.append(f"cancel {id}")

    @property
    def has_ahead(self) -> bool:
        return bool(self.ahead)

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        self.did.append("work ahead")
        assert not is_wanted()
        self.tasks.put(self.ahead.pop())
        assert is_wanted()

    def is_wanting(self) -> bool:
        return not self.tasks.empty()

    @property
    def has_spare(self) -> bool:
        return bool(self.spare)

    def rest(self) -> None:
        self.did.append("rest")
        self.tasks.put(self.spare.pop())

    @property
    def num_paused(self) -> int:
        return 0

    def is_urgent(self) -> bool:
        return False

    def take_computed(self) -> tuple[Computed, ...]:
        return ()

    def step(self, is_wanted: Callable[[], bool]) -> list[Event]:
        assert not is_wanted()
        self.did.append("step")
        self.steps_left -= 1
        if not self.steps_left:
            raise EOFError
        return [Delta(id, 0, "x", 1) for id in self.running]

    def settle(self) -> None:
        self.did.append("settle")

    def send(self, message: ToDaemon) -> None:
        if self.replies:
            self.tasks.put(self.replies.pop())
        if isinstance(message, Step):
            self.did += [f"send {type(event).__name__}" for event in message.events]
        else:
            self.did.append(f"send {type(message).__name__}")

    def serve(self, *tasks: Task) -> list[str]:
        for task in tasks:
            self.tasks.put(task)
        with pytest.raises(EOFError):
            serve(self, self, self.send)  # type: ignore[arg-type]  # what the loop uses of both
        return self.did


def test_an_admission_is_sent_before_the_first_step() -> None:
    """A long prompt must not hold it back."""
    script = Script()
    assert script.serve(lambda _: script.start(1))[:4] == ["start 1", "send Admitted", "step", "send Delta"]


def test_an_admission_goes_with_a_step_that_is_over_at_once() -> None:
    """In one frame with what it brings."""
    script = Script()
    script.is_brief = True
    assert script.serve(lambda _: script.start(1))[:4] == ["start 1", "step", "send Admitted", "send Delta"]


def test_what_a_step_brought_is_sent_before_what_ended_is_put_away() -> None:
    """Copying a long conversation takes a while."""
    script = Script()
    did = script.serve(lambda _: script.start(1))
    assert did[2:5] == ["step", "send Delta", "settle"]


def test_text_is_held_while_more_comes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brief steps or not; a long one, for the prompt of another, must not hold it back."""
    monkeypatch.setattr(child, "BUNDLE_S", 3600)
    monkeypatch.setattr(child, "TELL_S", 3600)
    script = Script()
    script.is_fluent = True
    did = script.serve(lambda _: script.start(1))
    assert did[3:] == ["send Delta", "settle", "step", "settle", "step"]
    script = Script()
    did = script.serve(lambda _: script.start(1))
    assert did[3:] == ["send Delta", "settle", "step", "settle", "send Delta", "step"]


def test_requests_that_wait_are_started_together() -> None:
    """And share the first step."""
    script = Script()
    did = script.serve(lambda _: script.start(1), lambda _: script.start(2))
    assert did[:5] == ["start 1", "start 2", "send Admitted", "send Admitted", "step"]


def test_a_cancel_comes_before_the_next_step() -> None:
    """Though others go on running."""
    script = Script()

    def start(_: object) -> Event:
        script.tasks.put(lambda _: script.cancel(1))
        return script.start(1)

    did = script.serve(start, lambda _: script.start(2))
    assert did.index("cancel 1") < did.index("step")
    assert did[did.index("step") + 1 :][0] == "send Delta"


def test_a_refusal_is_sent_when_there_is_nothing_else_to_do() -> None:
    """It does not wait for a request that never comes."""
    script = Script()
    refused = Refused(1, "BadRequest", "no")

    script.replies = [lambda _: script.start(2)]
    assert script.serve(lambda _: refused)[:2] == ["send Refused", "start 2"]


def test_a_state_is_sent_at_once() -> None:
    """Between the steps."""
    script = Script()
    did = script.serve(lambda _: script.start(1), lambda _: State(1, 0, 0, 0, 1))
    assert did[:4] == ["start 1", "send State", "send Admitted", "step"]


def test_the_loop_ends_when_all_is_saved() -> None:
    """With that as its last word; what runs is cut off."""
    script = Script()
    for task in (lambda _: script.start(1), lambda _: Saved(1, 2), lambda _: script.start(2)):
        script.tasks.put(task)
    serve(script, script, script.send)  # type: ignore[arg-type]  # what the loop uses of both
    assert script.did == ["start 1", "send Saved"]


def test_the_runtime_works_ahead_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while something runs, nor when a task is there."""
    monkeypatch.setattr(child, "LULL_S", 0)
    script = Script()
    script.ahead = [lambda _: script.start(2), lambda _: script.cancel(1)]
    assert "work ahead" not in script.serve(lambda _: script.start(1))
    script.running.clear()
    script.did.clear()
    script.steps_left = 1
    did = script.serve(lambda _: State(0, 0, 0, 0, 1))
    assert did == ["send State", "work ahead", "cancel 1", "work ahead", "start 2", "send Admitted", "step"]


def test_the_runtime_rests_when_nobody_will_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has worked ahead."""
    monkeypatch.setattr(child, "LULL_S", 0)
    monkeypatch.setattr(child, "REST_S", 0)
    script = Script()
    script.ahead = [lambda _: State(0, 0, 0, 0, 1)]
    script.spare = [lambda _: script.start(1)]
    script.steps_left = 1
    did = script.serve(lambda _: State(0, 0, 0, 0, 1))
    assert did == ["send State", "work ahead", "send State", "rest", "start 1", "send Admitted", "step"]


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bundled() -> tuple[Outbox, list[ToDaemon], Clock]:
    sent: list[ToDaemon] = []
    clock = Clock()
    return Outbox(sent.append, Computing().take, clock), sent, clock


def test_the_first_text_is_sent_at_once() -> None:
    """Nobody waits for a first token."""
    outbox, sent, _ = bundled()
    outbox.add([Delta(1, 0, "a", 1)])
    assert sent == [Step((Delta(1, 0, "a", 1),))]


def test_text_that_comes_too_fast_to_see_is_bundled() -> None:
    """Until the last frame is old enough; nothing is lost, and the order stays."""
    outbox, sent, clock = bundled()
    for letter in "abc":
        outbox.add([Delta(1, 0, letter, 1)])
    assert len(sent) == 1
    clock.now += 2 * BUNDLE_S
    outbox.add([Delta(1, 0, "d", 1)])
    assert sent[1:] == [Step(tuple(Delta(1, 0, letter, 1) for letter in "bcd"))]


def test_an_end_does_not_wait() -> None:
    """And takes along what was held."""
    outbox, sent, _ = bundled()
    done = Done(1, 0, FinishReason.STOP, 2, 0)
    outbox.add([Delta(1, 0, "a", 1)])
    outbox.add([Delta(1, 0, "b", 1)])
    outbox.add([done])
    assert sent[1:] == [Step((Delta(1, 0, "b", 1), done))]


def test_it_tells_for_whom_was_computed_with_an_end_and_four_times_a_second() -> None:
    """Not with every token, and each second once."""
    sent: list[ToDaemon] = []
    clock, computing = Clock(), Computing()
    outbox = Outbox(sent.append, computing.take, clock)
    outbox.flush()
    for _ in range(4):
        clock.now += TELL_S / 2
        computing.decode([1], 0.5)
        outbox.add([Delta(1, 0, "a", 1)])
    computing.prefill(2, 7, 1.5)
    outbox.add([Done(1, 0, FinishReason.STOP, 4, 0)])
    told = [message.computed for message in sent if isinstance(message, Step)]
    twice = (Computed(1, decode_s=1.0, decode_tokens=2),)
    assert told == [(), twice, (), twice, (Computed(2, prefill_s=1.5, prefill_tokens=7),)]


def test_a_long_prompt_is_told_of_while_it_is_computed() -> None:
    """Though there is nothing else to say."""
    sent: list[ToDaemon] = []
    clock, computing = Clock(), Computing()
    outbox = Outbox(sent.append, computing.take, clock)
    outbox.add([])
    computing.prefill(1, 512, 0.6)
    clock.now += 0.6
    outbox.add([])
    assert sent == [Step((), (Computed(1, prefill_s=0.6, prefill_tokens=512),))]


def test_slow_text_is_never_held() -> None:
    """A step that takes its time is sent when it is done."""
    outbox, sent, clock = bundled()
    for letter in "abc":
        clock.now += 2 * BUNDLE_S
        outbox.add([Delta(1, 0, letter, 1)])
    assert len(sent) == 3


@pytest.mark.parametrize("stack_bytes", [1, child.INTAKE_STACK_BYTES], ids=["refused", "granted"])
def test_the_intake_runs_with_whatever_stack_there_is(
    monkeypatch: pytest.MonkeyPatch, stack_bytes: int
) -> None:
    """And threads after it have an ordinary one."""
    monkeypatch.setattr(child, "INTAKE_STACK_BYTES", stack_bytes)
    has_run = threading.Event()
    child._run_beside(has_run.set)
    assert has_run.wait(10)
    assert threading.stack_size() == 0

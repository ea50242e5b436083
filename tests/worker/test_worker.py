"""The daemon's end of a worker, against real child processes."""

import os
import re
import signal
from pathlib import Path

import anyio
import psutil
import pytest
from talking import LOAD_S, Heard, Spawn, ask, ends, load, talk

from pilotlight.core import Archive, FinishReason, Model, RequestClass
from pilotlight.worker import handle
from pilotlight.worker.handle import Worker
from pilotlight.worker.protocol import (
    Admitted,
    Cancel,
    Delta,
    Done,
    Hello,
    Hold,
    Inspect,
    MeasureThreads,
    Progress,
    Refused,
    Saved,
    SetThreads,
    Threads,
    Trim,
)

ARCHIVE = Archive("/nowhere", max_bytes=1, max_age_s=1.0)


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
async def test_numpy_multiplies_with_one_thread_unless_the_user_has_decided(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch, given: str | None, threads: str
) -> None:
    """On a large machine it would start dozens, and a container may not allow them."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    worker = await load(await spawn())
    assert psutil.Process(worker.pid).environ()["OPENBLAS_NUM_THREADS"] == threads


async def test_what_yields_is_paused_and_says_so(spawn: Spawn) -> None:
    """While something interactive runs; not for one that is refused, once that is known."""
    worker = await load(await spawn(tokens_per_s=500, context=9))
    heard = Heard()
    worker.send(ask(1, max_tokens=40, request_class=RequestClass.BATCH))
    worker.send(ask(2, max_tokens=20))
    worker.send(ask(3, text="too many words " * 9))
    await talk(worker, heard, lambda: len(ends(heard)) == 2)
    assert ends(heard) == [2, 1]
    assert heard.pauses[0] == 1
    assert heard.pauses[-1] == 0
    assert any(isinstance(event, Refused) for event in heard.events)


async def test_a_held_worker_computes_nothing_that_yields(spawn: Spawn) -> None:
    """Until it is told to go on; what is interactive runs."""
    worker = await load(await spawn(tokens_per_s=500))
    heard = Heard()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, heard)
        for message in (Hold(True), ask(1, request_class=RequestClass.BACKGROUND), ask(2)):
            worker.send(message)
        await heard.until(lambda: 2 in ends(heard))
        worker.send(Inspect())
        await heard.until(lambda: bool(heard.states))
        assert (ends(heard), heard.states[0].active) == ([2], 1)
        worker.send(Hold(False))
        await heard.until(lambda: 1 in ends(heard))
        tasks.cancel_scope.cancel()


async def test_an_answer_comes_in_order(spawn: Spawn) -> None:
    """Admitted, said, done."""
    worker, heard = await load(await spawn()), Heard()
    worker.send(ask())
    await talk(worker, heard, lambda: len(heard.events) == 4)
    assert heard.events == [
        Admitted(1, 2),
        Delta(1, 0, "one ", 1),
        Delta(1, 0, "two ", 1),
        Done(1, 0, FinishReason.STOP, 2, 0),
    ]


async def test_a_refused_request_harms_no_other(spawn: Spawn) -> None:
    """The worker names the error's class and the field."""
    worker, heard = await load(await spawn(context=2)), Heard()
    worker.send(ask(1, "one two three"))
    worker.send(ask(2, "one"))
    await talk(worker, heard, lambda: any(isinstance(event, Done) for event in heard.events))
    assert Refused(1, "ContextOverflow", "3 words; 2 fit", "messages") in heard.events
    assert Admitted(2, 1) in heard.events


async def test_a_cancelled_request_says_no_more(spawn: Spawn) -> None:
    """And is not among those that run."""
    worker, heard = await load(await spawn()), Heard()
    worker.send(ask(1, max_tokens=10**9))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, heard)
        await heard.until(lambda: len(heard.events) > 1)
        worker.send(Cancel(1))
        worker.send(Inspect())
        await heard.until(lambda: bool(heard.states))
        tasks.cancel_scope.cancel()
    assert heard.states[0].active == 0
    assert not any(isinstance(event, Done) for event in heard.events)


async def test_threads_can_be_changed_while_it_runs(spawn: Spawn) -> None:
    """It says so, and so does its state."""
    worker, heard = await load(await spawn()), Heard()
    worker.send(SetThreads(7, 8))
    worker.send(Inspect())
    await talk(worker, heard, lambda: bool(heard.states))
    assert heard.threads == [Threads(7, 8)]
    assert heard.states[0].threads == 7


async def test_a_worker_finds_out_how_many_threads_are_enough(spawn: Spawn) -> None:
    """Before it is ready, and says so meanwhile; later only while it runs nothing."""
    worker, stages = await spawn(enough_threads=3), list[Progress]()
    info = await worker.load("full", stages.append, 20, measures_threads=True)
    assert info.enough_threads == 3
    assert [stage.is_measuring for stage in stages[-2:]] == [False, True]
    heard = Heard()
    worker.send(MeasureThreads())
    worker.send(ask(1, max_tokens=10**9))
    worker.send(MeasureThreads())
    await talk(worker, heard, lambda: len(heard.measured) == 2)
    assert heard.measured == [3, 0]


async def test_a_worker_that_forgets_goes_on_with_what_it_runs(spawn: Spawn) -> None:
    """In the middle of an answer."""
    worker, heard = await load(await spawn()), Heard()
    worker.send(ask(1, max_tokens=50))
    worker.send(Trim())
    await talk(worker, heard, lambda: any(isinstance(event, Done) for event in heard.events))
    assert heard.events[-1].completion_tokens == 50


async def test_a_worker_that_dies_while_serving_ends_the_run(spawn: Spawn) -> None:
    """After what it had said."""
    worker, heard = await load(await spawn(die_after_tokens=2)), Heard()
    worker.send(ask(max_tokens=5))
    end = await worker.run(heard)
    assert (str(end), end.crash) == ("worker died of SIGKILL", None)
    assert heard.events[:2] == [Admitted(1, 2), Delta(1, 0, "one ", 1)]


async def test_a_worker_may_die_of_a_signal_without_a_name(spawn: Spawn) -> None:
    """Most of those for real time have none."""
    worker = await load(await spawn())
    os.kill(worker.pid, signal.SIGRTMIN + 1)
    assert str(await worker.run(Heard())) == f"worker died of signal {signal.SIGRTMIN + 1}"


async def test_to_send_to_a_dead_worker_is_no_error(spawn: Spawn) -> None:
    """Its end is on its way."""
    worker = await load(await spawn())
    worker.kill()
    await worker.run(Heard())
    for _ in range(10):
        worker.send(Inspect())


async def test_a_bug_in_the_intake_ends_the_process(spawn: Spawn) -> None:
    """A worker that no longer reads would hang its clients, and outlive the daemon."""
    worker = await load(await spawn())
    worker.send(Hello(1, 1))  # type: ignore[arg-type]  # what no daemon sends
    end = await worker.run(Heard())
    assert re.fullmatch(r"worker exited with 1: FrameError at protocol\.py:\d+", str(end))


async def test_a_worker_ends_when_its_stdin_closes(spawn: Spawn) -> None:
    """In the middle of an answer, without a kill."""
    worker, heard = await load(await spawn(tokens_per_s=1000.0)), Heard()
    worker.send(ask(max_tokens=10**9))
    await talk(worker, heard, lambda: len(heard.events) > 1)
    await worker.stop()
    assert worker._process.returncode == 0


async def test_a_child_that_does_not_end_is_killed(stand_in: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores everything it is asked."""
    monkeypatch.setattr(handle, "STOP_S", 0.01)
    worker = await stand_in("import signal; signal.pause()")
    await worker.stop()
    assert worker._process.returncode == -signal.SIGKILL


async def test_a_worker_can_be_stopped_twice(spawn: Spawn) -> None:
    """Also side by side."""
    worker = await load(await spawn())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.stop)
        tasks.start_soon(worker.stop)


async def test_a_flood_on_stderr_blocks_nobody(spawn: Spawn) -> None:
    """Far more than a pipe holds, and before the worker is ready."""
    worker = await load(await spawn(stderr_lines=20_000))
    assert worker.info is not None


async def test_what_native_code_prints_is_no_message(spawn: Spawn) -> None:
    """Its stdout is not ours."""
    worker, heard = await load(await spawn(stdout_noise=True)), Heard()
    worker.send(ask())
    await talk(worker, heard, lambda: len(heard.events) == 4)


async def test_native_code_finds_nothing_on_stdin(spawn: Spawn) -> None:
    """On Windows it waits for the daemon's next word if it only asks what that is."""
    worker = await load(await spawn())
    assert os.readlink(f"/proc/{worker.pid}/fd/0") == os.devnull


async def test_a_worker_says_what_it_saved_and_ends(spawn: Spawn) -> None:
    """By itself, and in good order."""
    worker, heard = await spawn(), Heard()
    await worker.load("full", lambda _: None, LOAD_S, ARCHIVE)
    assert worker.finish()
    end = await worker.run(heard)
    assert str(end) == "worker exited with 0"
    assert heard.saved == [Saved(0, 0)]


async def test_without_an_archive_there_is_nothing_to_wait_for(spawn: Spawn) -> None:
    """Nor before it has loaded."""
    worker = await spawn()
    assert not worker.finish()
    assert not (await load(worker)).finish()


async def test_one_that_takes_too_long_to_save_is_ended(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one is in the middle of a step that takes minutes."""
    monkeypatch.setattr(handle, "SAVE_S", 0.1)
    monkeypatch.setattr(handle, "SAVE_LATE_S", 0.0)
    worker, heard = await spawn(tokens_per_s=0.001), Heard()
    await worker.load("full", lambda _: None, LOAD_S, ARCHIVE)
    worker.send(ask())
    await talk(worker, heard, lambda: bool(heard.events))
    await worker.stop(saves=True)
    assert not psutil.pid_exists(worker.pid)


@pytest.fixture
def bloom(tiny_gguf: Path, tmp_path: Path) -> Path:
    """A model with another tokenizer than most tests have."""
    path = tmp_path / "bloom.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"gpt-2", b"bloom"))
    return path


async def test_a_text_of_one_letter_is_no_harm(bloom: Path, workers: list[Worker]) -> None:
    """Many tokenizers split texts by an expression that takes stack for every letter in a row."""
    workers.append(await Worker.spawn(Model("bloom", bloom, context=256, parallel=1, threads=1)))
    worker = await load(workers[-1])
    heard = Heard()
    worker.send(ask(1, text="a" * 2**16))
    with anyio.fail_after(LOAD_S):
        await talk(worker, heard, lambda: bool(heard.events))
    (refused,) = heard.events
    assert isinstance(refused, Refused)
    assert refused.code == "ContextOverflow"

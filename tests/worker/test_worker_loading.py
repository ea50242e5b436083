"""How a worker starts, or does not."""

import sys

import pytest
from talking import LOAD_S, Spawn, load

from pilotlight.signals import CRASHES
from pilotlight.worker import handle
from pilotlight.worker.handle import LoadRefusedError, WorkerEndedError
from pilotlight.worker.protocol import PROTOCOL_VERSION, Hello, Progress, State, encode


async def test_a_loaded_worker_says_what_it_is(spawn: Spawn) -> None:
    """And what it was told."""
    worker = await load(await spawn(), mode="plain")
    info = worker.info
    assert info is not None
    assert (info.pid, info.mode, info.context, info.parallel, info.threads) == (worker.pid, "plain", 9, 3, 2)


async def test_a_worker_that_another_process_started_is_known_by_its_own_pid(stand_in: Spawn) -> None:
    """As in a virtual environment on Windows: what is measured and slowed down is the worker."""
    command = ["-P", "-m", "pilotlight.worker.child", "echo"]
    worker = await stand_in(f"import subprocess, sys; subprocess.run([sys.executable, *{command}])")
    starter = worker.pid
    with pytest.raises(WorkerEndedError, match="exited with 0"):  # there is no model
        await load(worker)
    assert worker.pid != starter


async def test_a_crash_on_windows_is_told_by_its_exit_code(
    stand_in: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a safer mode is tried, too."""
    worker = await stand_in("import os; os._exit(3)")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(WorkerEndedError, match="worker died of SIGABRT") as caught:
        await load(worker)
    monkeypatch.undo()
    assert (caught.value.crash, caught.value.is_import) == ("SIGABRT", True)


async def test_progress_comes_while_loading(spawn: Spawn) -> None:
    """Growing, up to the whole."""
    told: list[Progress] = []
    await (await spawn()).load("full", told.append, LOAD_S)
    heard = [one.fraction for one in told]
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0, 1)


async def test_a_worker_says_why_it_cannot_load(spawn: Spawn) -> None:
    """In the runtime's words."""
    with pytest.raises(LoadRefusedError, match="no weights here") as caught:
        await load(await spawn(load_error="no weights here"))
    assert not caught.value.missing


@pytest.mark.parametrize("name", sorted(number.name for number in CRASHES))
async def test_a_native_crash_while_loading_is_told_by_its_signal(spawn: Spawn, name: str) -> None:
    """So that a safer mode is tried."""
    with pytest.raises(WorkerEndedError, match=f"died of {name}") as caught:
        await load(await spawn(crash_modes=["full"], crash_signal=name))
    assert caught.value.crash == name


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
async def test_a_worker_killed_by_others_has_not_crashed(spawn: Spawn, name: str) -> None:
    """A safer mode would not help."""
    with pytest.raises(WorkerEndedError, match=f"died of {name}") as caught:
        await load(await spawn(crash_modes=["full"], crash_signal=name))
    assert caught.value.crash is None


async def test_a_load_that_never_ends_is_given_up(spawn: Spawn) -> None:
    """After the time it has."""
    worker = await spawn(load_s=1000.0)
    with pytest.raises(TimeoutError):
        await worker.load("full", lambda _: None, load_s=0.01)


async def test_a_child_that_says_nothing_is_given_up(
    stand_in: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be anything."""
    monkeypatch.setattr(handle, "HELLO_S", 0.01)
    with pytest.raises(TimeoutError):
        await load(await stand_in("import sys; sys.stdin.read()"))


@pytest.mark.parametrize("hello", [Hello(PROTOCOL_VERSION + 1, 1), State(0, 0, 0, 0, 1)])
async def test_another_protocol_is_refused(stand_in: Spawn, hello: Hello | State) -> None:
    """Before a model is sent."""
    code = f"import sys; sys.stdout.buffer.write({encode(hello)!r}); sys.stdout.flush(); sys.stdin.read()"
    with pytest.raises(WorkerEndedError, match=f"expected protocol {PROTOCOL_VERSION}"):
        await load(await stand_in(code))


async def test_a_child_that_speaks_no_protocol_is_killed(stand_in: Spawn) -> None:
    """It would go on for ever."""
    code = "import sys; sys.stdout.write('Welcome!'); sys.stdout.flush(); sys.stdin.read()"
    with pytest.raises(WorkerEndedError, match="frame of 1668048215 bytes"):
        await load(await stand_in(code))


async def test_the_last_words_of_a_child_are_told(stand_in: Spawn) -> None:
    """They are the reason, most often."""
    with pytest.raises(WorkerEndedError, match=r"worker exited with 3: disk is gone"):
        await load(await stand_in("import sys; print('a\\ndisk is gone', file=sys.stderr); sys.exit(3)"))


async def test_a_worker_ends_when_its_stdin_closes_while_it_loads(spawn: Spawn) -> None:
    """Native code may load for minutes."""
    worker = await spawn(load_s=1000.0)
    with pytest.raises(TimeoutError):
        await worker.load("full", lambda _: None, load_s=0.01)
    await worker.stop()
    assert worker._process.returncode == 0

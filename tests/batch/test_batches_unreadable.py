"""Batches whose files cannot be read, or are lost: for a moment, for longer, or for ever."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from fake_inference import FakeInference, line
from owner import Start, change, eventually, requests

from pilotlight.batch import batches as owning
from pilotlight.batch import run as running
from pilotlight.batch.lines import Input, Line
from pilotlight.batch.records import State
from pilotlight.batch.states import outputs

pytestmark = pytest.mark.anyio


def fail_once(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None] = lambda: None) -> None:
    """The second line of a file cannot be read, the first time somebody tries; first comes `before`."""
    read, failures = Input.__getitem__, iter([OSError(errno.ESTALE, "Stale file handle")])

    def read_or_fail(lines: Input, number: int) -> Line:
        if number == 1 and (failure := next(failures, None)) is not None:
            before()
            raise failure
        return read(lines, number)

    monkeypatch.setattr(Input, "__getitem__", read_or_fail)


async def test_an_input_that_is_gone_fails_its_batch(start: Start) -> None:
    """Somebody deleted it behind our back."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(1))
        await owner.until(batch.id, State.IN_PROGRESS)
    (owner.state_dir / "files" / batch.input_file_id).unlink()
    async with start() as owner:
        (fault,) = (await owner.until(batch.id, State.FAILED)).faults
        assert fault.code == "input_unreadable"


async def test_an_input_that_goes_half_way_leaves_the_answers(start: Start) -> None:
    """Those that there are by then, as files, and their counts; the last one was torn by a power cut."""
    inference = FakeInference()
    inference.fate = lambda question: setattr(inference, "hold", anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        with anyio.fail_after(20):
            await inference.until_asked(2)
    folder = owner.state_dir / "files"
    (folder / batch.input_file_id).unlink()
    with (folder / outputs(batch.id)[0]).open("a") as torn:
        torn.write('{"id"')
    async with start() as owner:
        failed = await owner.until(batch.id, State.FAILED)
        assert await owner.statuses(failed) == {"r0": 200}
        assert (failed.counts.total, failed.counts.completed, failed.error_file_id) == (3, 1, None)
        assert failed.output_file_id in {file.id for file in await (await owner.batches.files()).all()}


async def test_an_input_that_cannot_be_read_now_is_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others run meanwhile, and a notice says so; here a link that leads to itself is in its place."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(2))
        await owner.until(batch.id, State.IN_PROGRESS)
    content = owner.state_dir / "files" / batch.input_file_id
    away = content.rename(owner.state_dir / "away")
    content.symlink_to(content)
    async with start() as owner:

        async def is_told() -> bool:
            return [notice.code for notice in owner.notices] == [owning.UNREAD]

        unchecked = await owner.submit_file(batch.input_file_id)
        await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        await eventually(is_told)
        away.replace(content)
        for waiting in (batch, unchecked):
            done = await owner.until(waiting.id, State.COMPLETED)
            assert await owner.statuses(done) == {"r0": 200, "r1": 200}
        assert list(owner.notices) == []


async def test_what_waits_for_its_input_can_be_cancelled(start: Start) -> None:
    """At once; it is no matter any more whether that can be read."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(2))
        await owner.until(batch.id, State.IN_PROGRESS)
    content = owner.state_dir / "files" / batch.input_file_id
    content.unlink()
    content.mkdir()
    async with start() as owner:

        async def is_told() -> bool:
            return [notice.code for notice in owner.notices] == [owning.UNREAD]

        async def is_quiet() -> bool:
            return list(owner.notices) == []

        await eventually(is_told)
        await owner.batches.cancel(batch.id)
        assert (await owner.until(batch.id, State.CANCELLED)).faults == ()
        await eventually(is_quiet)


async def test_what_waits_for_its_input_expires(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another one runs for hours meanwhile; whether it can be read is no matter any more."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)
    inference = FakeInference(hold=anyio.Event())
    async with start(inference) as owner:
        other = await owner.submit(requests(1))
        with anyio.fail_after(20):
            await inference.until(1)
        file_id = await owner.upload(requests(2))
        content = owner.state_dir / "files" / file_id
        content.unlink()
        content.mkdir()
        batch = await owner.submit_file(file_id, window_s=0.2)

        async def is_quiet() -> bool:
            return list(owner.notices) == []

        assert (await owner.until(batch.id, State.EXPIRED)).faults == ()
        await eventually(is_quiet)
        assert (await owner.batches.get(other.id)).status is State.IN_PROGRESS


async def test_what_expires_unread_keeps_its_answers(start: Start) -> None:
    """Those that there are by then, as files."""
    inference = FakeInference()
    inference.fate = lambda question: setattr(inference, "hold", anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        with anyio.fail_after(20):
            await inference.until_asked(2)
    change(owner.state_dir / "batches" / f"{batch.id}.json", expires_at=batch.created_at)
    content = owner.state_dir / "files" / batch.input_file_id
    content.unlink()
    content.mkdir()
    async with start() as owner:
        expired = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(expired) == {"r0": 200}
        assert (expired.counts.total, expired.counts.completed, expired.faults) == (3, 1, ())


async def test_what_waited_for_its_input_goes_on_before_younger_ones(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They give way after the line that runs, and what is answered is told while it waits."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)

    def go_away() -> None:
        content.rename(away).with_name(content.name).symlink_to(content)

    fail_once(monkeypatch, go_away)
    inference = FakeInference(gate=anyio.Event())

    def hold_after_first(question: str) -> None:
        if question == "b0":
            inference.hold = anyio.Event()

    inference.fate = hold_after_first
    async with start(inference) as owner:
        older = await owner.submit(requests(3))
        content, away = owner.state_dir / "files" / older.input_file_id, owner.state_dir / "away"
        younger = await owner.submit("".join(line(f"b{number}") for number in range(3)))
        await owner.until(younger.id, State.IN_PROGRESS)
        assert inference.gate is not None
        inference.gate.set()
        with anyio.fail_after(20):
            await inference.until_asked(3)
        assert [notice.code for notice in owner.notices] == [owning.UNREAD]
        assert (await owner.batches.get(older.id)).counts.completed == 1
        away.replace(content)

        async def is_back() -> bool:
            return list(owner.notices) == []

        await eventually(is_back)
        assert inference.hold is not None
        inference.hold.set()
        for batch in (older, younger):
            assert len(await owner.statuses(await owner.until(batch.id, State.COMPLETED))) == 3
    assert inference.asked == ["r0", "b0", "b1", "r1", "r2", "b2"]


async def test_answers_that_cannot_be_read_hold_up_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart, say: what there is of them is read before the first line runs."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)
    async with start() as owner:
        older = await owner.upload(requests(1))
        files = await owner.batches.files()
    gate = anyio.Event()
    async with start(FakeInference(gate=gate)) as owner:
        batch = await owner.submit_file(older)
        (spoiled := files.path(outputs(batch.id)[0])).symlink_to(spoiled)
        younger = await owner.submit(requests(2))
        await owner.until(younger.id, State.IN_PROGRESS)
        gate.set()
        assert len(await owner.statuses(await owner.until(younger.id, State.COMPLETED))) == 2

        async def is_told() -> bool:  # but for the moments in which it is tried
            return [notice.code for notice in owner.notices] == [owning.UNREAD]

        await eventually(is_told)
        spoiled.unlink()
        assert await owner.statuses(await owner.until(batch.id, State.COMPLETED)) == {"r0": 200}


async def test_what_has_expired_and_cannot_be_read_holds_up_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it forgotten: it ends once there is something to end it with."""
    monkeypatch.setattr(running, "DISK_PAUSE_S", 0.01)
    async with start(FakeInference(gate=anyio.Event())) as owner:
        older = await owner.submit(requests(1))
        await owner.until(older.id, State.IN_PROGRESS)
    change(owner.state_dir / "batches" / f"{older.id}.json", expires_at=older.created_at)
    spoiled = owner.state_dir / "files" / outputs(older.id)[0]
    spoiled.unlink(missing_ok=True)
    spoiled.symlink_to(spoiled)
    async with start() as owner:
        younger = await owner.submit(requests(2))
        assert len(await owner.statuses(await owner.until(younger.id, State.COMPLETED))) == 2
        assert (await owner.batches.get(older.id)).status is State.IN_PROGRESS
        spoiled.unlink()
        await owner.until(older.id, State.EXPIRED)


async def test_a_limit_on_lines_is_for_what_is_new(start: Start) -> None:
    """Somebody has lowered it since the batch was taken."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(1) + 1000 * " " + line("r1"))
        await owner.until(batch.id, State.IN_PROGRESS)
    async with start(max_line_bytes=1000) as owner:
        done = await owner.until(batch.id, State.COMPLETED)
        assert await owner.statuses(done) == {"r0": 200, "r1": 200}


@pytest.mark.parametrize("state", [State.CANCELLED, State.EXPIRED])
async def test_a_batch_ends_though_its_lines_cannot_be_read(
    start: Start, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """Nobody is told which did not run then; what is answered is kept."""
    monkeypatch.setattr(owning, "CLOCK_S", 0.01)

    def stale(lines: Input, number: int) -> Line:
        raise OSError(errno.ESTALE, "Stale file handle")

    inference = FakeInference()
    inference.fate = lambda question: setattr(inference, "hold", anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        with anyio.fail_after(20):
            await inference.until_asked(2)
        monkeypatch.setattr(Input, "__getitem__", stale)
        if state is State.CANCELLED:
            await owner.batches.cancel(batch.id)
        else:
            monkeypatch.setattr(owning, "time", SimpleNamespace(time=lambda: batch.expires_at + 1))
        done = await owner.until(batch.id, state)
        assert await owner.statuses(done) == {"r0": 200}
        assert list(owner.notices) == []


async def test_a_line_that_cannot_be_read_now_is_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered by then is not asked again."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0)
    fail_once(monkeypatch)
    inference = FakeInference()
    async with start(inference) as owner:
        done = await owner.until((await owner.submit(requests(3))).id, State.COMPLETED)
        assert await owner.statuses(done) == {"r0": 200, "r1": 200, "r2": 200}
    assert inference.asked == ["r0", "r1", "r2"]


def lose(monkeypatch: pytest.MonkeyPatch, content: Path, spoil: Callable[[Path], None]) -> list[int]:
    """As Linux does it: that some of a file did not reach the disk is told to the first who asks, and to the
    next ones that all is well. Returns the files that this was so of, by their inodes."""
    sync = os.fsync
    lost: list[int] = []

    def told_once(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if not lost and content.exists() and content.stat().st_ino == inode:
            lost.append(inode)
            spoil(content)
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", told_once)
    return lost


def forget_the_end(content: Path) -> None:
    """As memory does, to make room, once it has told of the loss."""
    content.write_bytes(content.read_bytes()[:-50] + bytes(50))


@pytest.mark.parametrize(("spoil", "num_lost"), [(lambda content: None, 0), (forget_the_end, 1)])
async def test_answers_that_the_disk_has_lost_are_written_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], num_lost: int
) -> None:
    """To another file; those that memory has forgotten by then are made again."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)
    inference = FakeInference(gate=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        content = owner.state_dir / "files" / outputs(batch.id)[0]
        lost = lose(monkeypatch, content, spoil)
        assert inference.gate is not None
        inference.gate.set()
        done = await owner.until(batch.id, State.COMPLETED)
        assert await owner.statuses(done) == {"r0": 200, "r1": 200, "r2": 200}
        assert (len(lost), content.stat().st_ino in lost, list(owner.notices)) == (1, False, [])
    assert inference.asked == ["r0", "r1", "r2"] + ["r2"] * num_lost


async def test_a_batch_that_cannot_make_lost_answers_again_is_not_complete(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over once they are missed; the others are kept."""
    now = SimpleNamespace(time=time.time)
    monkeypatch.setattr(owning, "time", now)

    def forget_too_late(content: Path) -> None:
        forget_the_end(content)
        now.time = lambda: batch.expires_at + 1

    inference = FakeInference(gate=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        lose(monkeypatch, owner.state_dir / "files" / outputs(batch.id)[0], forget_too_late)
        assert inference.gate is not None
        inference.gate.set()
        expired = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(expired) == {"r0": 200, "r1": 200}

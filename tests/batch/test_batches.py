"""The daemon's batches from upload to answers, over restarts, with a model that answers at once."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import to_thread
from fake_inference import FakeInference, line
from owner import Start, change, left, modes, requests
from structlog.contextvars import bound_contextvars, get_contextvars

from pilotlight.batch import batches as owning
from pilotlight.batch.batches import Batches
from pilotlight.batch.lines import MAX_FAULTS
from pilotlight.batch.records import Batch, State
from pilotlight.errors import Busy, Conflict, ShuttingDown

pytestmark = pytest.mark.anyio


async def test_a_batch_is_answered(start: Start) -> None:
    """Its life has a time for every state, and its counts and tokens are those of its lines."""
    async with start() as owner:
        created = await owner.submit(requests(3))
        assert created.status is State.VALIDATING
        done = await owner.until(created.id, State.COMPLETED)
        assert await owner.statuses(done) == {"r0": 200, "r1": 200, "r2": 200}
        assert (done.counts.total, done.counts.completed, done.usage.input_tokens) == (3, 3, 6)
        assert (done.model, done.error_file_id) == ("echo", None)
        assert done.in_progress_at is not None
        assert done.finalizing_at is not None
        assert done.completed_at is not None
        assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at


async def test_nothing_is_written_before_somebody_asks(start: Start, tmp_path: Path) -> None:
    """Most daemons never see a batch."""
    async with start():
        assert left(tmp_path) == []


async def test_all_of_it_is_private(start: Start, tmp_path: Path) -> None:
    """Nobody else may read it."""
    async with start() as owner:
        await owner.until((await owner.submit(requests(2))).id, State.COMPLETED)
    assert modes(tmp_path) == {(True, 0o700), (False, 0o600)}


async def test_a_batch_is_no_part_of_a_request(start: Start) -> None:
    """Though one brings it about: what it logs, maybe days later, has nobody's request id."""
    bound: list[dict[str, Any]] = []

    class Noting(FakeInference):
        async def find(self, model: str) -> str:
            bound.append(get_contextvars())
            return await super().find(model)

        async def may_run(self) -> None:
            bound.append(get_contextvars())

    with bound_contextvars(request_id="the first to come"):
        async with start(Noting()) as owner:
            await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
    assert bound == [{}, {}]


async def test_bad_lines_are_told_before_anything_runs(start: Start) -> None:
    """With their numbers; so is a model that nobody knows."""
    inference = FakeInference()
    async with start(inference) as owner:
        for text, code, number in (
            (line("a") + "{\n", "invalid_json_line", 2),
            (line("a") + line("b", body={"model": "ecko"}), "model_not_found", 2),
        ):
            (fault,) = (await owner.until((await owner.submit(text)).id, State.FAILED)).faults
            assert (fault.code, fault.line) == (code, number)
    assert inference.asked == []


async def test_models_that_nobody_knows_are_told_as_far_as_people_read(start: Start) -> None:
    """Not all of fifty thousand."""
    async with start() as owner:
        text = "".join(line(f"r{n}", body={"model": f"m{n}"}) for n in range(MAX_FAULTS + 1))
        failed = await owner.until((await owner.submit(text)).id, State.FAILED)
        assert [fault.line for fault in failed.faults] == list(range(1, MAX_FAULTS + 1))


async def test_files_are_checked_one_at_a_time(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many that take long leave threads for everybody else; here they are a pipe that says nothing."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0)
    async with start() as owner:
        file_id = await owner.upload(requests(1))
        pipe = tmp_path / "files" / file_id
        pipe.unlink()
        os.mkfifo(pipe)
        silence = os.open(pipe, os.O_RDWR)
        try:
            batches = [await owner.submit_file(file_id) for _ in range(5)]
            await anyio.wait_all_tasks_blocked()
            assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
            assert {batch.status for batch in await owner.batches.all()} == {State.VALIDATING}
        finally:
            pipe.unlink()
            os.close(silence)
        for batch in batches:
            await owner.until(batch.id, State.FAILED)


async def test_no_more_batches_are_taken_than_may_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor when they come together; those that are over leave room."""
    monkeypatch.setattr(owning, "MAX_UNFINISHED", 2)
    inference = FakeInference(gate=anyio.Event())
    async with start(inference) as owner:
        file_id = await owner.upload(requests(1))
        refused: list[Busy] = []

        async def submit() -> None:
            try:
                await owner.submit_file(file_id)
            except Busy as busy:
                refused.append(busy)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(submit)
        assert [busy.message.startswith("2 batches are not over") for busy in refused] == [True] * 3
        first, _ = await owner.batches.all()
        await owner.batches.cancel(first.id)
        await owner.until(first.id, State.CANCELLED)
        await owner.submit_file(file_id)


async def test_a_night_on_battery_passes(start: Start) -> None:
    """Nothing runs while batches may not; then all of it does."""
    inference = FakeInference(gate=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(5))
        await owner.until(batch.id, State.IN_PROGRESS)
        await anyio.wait_all_tasks_blocked()
        assert inference.asked == []
        assert inference.gate is not None
        inference.gate.set()
        await owner.until(batch.id, State.COMPLETED)


async def test_what_was_not_over_goes_on_after_a_restart(start: Start) -> None:
    """Only the lines that were running run again; those who wait keep their places."""
    first = FakeInference(hold=anyio.Event())
    async with start(first) as owner:
        batches = [await owner.submit(requests(3)) for _ in range(2)]
        with anyio.fail_after(20):
            await first.until(1)
    second = FakeInference()
    async with start(second) as owner:
        for batch in batches:
            done = await owner.until(batch.id, State.COMPLETED)
            assert await owner.statuses(done) == {"r0": 200, "r1": 200, "r2": 200}
    assert second.asked == ["r0", "r1", "r2"] * 2


async def test_killed_while_it_is_finished_it_is_finished_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines have an answer, but there is no output file yet."""

    async def killed(self: Batches, batch: Batch, *_: object) -> None:
        await anyio.sleep_forever()

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "_publish", killed)
        async with start() as owner:
            batch = await owner.submit(requests(3))
            await owner.until(batch.id, State.FINALIZING)
            with pytest.raises(Conflict, match="finalizing"):
                await owner.batches.cancel(batch.id)
    inference = FakeInference()
    async with start(inference) as owner:
        done = await owner.until(batch.id, State.COMPLETED)
        assert len(await owner.statuses(done)) == 3
    assert inference.asked == []


async def test_a_cancelled_batch_keeps_what_is_answered(start: Start) -> None:
    """The other lines say that they did not run. It cannot be cancelled twice."""

    inference = FakeInference()
    inference.fate = lambda question: setattr(inference, "hold", anyio.Event())  # type: ignore[func-returns-value]
    async with start(inference) as owner:
        batch = await owner.submit(requests(3))
        with anyio.fail_after(20):
            await inference.until_asked(2)
        told = await owner.batches.cancel(batch.id)
        assert (told.status, told.counts.completed) == (State.CANCELLING, 1)
        done = await owner.until(batch.id, State.CANCELLED)
        assert await owner.statuses(done) == {"r0": 200, "r1": "batch_cancelled", "r2": "batch_cancelled"}
        assert (done.counts.completed, done.counts.failed) == (1, 0)
        with pytest.raises(Conflict, match="it is cancelled"):
            await owner.batches.cancel(batch.id)


async def test_a_batch_that_waits_is_cancelled_at_once(start: Start) -> None:
    """Though another one runs for hours before it."""
    inference = FakeInference(hold=anyio.Event())
    async with start(inference) as owner:
        first = await owner.submit(requests(1))
        with anyio.fail_after(20):
            await inference.until(1)
        second = await owner.submit(requests(2))
        await owner.batches.cancel(second.id)
        done = await owner.until(second.id, State.CANCELLED)
        assert (await owner.batches.get(first.id)).status is State.IN_PROGRESS
        assert inference.asked == ["r0"]
        await owner.batches.remove(done.id)


async def test_a_cancelled_batch_stays_so_over_a_restart(start: Start) -> None:
    """Though the daemon ended before it was done with it."""
    inference = FakeInference(gate=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(2))
        await owner.until(batch.id, State.IN_PROGRESS)
        await owner.batches.cancel(batch.id)
        owner.batches.stop()
        with pytest.raises(ShuttingDown):
            await owner.batches.get(batch.id)
    async with start() as owner:
        done = await owner.until(batch.id, State.CANCELLED)
        assert set((await owner.statuses(done)).values()) == {"batch_cancelled"}


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_comes_while_the_daemon_stops_is_for_the_next_one(
    start: Start, is_cancelled: bool
) -> None:
    """It is written too late to be begun, and is no error. No thread is free to write it before."""
    inference = FakeInference(gate=anyio.Event())
    threads = to_thread.current_default_thread_limiter()
    told: list[Batch] = []
    async with start(inference) as owner, anyio.create_task_group() as tasks:
        file_id = await owner.upload(requests(2))
        batch = await owner.submit_file(file_id)
        await owner.until(batch.id, State.IN_PROGRESS)

        async def ask() -> None:
            asked = owner.batches.cancel(batch.id) if is_cancelled else owner.submit_file(file_id)
            told.append(await asked)

        holders = [object() for _ in range(int(threads.available_tokens))]
        for holder in holders:
            threads.acquire_on_behalf_of_nowait(holder)
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        owner.batches.stop()
        await anyio.wait_all_tasks_blocked()
        for holder in holders:
            threads.release_on_behalf_of(holder)
    async with start() as owner:
        done = await owner.until(told[0].id, State.CANCELLED if is_cancelled else State.COMPLETED)
        assert len(await owner.statuses(done)) == 2


async def test_a_batch_expires(start: Start) -> None:
    """In the middle of a line; the lines without an answer say so, and are no failures."""
    async with start(FakeInference(hold=anyio.Event())) as owner:
        batch = await owner.submit(requests(2), window_s=0.2)
        done = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(done) == {"r0": "batch_expired", "r1": "batch_expired"}
        assert done.counts.failed == 0


async def test_a_batch_expires_though_the_machine_slept(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock that timers follow stood still meanwhile."""
    monkeypatch.setattr(owning, "CLOCK_S", 0.01)
    inference = FakeInference(hold=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(2))
        with anyio.fail_after(20):
            await inference.until(1)
        monkeypatch.setattr(owning, "time", SimpleNamespace(time=lambda: batch.expires_at + 1))
        done = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(done) == {"r0": "batch_expired", "r1": "batch_expired"}


async def test_a_batch_expires_while_no_daemon_runs(start: Start) -> None:
    """What was answered before is kept."""
    inference = FakeInference()
    inference.fate = lambda question: setattr(inference, "hold", anyio.Event())  # type: ignore[func-returns-value]
    async with start(inference) as owner:
        batch = await owner.submit(requests(2))
        with anyio.fail_after(20):
            await inference.until_asked(2)
    change(owner.state_dir / "batches" / f"{batch.id}.json", expires_at=batch.created_at)
    inference = FakeInference()
    async with start(inference) as owner:
        done = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(done) == {"r0": 200, "r1": "batch_expired"}
    assert inference.asked == []


async def test_one_batch_runs_at_a_time(start: Start) -> None:
    """The oldest first."""
    inference = FakeInference(places=4)
    async with start(inference) as owner:
        batches = [await owner.submit(line(f"b{number}") + line("z")) for number in range(3)]
        for batch in batches:
            await owner.until(batch.id, State.COMPLETED)
    assert [asked for asked in inference.asked if asked != "z"] == ["b0", "b1", "b2"]

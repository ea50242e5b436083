"""The daemon's batches from upload to answers, over restarts, with a model that answers at once."""

import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from fake_inference import CHAT, FakeInference, answers, line
from filelock import FileLock

from pilotlight.batch import batches as owning
from pilotlight.batch.batches import Batches
from pilotlight.batch.records import Batch, State, new_id
from pilotlight.batch.run import Desk
from pilotlight.errors import BadRequest, Conflict, NotFound, ShuttingDown
from pilotlight.notices import Notices

pytestmark = pytest.mark.anyio

Start = Callable[..., AbstractAsyncContextManager["Owner"]]


class Owner:
    """What a daemon does with its batches."""

    def __init__(self, state_dir: Path, inference: FakeInference) -> None:
        self.state_dir = state_dir
        self.notices = Notices()
        self.batches = Batches(state_dir, Desk(inference, self.notices, lambda outcome: None), 4096)

    async def upload(self, text: str) -> str:
        files = await self.batches.files()
        with files.incoming() as incoming:
            await incoming.write(text.encode())
            return (await files.keep(incoming, "in.jsonl", "batch", 3600)).id

    async def submit(self, text: str, window_s: float = 3600) -> Batch:
        now = time.time()
        batch = Batch(
            id=new_id("batch_"),
            endpoint=CHAT,
            input_file_id=await self.upload(text),
            completion_window="1h",
            created_at=now,
            expires_at=now + window_s,
            output_keep_s=3600,
        )
        return await self.batches.create(batch)

    async def until(self, batch_id: str, state: State) -> Batch:
        """The batch once it is in that state."""

        async def is_there() -> bool:
            return (await self.batches.get(batch_id)).status is state

        await eventually(is_there)
        return await self.batches.get(batch_id)

    async def statuses(self, batch: Batch) -> dict[str, int | str]:
        """What each line came to, by custom_id; one that is there twice fails."""
        files = await self.batches.files()
        ids = filter(None, (batch.output_file_id, batch.error_file_id))
        entries = [entry for file_id in ids for entry in answers(files.path(file_id))]
        found = {
            entry["custom_id"]: entry["response"]["status_code"]
            if entry["response"]
            else entry["error"]["code"]
            for entry in entries
        }
        assert len(found) == len(entries)
        return found


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask as people do, again and again."""
    with anyio.fail_after(20):
        while not await condition():  # noqa: ASYNC110  # people are given no event either
            await anyio.sleep(0.005)


def change(record: Path, **fields: float) -> None:
    """As time would."""
    record.write_bytes(msgspec.json.encode(msgspec.json.decode(record.read_bytes()) | fields))


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Whether it is a folder, and who may do what."""
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


def left(folder: Path) -> list[str]:
    """The files in it, by name."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A daemon's batches, on the same state directory each time; they are let go when the block ends."""

    @asynccontextmanager
    async def start(inference: FakeInference | None = None) -> AsyncIterator[Owner]:
        owner = Owner(tmp_path, inference or FakeInference())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(owner.batches.run)
            await anyio.wait_all_tasks_blocked()
            yield owner
            owner.batches.stop()

    return start


def requests(num_lines: int) -> str:
    return "".join(line(f"r{number}") for number in range(num_lines))


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
        assert (await owner.batches.cancel(batch.id)).status is State.CANCELLING
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


async def test_a_batch_expires(start: Start) -> None:
    """In the middle of a line; the lines without an answer say so, and are no failures."""
    async with start(FakeInference(hold=anyio.Event())) as owner:
        batch = await owner.submit(requests(2), window_s=0.2)
        done = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(done) == {"r0": "batch_expired", "r1": "batch_expired"}
        assert done.counts.failed == 0


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


async def test_a_file_that_a_batch_needs_is_not_deleted(start: Start) -> None:
    """Nor is a batch that is not over; afterwards both are, and nothing is left."""
    inference = FakeInference(hold=anyio.Event())
    async with start(inference) as owner:
        batch = await owner.submit(requests(2))
        files = await owner.batches.files()
        with pytest.raises(Conflict, match="cancel the batch first"):
            await files.remove(batch.input_file_id)
        with pytest.raises(Conflict, match="cancel it first"):
            await owner.batches.remove(batch.id)
        assert inference.hold is not None
        inference.hold.set()
        done = await owner.until(batch.id, State.COMPLETED)
        await owner.batches.remove(batch.id)
        await files.remove(batch.input_file_id)
        for gone in (files.get(done.output_file_id or ""), owner.batches.get(batch.id)):
            with pytest.raises(NotFound):
                await gone
    assert left(owner.state_dir) == ["lock"]


async def test_two_may_delete_the_same(start: Start) -> None:
    """At the same time; it is gone for both."""
    async with start() as owner:
        done = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(owner.batches.remove, done.id)
        assert await owner.batches.all() == []
        assert [file.id for file in await (await owner.batches.files()).all()] == [done.input_file_id]


async def test_what_is_over_age_goes(start: Start) -> None:
    """Files by their own time, batches when their files are long gone."""
    async with start() as owner:
        batch = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
    for record in sorted(owner.state_dir.glob("*/*.json")):
        change(record, expires_at=batch.created_at - 4000)
    async with start() as owner:
        assert await (await owner.batches.files()).all() == []
        with pytest.raises(NotFound):
            await owner.batches.get(batch.id)
    assert left(owner.state_dir) == ["lock"]


async def test_a_broken_upload_leaves_nothing(start: Start, tmp_path: Path) -> None:
    """Neither at once nor, after a crash, at the next start."""
    async with start() as owner:
        files = await owner.batches.files()
        with pytest.raises(RuntimeError), files.incoming() as incoming:
            await incoming.write(b"half")
            raise RuntimeError
        assert left(tmp_path) == ["lock"]
    (tmp_path / "files" / new_id("file-")).write_text("half")
    (tmp_path / "files" / ".new-1").write_text("half")
    async with start() as owner:
        assert await (await owner.batches.files()).all() == []
    assert left(tmp_path) == ["lock"]


async def test_one_owner_at_a_time(start: Start, tmp_path: Path) -> None:
    """Another daemon says so, and takes over when the first has ended."""
    async with start() as owner:
        batch = await owner.submit(requests(1))
        await owner.until(batch.id, State.COMPLETED)
    with FileLock(tmp_path / "batches" / "lock"):
        async with start() as other:
            assert [notice.code for notice in other.notices] == [owning.NOT_OURS]
            with pytest.raises(Conflict, match="another daemon"):
                await other.batches.get(batch.id)
    async with start() as other:
        assert (await other.batches.get(batch.id)).status is State.COMPLETED
        assert list(other.notices) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\0\0", b'{"id":"../../etc/passwd"}', b"[]"])
async def test_a_damaged_record_is_left_out(start: Start, damage: bytes) -> None:
    """The others are there."""
    async with start() as owner:
        batch = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
    (owner.state_dir / "batches" / f"{new_id('batch_')}.json").write_bytes(damage)
    async with start() as owner:
        assert [known.id for known in await owner.batches.all()] == [batch.id]


async def test_an_input_that_is_gone_fails_its_batch(start: Start) -> None:
    """Somebody deleted it behind our back."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(1))
        await owner.until(batch.id, State.IN_PROGRESS)
    (owner.state_dir / "files" / batch.input_file_id).unlink()
    async with start() as owner:
        (fault,) = (await owner.until(batch.id, State.FAILED)).faults
        assert fault.code == "input_unreadable"


async def test_a_bug_fails_its_batch_alone(start: Start) -> None:
    """It would end the daemon at every start; the next batch is answered."""
    inference = FakeInference()

    def bug(question: str) -> None:
        if question == "r1":
            raise RuntimeError("xyzzy")

    inference.fate = bug
    async with start(inference) as owner:
        (fault,) = (await owner.until((await owner.submit(requests(2))).id, State.FAILED)).faults
        assert (fault.code, "xyzzy" in fault.message) == ("internal_error", False)
        await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)


async def test_readers_that_differ_do_not_matter(start: Start) -> None:
    """Two fields of one name: the last one counts, wherever it is read."""
    async with start() as owner:
        text = line("a").replace('"model"', '"model": 5, "model"')
        await owner.until((await owner.submit(text)).id, State.COMPLETED)


@pytest.mark.parametrize("file_id", ["", "..", "../batches/lock", "file-" + "0" * 24, "\0", "x" * 5000])
async def test_hostile_ids_are_not_found(start: Start, file_id: str) -> None:
    """They never reach the disk."""
    async with start() as owner:
        with pytest.raises(NotFound):
            await (await owner.batches.files()).get(file_id)
        with pytest.raises(NotFound):
            await owner.batches.get(file_id)


async def test_an_answer_is_no_input(start: Start) -> None:
    """Only what was uploaded for a batch is."""
    async with start() as owner:
        done = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        again = msgspec.structs.replace(done, id=new_id("batch_"), input_file_id=done.output_file_id or "")
        with pytest.raises(BadRequest, match="not uploaded for a batch"):
            await owner.batches.create(again)

"""What becomes of files and records of batches: deleted, too old, damaged, asked for by strangers."""

import errno
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import msgspec
import pytest
from fake_inference import FakeInference, line
from filelock import FileLock
from owner import Start, change, eventually, left, requests

from pilotlight.batch import batches as owning
from pilotlight.batch.files import MAX_UPLOADS
from pilotlight.batch.records import State, new_id
from pilotlight.batch.states import outputs
from pilotlight.errors import BadRequest, Busy, Conflict, NotFound

pytestmark = pytest.mark.anyio


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


async def test_what_cannot_be_deleted_stays_and_is_told(start: Start, tmp_path: Path) -> None:
    """It can be deleted later; here folders are where the records were."""
    async with start() as owner:
        done = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        files = await owner.batches.files()
        records: dict[Path, Callable[[], Awaitable[None]]] = {
            tmp_path / "files" / f"{done.input_file_id}.json": lambda: files.remove(done.input_file_id),
            tmp_path / "batches" / f"{done.id}.json": lambda: owner.batches.remove(done.id),
        }
        for record, remove in records.items():
            kept = record.rename(tmp_path / "kept")
            record.mkdir()
            with pytest.raises(Conflict, match="cannot be deleted: Is a directory"):
                await remove()
            record.rmdir()
            kept.rename(record)
        assert done.id in {batch.id for batch in await owner.batches.all()}
        assert done.input_file_id in {file.id for file in await files.all()}
        for remove in records.values():
            await remove()
    assert left(tmp_path) == ["lock"]


async def test_a_content_that_cannot_be_deleted_is_no_file_any_more(start: Start, tmp_path: Path) -> None:
    """It goes at the next start, if it can be by then; here a folder is in its place."""
    async with start() as owner:
        file_id = await owner.upload(requests(1))
        content = tmp_path / "files" / file_id
        content.unlink()
        content.mkdir()
        files = await owner.batches.files()
        await files.remove(file_id)
        assert await files.all() == []
    content.rmdir()
    content.touch()
    async with start() as owner:
        await owner.batches.all()
    assert left(tmp_path) == ["lock"]


async def test_a_record_stands_once_it_is_there(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the system does not say that its name will last: whoever sent it would send it again."""

    def refuse(folder: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pilotlight.registry.private_file.sync", refuse)
    async with start() as owner:
        done = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        assert list(owner.notices) == []
    async with start() as owner:
        assert await owner.batches.all() == [done]


async def test_what_is_over_age_goes(start: Start, tmp_path: Path) -> None:
    """Files by their own time, batches when their files are gone; at the next start, though nobody asks."""
    async with start() as owner:
        batch = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
    long_ago = batch.created_at - 4000
    change(tmp_path / "batches" / f"{batch.id}.json", expires_at=long_ago, completed_at=long_ago)
    for file_id in (batch.input_file_id, batch.output_file_id):
        change(tmp_path / "files" / f"{file_id}.json", expires_at=long_ago)

    async def is_gone() -> bool:
        return left(tmp_path) == ["lock"]

    async with start():
        await eventually(is_gone)


async def test_what_cannot_be_deleted_costs_nothing_else(start: Start, tmp_path: Path) -> None:
    """Neither the daemon at each of its starts nor what can be; here folders are where contents were."""
    async with start() as owner:
        batch = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
        upload = await owner.upload(requests(1))
        young = await owner.upload(requests(1))
    long_ago = batch.created_at - 4000
    change(tmp_path / "batches" / f"{batch.id}.json", expires_at=long_ago, completed_at=long_ago)
    stuck = [batch.input_file_id, batch.output_file_id or ""]
    for file_id in (*stuck, upload):
        change(tmp_path / "files" / f"{file_id}.json", expires_at=long_ago)
    for file_id in stuck:
        (tmp_path / "files" / file_id).unlink()
        (tmp_path / "files" / file_id).mkdir()
    for _ in range(2):
        async with start() as owner:
            assert batch.id not in {known.id for known in await owner.batches.all()}
            ids = {file.id for file in await (await owner.batches.files()).all()}
            assert ids & {young, upload, *stuck} == {young}
            await owner.until((await owner.submit_file(young)).id, State.COMPLETED)
            assert list(owner.notices) == []


async def test_an_upload_goes_by_itself(start: Start, tmp_path: Path) -> None:
    """At the next start, too, though no batch goes with it."""
    async with start() as owner:
        file_id = await owner.upload(requests(1))
    change(tmp_path / "files" / f"{file_id}.json", expires_at=0)

    async def is_gone() -> bool:
        return left(tmp_path) == ["lock"]

    async with start():
        await eventually(is_gone)


async def test_a_batch_that_ends_late_is_kept_from_its_end(start: Start, tmp_path: Path) -> None:
    """Its window was long over when the machine was switched on again."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(1))
        await owner.until(batch.id, State.IN_PROGRESS)
    change(tmp_path / "batches" / f"{batch.id}.json", expires_at=batch.created_at - 4000)
    async with start() as owner:
        done = await owner.until(batch.id, State.EXPIRED)
        assert await owner.statuses(done) == {"r0": "batch_expired"}
        assert await owner.batches.all() == [done]


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


async def test_who_comes_while_another_daemon_ends_goes_on_once_it_has(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks for any batch."""
    monkeypatch.setattr(owning, "DISK_PAUSE_S", 0.01)
    monkeypatch.setattr(owning, "MAX_CLAIMS", 10_000)
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(2))
        await owner.until(batch.id, State.IN_PROGRESS)
    inference = FakeInference()
    with FileLock(tmp_path / "batches" / "lock") as ending:
        async with start(inference) as other:
            assert [notice.code for notice in other.notices] == [owning.NOT_OURS]
            ending.release()
            with anyio.fail_after(20):
                await inference.until_asked(2)
            assert list(other.notices) == []


async def test_uploads_at_the_same_time_are_bounded(start: Start) -> None:
    """Each has a descriptor for as long as its client likes; one that ends makes room for another."""
    async with start() as owner:
        files = await owner.batches.files()
        with ExitStack() as uploads:
            for _ in range(MAX_UPLOADS):
                uploads.enter_context(files.incoming())
            with pytest.raises(Busy, match="32 files"):
                uploads.enter_context(files.incoming())
        with files.incoming():
            pass


async def test_what_is_uploaded_while_the_daemon_stops_is_no_leftover(start: Start) -> None:
    """Another daemon owns the files once nothing can be written to them any more, not before."""
    async with start() as owner:
        files = await owner.batches.files()
        with files.incoming() as incoming:
            await incoming.write(requests(1).encode())
            owner.batches.stop()
            await anyio.wait_all_tasks_blocked()
            async with start() as other:
                with pytest.raises(Conflict, match="another daemon"):
                    await other.batches.files()
            kept = await files.keep(incoming, "in.jsonl", "batch", 3600)
    async with start() as other:
        done = await other.until((await other.submit_file(kept.id)).id, State.COMPLETED)
        assert await other.statuses(done) == {"r0": 200}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\0\0", b'{"id":"../../etc/passwd"}', b"[]", b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}"],
)
async def test_a_damaged_record_is_left_out(start: Start, damage: bytes) -> None:
    """The others are there."""
    async with start() as owner:
        batch = await owner.until((await owner.submit(requests(1))).id, State.COMPLETED)
    (owner.state_dir / "batches" / f"{new_id('batch_')}.json").write_bytes(damage)
    async with start() as owner:
        assert [known.id for known in await owner.batches.all()] == [batch.id]


@pytest.mark.parametrize(
    ("damage", "is_known"),
    [({"completed_at": None}, True), ({"output_keep_s": 10**400}, False), ({"output_keep_s": -1}, False)],
)
async def test_a_record_with_odd_times_ends_no_daemon(
    start: Start, tmp_path: Path, damage: dict[str, int | None], is_known: bool
) -> None:
    """At each of its starts, when it looks what is over age; the others are there."""
    async with start() as owner:
        odd, other = [
            await owner.until((await owner.submit(requests(1))).id, State.COMPLETED) for _ in range(2)
        ]
    change(tmp_path / "batches" / f"{odd.id}.json", **damage)
    async with start() as owner:
        known = {batch.id for batch in await owner.batches.all()}
        assert known == {other.id} | ({odd.id} if is_known else set())


async def test_what_a_damaged_record_is_of_stays(start: Start) -> None:
    """It is a file again once its record can be read."""
    async with start() as owner:
        file_id = await owner.upload(requests(1))
    record = owner.state_dir / "files" / f"{file_id}.json"
    content = record.read_bytes()
    record.write_bytes(b"{}")
    async with start() as owner:
        assert await (await owner.batches.files()).all() == []
    record.write_bytes(content)
    async with start() as owner:
        files = await owner.batches.files()
        assert files.path((await files.get(file_id)).id).read_text() == requests(1)


async def test_a_batch_left_out_keeps_its_answers(start: Start) -> None:
    """They are not known to be its own, so nothing is taken for a leftover."""
    async with start(FakeInference(gate=anyio.Event())) as owner:
        batch = await owner.submit(requests(2))
        await owner.until(batch.id, State.IN_PROGRESS)
    answers = owner.state_dir / "files" / outputs(batch.id)[0]
    answers.write_text("half of it")
    (owner.state_dir / "batches" / f"{batch.id}.json").write_bytes(b"{}")
    async with start() as owner:
        assert await owner.batches.all() == []
    assert answers.read_text() == "half of it"


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


async def test_the_answers_of_a_batch_that_failed_go_with_it(start: Start) -> None:
    """Those it had until then."""
    inference = FakeInference()

    def bug(question: str) -> None:
        if question == "r1":
            raise RuntimeError

    inference.fate = bug
    async with start(inference) as owner:
        batch = await owner.until((await owner.submit(requests(2))).id, State.FAILED)
        answers = owner.state_dir / "files" / outputs(batch.id)[0]
        assert answers.exists()
        await owner.batches.remove(batch.id)
        assert not answers.exists()


async def test_what_is_open_need_not_be_deleted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to, and all lines have an answer, so the file of errors goes."""
    unlink = Path.unlink

    def refuse_open(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and any(link.resolve() == path for link in Path("/proc/self/fd").iterdir()):
            raise PermissionError(13, "the file is open")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_open)
    async with start() as owner:
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

"""The daemon's batches: checked when they come, then run one after another, oldest first, over restarts.

`state_dir/batches` has a record per batch, `state_dir/files` their inputs and answers. Of several daemons
with one state directory the first that looks at them owns them until it ends. Knows nothing of HTTP. Single
event loop.
"""

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace
from structlog.contextvars import unbind_contextvars

from pilotlight.batch.files import Files, dropping, storing
from pilotlight.batch.journal import Journal
from pilotlight.batch.lines import MAX_FAULTS, Input, Scan, scan
from pilotlight.batch.records import Batch, Counts, Fault, Records, State, deleting
from pilotlight.batch.run import DISK_PAUSE_S, Desk, Run
from pilotlight.batch.states import KINDS, cancelled, cause, ended, fault_of, finalizing, outputs, passes
from pilotlight.core import Severity
from pilotlight.errors import BadRequest, Busy, Conflict, Error, NotFound, ShuttingDown

if TYPE_CHECKING:
    from filelock import BaseFileLock

NOT_OURS = "batches_elsewhere"
UNREAD = "batch_not_read"

CLOCK_S = 30.0
"""Between two looks at the time of day while a batch is at work; what may not run is looked at more often."""

MAX_UNFINISHED = 1000
"""Batches that are not over: more would be refused."""

MAX_CLAIMS = 10
"""Of folders that another daemon has: after that it is for requests to try."""

ANY_LENGTH = 2**40
"""Bytes: more than any file has."""

log = structlog.get_logger()


class Batches:
    """Owns batches and files. Nothing is read before somebody asks, or something was left to be done."""

    def __init__(self, state_dir: Path, desk: Desk, max_line_bytes: int) -> None:
        self._folder = state_dir / "batches"
        self._records = Records(self._folder, Batch)
        self._files = Files(state_dir / "files", self._in_use)
        self._desk = desk
        self._max_line_bytes = max_line_bytes
        self._lock: BaseFileLock | None = None
        self._opening = anyio.Lock()
        self._changing = anyio.Lock()
        self._place = anyio.CapacityLimiter(1)
        """Of a thread that scans: those that others wait for could all be taken."""
        self._tasks: TaskGroup | None = None
        self._at_work: dict[str, anyio.CancelScope] = {}
        """Those somebody works at, with what their lines run in."""
        self._journals: dict[str, Journal] = {}
        """Of those that have run and are not over; closed ones, too: what is done is told while they wait."""
        self._aside: set[str] = set()
        """Those that wait until their files can be used."""
        self._wake = anyio.Event()
        self._is_stopping = False

    # --- for the API ---

    async def files(self) -> Files:
        """Raises `Conflict` if another daemon owns them."""
        await self._open()
        return self._files

    async def all(self) -> list[Batch]:
        """Oldest first."""
        await self._open()
        return [self._live(batch) for batch in self._records]

    async def get(self, batch_id: str) -> Batch:
        """Raises `NotFound`."""
        await self._open()
        return self._live(self._known(batch_id))

    async def create(self, batch: Batch) -> Batch:
        """Take it in; it is checked, and run in its turn. Raises `NotFound` for its file, `DiskFull`, and
        `Busy` if too many are not over."""
        file = await (await self.files()).get(batch.input_file_id)
        if file.purpose != "batch":
            raise BadRequest(
                f"{file.id} was not uploaded for a batch (purpose 'batch')", param="input_file_id"
            )
        async with self._changing:
            if len(self._unfinished()) >= MAX_UNFINISHED:
                raise Busy(
                    f"{MAX_UNFINISHED} batches are not over, and more are not taken; cancel one, or wait"
                )
            with storing("the batch"):
                await self._records.put(batch)
        self._start(self._check, batch)
        return batch

    async def cancel(self, batch_id: str) -> Batch:
        """Stop what of it runs; what is answered is kept. Raises `NotFound`, and `Conflict` if it is over."""
        await self._open()
        with storing("the cancelling"):
            batch = await self._change(batch_id, cancelled)
        self._bring_back(batch_id)
        if (scope := self._at_work.get(batch_id)) is not None:
            scope.cancel()
        else:
            self._start(self._work, batch)
        return self._live(batch)

    async def remove(self, batch_id: str) -> None:
        """Delete a batch, and what it wrote. Raises `NotFound`, and `Conflict` if it is not over, or the
        system keeps it."""
        await self._open()
        if not self._known(batch_id).status.is_over:
            raise Conflict(f"{batch_id} is not over; cancel it first")
        with dropping(batch_id):
            await self._drop(batch_id)

    def num_in(self, state: State) -> int:
        """How many are in it, as far as anybody has looked."""
        return sum(batch.status is state for batch in self._records)

    # --- life ---

    async def run(self) -> None:
        """Run batches until `stop`. While there are none, nothing happens."""
        async with anyio.create_task_group() as self._tasks:
            try:
                if self._folder.exists():
                    await self._open_or_tell()
                    self._tasks.start_soon(self._open_later)
                while True:
                    self._wake = anyio.Event()
                    if (batch := self._next()) is not None:
                        await self._do(self._work, batch)
                    else:
                        await self._wake.wait()
            finally:
                self._tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin nothing more; lines that run are run again after the next start. They stay ours until
        `release`: requests that run may still write files."""
        self._is_stopping = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def release(self) -> None:
        """Let another daemon own them, once nothing of ours can write any more."""
        if self._lock is not None:
            self._lock.release()

    async def _open_or_tell(self) -> None:
        try:
            await self._open()
        except Error as error:
            self._desk.notices.raise_(NOT_OURS, Severity.WARNING, error.message)

    async def _open_later(self) -> None:
        """The daemon that has them may be ending, and lets go of them at its end."""
        for _ in range(MAX_CLAIMS):
            if self._lock is not None:
                return
            await anyio.sleep(DISK_PAUSE_S)
            await self._open_or_tell()

    async def _open(self) -> None:
        """Own the folders, and go on with what was not over."""
        if self._is_stopping:
            raise ShuttingDown("the daemon is stopping")
        async with self._opening:
            if self._lock is None:
                with storing("the state directory"):
                    self._lock = await to_thread.run_sync(self._claim)
                self._desk.notices.clear(NOT_OURS)
                for batch in self._records:
                    self._go_on(batch)
        await self._expire()

    def _go_on(self, batch: Batch) -> None:
        """From where it stands; its lines run in its turn."""
        if batch.status is State.VALIDATING:
            self._start(self._check, batch)
        elif batch.status is State.CANCELLING:
            self._start(self._work, batch)
        self._wake.set()

    def _start(self, work: Callable[[Batch], Coroutine[None, None, None]], batch: Batch) -> None:
        if self._is_stopping:
            return  # the next daemon goes on from its record
        assert self._tasks is not None, "batches run before the first request comes in"
        self._tasks.start_soon(self._do, work, batch)

    async def _do(self, work: Callable[[Batch], Coroutine[None, None, None]], batch: Batch) -> None:
        # Tasks begin within whichever request comes first, and go on long after it.
        unbind_contextvars("request_id")
        try:
            await work(batch)
        except* Exception as group:
            # A bug elsewhere ends the daemon. One that a file brings about would do so at every start anew.
            await self._fail_or_wait(batch.id, cause(group), fault_of(batch, cause(group)))

    async def _fail_or_wait(self, batch_id: str, error: BaseException, fault: Fault) -> None:
        batch = self._records.get(batch_id)
        if batch is None or batch.status.is_over or batch_id in self._at_work:
            return  # it was cancelled meanwhile
        if passes(error) and batch.status is not State.CANCELLING and time.time() < batch.expires_at:
            self._set_aside(batch, error)
            return
        # What may pass is no fault of one that is over: it has expired.
        faults = () if passes(error) else (fault,)
        # Beside the others, as its answers may be what cannot be read.
        self._aside.add(batch_id)
        assert self._tasks is not None, "batches run before the first request comes in"
        self._tasks.start_soon(self._give_up, batch, faults)

    async def _give_up(self, batch: Batch, faults: tuple[Fault, ...]) -> None:
        with self._alone(batch.id):
            await self._desk.write(lambda: self._fail(batch, *faults))
        self._bring_back(batch.id)

    def _set_aside(self, batch: Batch, error: OSError) -> None:
        self._aside.add(batch.id)
        text = f"a batch waits because its files cannot be used: {error.strerror or error}"
        self._desk.notices.raise_(UNREAD, Severity.ERROR, text)
        self._start(self._try_again, batch)

    async def _try_again(self, batch: Batch) -> None:
        """Others run until then, and give way to it once its file can be read."""
        await anyio.sleep(DISK_PAUSE_S)
        await self._scan(batch)
        self._bring_back(batch.id)
        if (now := self._records.get(batch.id)) is not None:
            self._go_on(now)

    def _bring_back(self, batch_id: str) -> None:
        """The notice stands as long as one waits, also while its input is tried."""
        self._aside.discard(batch_id)
        if not self._aside:
            self._desk.notices.clear(UNREAD)

    def _claim(self) -> "BaseFileLock":
        """Blocking."""
        from filelock import FileLock, Timeout

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(self._folder / "lock", mode=0o600, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise Conflict(
                f"the files and batches in {self._folder.parent} belong to another daemon that runs there; "
                "call that one, or give this one another --state-dir"
            ) from None
        self._records.load()
        self._files.load()
        # The answers of a batch that still runs have no record; those of one that was left out are not known.
        if self._records.is_whole:
            self._files.drop_leftovers()
        return lock

    async def _expire(self) -> None:
        """Delete files that are over age, and forget batches whose files are gone."""
        for batch in self._records:
            if batch.status.is_over and batch.kept_until < time.time():
                with deleting(batch.id):
                    await self._drop(batch.id)
        await self._files.expire()

    async def _drop(self, batch_id: str) -> None:
        for file_id in outputs(batch_id):
            # One that a batch had no answers for is no file.
            with deleting(file_id):
                await self._files.discard(file_id)
        await self._records.remove(batch_id)

    # --- checking ---

    async def _check(self, batch: Batch) -> None:
        """Refuse it with all that is wrong with its file, or put it in the line of those that run."""
        found = await self._scan(batch)
        faults = found.faults or await self._unknown_models(found.models)

        def checked(now: Batch) -> Batch:
            if now.status is not State.VALIDATING:
                return now
            if faults:
                return replace(now.moved(State.FAILED, time.time()), faults=tuple(faults))
            model = next(iter(found.models)) if len(found.models) == 1 else None
            counts = Counts(total=len(found.offsets))
            return replace(now.moved(State.IN_PROGRESS, time.time()), model=model, counts=counts)

        # It may have been cancelled, and deleted, while its file was read.
        with suppress(NotFound):
            await self._desk.write(lambda: self._change(batch.id, checked))
        self._wake.set()

    async def _scan(self, batch: Batch) -> Scan:
        """Raises `OSError` for what may pass. How long a line may be is asked only of what is new."""
        path = self._files.path(batch.input_file_id)
        max_bytes = self._max_line_bytes if batch.status is State.VALIDATING else ANY_LENGTH
        try:
            return await to_thread.run_sync(scan, path, batch.endpoint, max_bytes, limiter=self._place)
        except FileNotFoundError as exc:
            return Scan(faults=[Fault("input_unreadable", f"the file cannot be read: {exc.strerror}")])

    async def _unknown_models(self, models: dict[str, int]) -> list[Fault]:
        faults: list[Fault] = []
        for model, line in models.items():
            if len(faults) >= MAX_FAULTS:
                break
            try:
                await self._desk.inference.find(model)
            except Error as error:
                faults.append(Fault(error.code or "model_not_found", error.message, line, "body.model"))
        return faults

    # --- running ---

    def _next(self) -> Batch | None:
        waiting = (State.IN_PROGRESS, State.FINALIZING)
        batches = (batch for batch in self._records if batch.id not in self._aside)
        return next((batch for batch in batches if batch.status in waiting), None)

    async def _work(self, batch: Batch) -> None:
        """Take it to its end, from whatever state; of one that is cancelled nothing runs."""
        if batch.id in self._at_work:
            return
        with self._alone(batch.id) as scope:
            await self._work_through(batch, scope)

    @contextmanager
    def _alone(self, batch_id: str) -> Iterator[anyio.CancelScope]:
        """Nobody else works at it meanwhile."""
        scope = self._at_work[batch_id] = anyio.CancelScope()
        try:
            yield scope
        finally:
            del self._at_work[batch_id]

    async def _work_through(self, batch: Batch, scope: anyio.CancelScope) -> None:
        found = await self._scan(batch)
        log.info("batch begins", batch=batch.id, status=batch.status.value)
        if found.faults:
            await self._fail(batch, *found.faults)
            return
        lines = Input(self._files.path(batch.input_file_id), found, batch.endpoint)
        with lines, await self._journal(batch, len(lines)) as journal:
            self._journals[batch.id] = journal
            run = Run(self._desk, batch.endpoint, lines, journal, lambda: self._is_first(batch))
            await self._answer(batch, run, scope)
            if journal.pending:  # it gave way
                await self._desk.write(lambda: self._change(batch.id, self._live))
                return
            await self._finalize(batch, journal)
        await self._finish(batch, journal)

    def _is_first(self, batch: Batch) -> bool:
        first = self._next()
        return first is None or first.id == batch.id

    async def _journal(self, batch: Batch, num_lines: int) -> Journal:
        """Raises `OSError`: others run while it cannot be read."""
        output, errors = map(self._files.path, outputs(batch.id))
        return await to_thread.run_sync(Journal, batch.id, num_lines, output, errors)

    async def _answer(self, batch: Batch, run: Run, scope: anyio.CancelScope) -> None:
        """Every line has an entry after that, if only why it has no answer, or the batch gave way."""
        if not self._is_cancelled(batch):
            with scope:
                await _until(batch.expires_at, run)
        if self._is_cancelled(batch):
            await run.end("batch_cancelled", "the batch was cancelled before this request ran")
        elif batch.expires_at <= time.time():
            await run.end(
                "batch_expired",
                f"the batch was over after {batch.completion_window}, before this request ran",
            )

    def _is_cancelled(self, batch: Batch) -> bool:
        return self._known(batch.id).status is State.CANCELLING

    async def _finalize(self, batch: Batch, journal: Journal) -> None:
        """Nothing is added to the answers any more. Raises `OSError`."""
        if journal.counts.are_whole:
            await self._desk.write(lambda: self._change(batch.id, finalizing))
        await to_thread.run_sync(journal.finish)

    async def _finish(self, batch: Batch, journal: Journal, *faults: Fault) -> None:
        """Make files of the answers. Killed in between, all of it is done again.

        The journal is closed by then: Windows deletes no file that is open.
        """
        counts, usage = journal.counts, journal.usage
        ids = zip(outputs(batch.id), KINDS, strict=True)
        output, errors = [await self._publish(batch, file_id, kind) for file_id, kind in ids]

        def over(now: Batch) -> Batch:
            end = replace(now, counts=counts, usage=usage, output_file_id=output, error_file_id=errors)
            return ended(end, faults)

        now = await self._desk.write(lambda: self._change(batch.id, over))
        self._journals.pop(batch.id, None)
        log.info("batch over", batch=batch.id, status=now.status.value)

    async def _publish(self, batch: Batch, file_id: str, kind: str) -> str | None:
        """The id, if there is anything in the file; else it is no file."""
        path = self._files.path(file_id)
        if not path.stat().st_size:
            path.unlink()
            return None
        name = f"{batch.id}_{kind}.jsonl"
        await self._desk.write(lambda: self._files.publish(file_id, name, batch.output_keep_s))
        return file_id

    async def _fail(self, batch: Batch, *faults: Fault) -> None:
        """It cannot go on; what is answered is kept. Raises `OSError`."""
        with await self._journal(batch, batch.counts.total) as journal:
            await to_thread.run_sync(journal.finish)
        await self._finish(batch, journal, *faults)

    # --- records ---

    def _known(self, batch_id: str) -> Batch:
        if (batch := self._records.get(batch_id)) is None:
            raise NotFound(f"there is no batch {batch_id[:80]!r}", param="batch_id")
        return batch

    def _live(self, batch: Batch) -> Batch:
        """With what is counted so far."""
        if (journal := self._journals.get(batch.id)) is None:
            return batch
        return replace(batch, counts=journal.counts, usage=journal.usage)

    async def _change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        """Raises `OSError`; nothing has changed then."""
        async with self._changing:
            batch = change(self._known(batch_id))
            await self._records.put(batch)
        return batch

    def _unfinished(self) -> list[Batch]:
        return [batch for batch in self._records if not batch.status.is_over]

    def _in_use(self) -> set[str]:
        """The files that batches need which are not over."""
        running = self._unfinished()
        return {file_id for batch in running for file_id in (batch.input_file_id, *outputs(batch.id))}


async def _until(moment: float, run: Run) -> None:
    """Run it until then at most, by the time of day: timers stand still while the machine sleeps."""
    done = anyio.Event()

    async def work() -> None:
        await run.run()
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        while not done.is_set() and (left_s := moment - time.time()) > 0:
            with anyio.move_on_after(min(left_s, CLOCK_S)):
                await done.wait()
        tasks.cancel_scope.cancel()

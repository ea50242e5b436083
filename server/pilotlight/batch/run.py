"""One batch at work: its lines go to the model a few at a time, each until it has an answer that can stand.

Knows what an answer is worth; how one is made is `Inference`, where it is kept is `Journal`.
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import anyio
import msgspec
import structlog
from anyio import to_thread
from msgspec import Struct

from pilotlight.batch.journal import Entry, Journal, NotRun, Response
from pilotlight.batch.lines import Input, Line, asked_model
from pilotlight.core import Severity
from pilotlight.errors import Error, Unloaded, WorkerFailed
from pilotlight.notices import Notices

MISHAPS = (WorkerFailed, Unloaded)
"""What a line may be innocent of: it is tried again."""
MAX_TRIES = 3
MAX_LOST = 5
"""Lines of a model in a row that its worker did not survive: those after them are not tried."""
PASSING = (429, 503)
"""What is over some time, so that a line waits for it: no room in the queue, in memory, by the policy."""
PAUSE_S = 5.0
"""Between two tries if the refusal does not say how long to wait."""
DISK_PAUSE_S = 30.0
DISK_NOTICE = "batch_not_written"

T = TypeVar("T")

log = structlog.get_logger()


class Inference(Protocol):
    """What batches need of the daemon."""

    async def find(self, model: str) -> str:
        """The name of the model that has this name or alias. Raises `ModelNotFound`."""

    async def ask(self, endpoint: str, body: bytes, request_id: str) -> bytes:
        """The JSON that the endpoint answers to this body, without line breaks. Raises any `Error`."""

    def parallel(self, model: str) -> int:
        """How many requests the model's worker runs side by side; 1 while nobody knows."""

    async def may_run(self) -> None:
        """Returns once batches may run."""


class Desk(Struct, frozen=True):
    """What all batches share."""

    inference: Inference
    notices: Notices
    count_line: Callable[[str], None]
    """Told `completed` or `failed` for each answer."""

    async def write(self, write: Callable[[], Awaitable[T]]) -> T:
        """Until it is written: a full disk is told by a notice, and waited for."""
        while True:
            try:
                written = await write()
            except OSError as exc:
                text = f"a batch waits because its files cannot be written: {exc.strerror}"
                self.notices.raise_(DISK_NOTICE, Severity.ERROR, text)
                await anyio.sleep(DISK_PAUSE_S)
            else:
                self.notices.clear(DISK_NOTICE)
                return written


class Run:
    """Answers the lines that have no answer yet; may be cancelled at any point and run anew.

    `is_first`: no other batch has its turn before this one.
    """

    def __init__(
        self, desk: Desk, endpoint: str, lines: Input, journal: Journal, is_first: Callable[[], bool]
    ) -> None:
        self._desk = desk
        self._inference = desk.inference
        self._endpoint = endpoint
        self._lines = lines
        self._journal = journal
        self._is_first = is_first
        self._num_running = 0
        self._num_troubled = 0
        self._lost: Counter[str] = Counter()
        self._change = anyio.Event()
        self._alone = anyio.Lock()
        self._writing = anyio.Lock()

    async def run(self) -> None:
        """Returns once every line has its answer, or, when the batch gives way, each that was begun."""
        async with anyio.create_task_group() as tasks:
            # Models that do not fit together would be loaded in turns, line by line.
            for number in self._lines.by_model(self._journal.pending):
                line = await to_thread.run_sync(self._lines.__getitem__, number)
                model = asked_model(line)
                await self._turn(model)
                await self._inference.may_run()
                if not self._is_first():
                    return
                self._num_running += 1
                tasks.start_soon(self._answer, number, line, model)

    async def end(self, code: str, message: str) -> None:
        """Write for every line without an answer why it has none. Raises `OSError` if they cannot be read."""
        reason = NotRun(code, message)
        custom_ids = await to_thread.run_sync(self._pending_ids)

        def write() -> None:
            for number in self._journal.pending:
                entry_id, custom_id = self._journal.entry_id(number), custom_ids[number]
                self._journal.add(Entry(entry_id, custom_id, error=reason))

        await self._desk.write(lambda: to_thread.run_sync(write))

    def _pending_ids(self) -> dict[int, str]:
        """Blocking."""
        return {number: self._lines[number].custom_id for number in self._journal.pending}

    async def _turn(self, model: str) -> None:
        """Until the worker has a place for one more."""
        while self._num_troubled or self._num_running >= self._inference.parallel(model):
            self._change = anyio.Event()
            await self._change.wait()

    async def _answer(self, number: int, line: Line, model: str) -> None:
        try:
            response = await self._response(line, model)
            await self._keep(Entry(self._journal.entry_id(number), line.custom_id, response))
        finally:
            self._num_running -= 1
            self._change.set()
        self._desk.count_line("completed" if response.status_code < 300 else "failed")

    async def _keep(self, entry: Entry) -> None:
        async with self._writing:
            await self._desk.write(lambda: to_thread.run_sync(self._journal.add, entry))

    async def _response(self, line: Line, model: str) -> Response:
        request_id = "req_" + secrets.token_hex(12)
        try:
            body = await self._try(line, model, request_id)
        except Error as error:
            return Response(error.status, request_id, msgspec.Raw(msgspec.json.encode(error.body())))
        return Response(200, request_id, msgspec.Raw(body))

    async def _try(self, line: Line, model: str, request_id: str) -> bytes:
        """Once beside others; after a mishap alone: a line that kills workers must not take others along."""
        if self._lost[model] >= MAX_LOST:
            raise WorkerFailed(f"not tried: its worker did not survive the {MAX_LOST} lines before")
        try:
            return await self._ask(line, model, request_id)
        except MISHAPS as mishap:
            log.warning("a line of a batch is tried again", model=model, error=mishap.message)
        self._num_troubled += 1
        try:
            async with self._alone:
                return await self._try_again(line, model, request_id)
        finally:
            self._num_troubled -= 1
            self._change.set()

    async def _try_again(self, line: Line, model: str, request_id: str) -> bytes:
        for num_left in reversed(range(MAX_TRIES - 1)):
            try:
                return await self._ask(line, model, request_id)
            except MISHAPS:
                if not num_left:
                    self._lost[model] += 1
                    raise
        raise AssertionError("the last try returns or raises")

    async def _ask(self, line: Line, model: str, request_id: str) -> bytes:
        """Again and again while the reason not to answer is a passing one."""
        while True:
            try:
                body = await self._inference.ask(self._endpoint, bytes(line.body), request_id)
            except Error as error:
                if error.status not in PASSING:
                    raise
                await anyio.sleep(PAUSE_S if error.retry_after_s is None else error.retry_after_s)
            else:
                self._lost[model] = 0
                return body

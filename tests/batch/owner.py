"""Batches as a daemon has them, over a model that answers at once."""

import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import msgspec
from fake_inference import CHAT, FakeInference, answers, line

from pilotlight.batch.batches import Batches
from pilotlight.batch.records import Batch, State, new_id
from pilotlight.batch.run import Desk
from pilotlight.notices import Notices

Start = Callable[..., AbstractAsyncContextManager["Owner"]]


class Owner:
    """What a daemon does with its batches."""

    def __init__(self, state_dir: Path, inference: FakeInference, max_line_bytes: int) -> None:
        self.state_dir = state_dir
        self.notices = Notices()
        self.batches = Batches(state_dir, Desk(inference, self.notices, lambda outcome: None), max_line_bytes)

    async def upload(self, text: str) -> str:
        files = await self.batches.files()
        with files.incoming() as incoming:
            await incoming.write(text.encode())
            return (await files.keep(incoming, "in.jsonl", "batch", 3600)).id

    async def submit(self, text: str, window_s: float = 3600) -> Batch:
        return await self.submit_file(await self.upload(text), window_s)

    async def submit_file(self, file_id: str, window_s: float = 3600) -> Batch:
        now = time.time()
        batch = Batch(
            id=new_id("batch_"),
            endpoint=CHAT,
            input_file_id=file_id,
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


def change(record: Path, **fields: float | None) -> None:
    """As time would."""
    record.write_bytes(msgspec.json.encode(msgspec.json.decode(record.read_bytes()) | fields))


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Whether it is a folder, and who may do what."""
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


def left(folder: Path) -> list[str]:
    """The files in it, by name."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def requests(num_lines: int) -> str:
    return "".join(line(f"r{number}") for number in range(num_lines))

"""One file, from a URL to verified bytes on the disk, whatever the network does meanwhile.

The bytes are kept as they come, so the next try, in this process or a later one, goes on where this one was
lost. Only what has the right hash is handed on; knows nothing of models.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from pilotlight.errors import NoSpace, PullFailed
from pilotlight.registry.private_file import FULL
from pilotlight.store.manifest import File
from pilotlight.store.ranges import LEAST_BYTES, Ranges, Source, Unsplit, lost
from pilotlight.store.retry import RETRIED, Interrupted, Patience, persist, wait_of

READ_BYTES = 1 << 20


class Part:
    """The file that half a download is kept in, and the hash of what it holds so far."""

    def __init__(self, path: Path, file: File) -> None:
        self._kind, _, self._expected = file.digest.partition(":")
        self._size = file.size
        self.path = path
        self.num_bytes = 0
        self._out = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        self._hash = self._new_hash()
        while piece := self._out.read(READ_BYTES):
            self._note(piece)

    def append(self, piece: bytes | bytearray) -> None:
        """Raises `NoSpace`; what was written until then stays."""
        view = memoryview(piece)
        while view:
            try:
                num_written = self._out.write(view)
            except OSError as exc:
                if exc.errno in FULL:
                    raise NoSpace(f"the disk is full ({exc.strerror}); what has come is kept") from exc
                raise PullFailed(f"{self.path} cannot be written: {exc.strerror}") from exc
            assert num_written is not None
            self._note(view[:num_written])
            view = view[num_written:]

    def restart(self) -> None:
        """Forget all of it."""
        self._out.seek(0)
        self._out.truncate()
        self.num_bytes = 0
        self._hash = self._new_hash()

    def is_right(self) -> bool:
        """Its bytes have the hash that they must have."""
        return self._hash.hexdigest() == self._expected

    def close(self) -> None:
        """Safely on the disk, whole or not; nothing is left of nothing."""
        try:
            os.fsync(self._out.fileno())
        finally:
            self._out.close()
        if not self.num_bytes and not self.is_right():
            self.path.unlink(missing_ok=True)

    def _note(self, piece: bytes | memoryview) -> None:
        self._hash.update(piece)
        self.num_bytes += len(piece)

    def _new_hash(self) -> "hashlib._Hash":
        if self._kind == "sha256":
            return hashlib.sha256()
        # A file that git itself keeps has the hash of its blob, which begins with its length.
        return hashlib.sha1(f"blob {self._size}\0".encode(), usedforsecurity=False)


ACCEPT = "accept its conditions on the hub, then set HF_TOKEN or run `hf auth login`"
"""Both are needed for what is gated."""


class Transfer:
    """Downloads one file into a part."""

    def __init__(
        self, file: File, part: Part, url: str, headers: Mapping[str, str], patience: Patience
    ) -> None:
        self._file = file
        self._part = part
        self._url = url
        self._headers = {**headers, "accept-encoding": "identity"}
        self._patience = patience
        self._num_requests = 0
        self._ranges: Ranges | None = None
        self._may_split = True

    def run(self, client: httpx.Client, progress: Callable[[int, int], None]) -> None:
        """Until the part is whole and has the right hash; `progress` hears how many bytes it has,
        and how many it should have (0: nobody knows).

        Raises `PullFailed`. Bytes with a wrong hash are thrown away; of several pieces, it once begins anew.
        """
        has_come_before = self._part.num_bytes > 0
        self._complete(client, progress)
        is_of_several = has_come_before or self._num_requests > 1 or self._ranges is not None
        if not self._part.is_right() and is_of_several:
            self._part.restart()
            self._take_one_stream()
            self._complete(client, progress)
        if not self._part.is_right():
            self._part.restart()
            raise PullFailed(
                f"{self._file.path} came with a wrong hash: it is not {self._file.digest}; "
                "nothing of it is kept"
            )

    def _complete(self, client: httpx.Client, progress: Callable[[int, int], None]) -> None:
        is_whole = self._part.num_bytes == self._file.size or self._part.is_right()
        if not is_whole:
            persist(lambda: self._read(client, progress), lambda: self._num_bytes, self._patience)

    @property
    def _num_bytes(self) -> int:
        """That have come, in the part or for it."""
        return self._part.num_bytes + (self._ranges.bytes_ahead if self._ranges is not None else 0)

    def _read(self, client: httpx.Client, progress: Callable[[int, int], None]) -> None:
        """What is missing. Raises `Interrupted` when it ends before the file does."""
        self._num_requests += 1
        if self._ranges is None:
            self._read_rest(client, progress)
        if self._ranges is not None:
            self._read_ranges(self._ranges, progress)

    def _take_one_stream(self) -> None:
        if self._ranges is not None:
            self._ranges.stop()
        self._ranges, self._may_split = None, False

    def _read_ranges(self, ranges: Ranges, progress: Callable[[int, int], None]) -> None:
        def tick() -> None:
            progress(self._num_bytes, ranges.size)

        try:
            for piece in ranges.read(self._part.num_bytes, tick):
                self._part.append(piece)
                tick()
        except Unsplit:
            self._take_one_stream()
            raise

    def _read_rest(self, client: httpx.Client, progress: Callable[[int, int], None]) -> None:
        """By one stream; if the server can do more, it is closed at once, and `_ranges` is there."""
        begin = self._part.num_bytes
        headers = {**self._headers, **({"range": f"bytes={begin}-"} if begin else {})}
        with lost(), client.stream("GET", self._url, headers=headers) as response:
            self._begin(response, begin)
            length = _length(response)
            total = self._file.size or (self._part.num_bytes + length if length else 0)
            if self._may_split and length >= LEAST_BYTES and (source := Source.of(response, total)):
                self._ranges = Ranges(client, source)
                return
            for piece in response.iter_raw():
                self._append(piece)
                progress(self._part.num_bytes, total)
        if self._file.size is not None and self._part.num_bytes < self._file.size:
            raise Interrupted(f"the server ended after {self._part.num_bytes} of {self._file.size} bytes")

    def _begin(self, response: httpx.Response, begin: int) -> None:
        """Decide by the head of an answer what its body is."""
        status, length = response.status_code, _length(response)
        # 1. Nothing behind what we have: it is another file, or the server is confused.
        if status == 416 and begin:
            self._part.restart()
            raise Interrupted("the server has nothing to continue with (416), so it begins anew", 0.0)
        # 2. Not now.
        if status in RETRIED:
            raise Interrupted(f"the server answers {status}", wait_of(response.headers))
        # 3. Never. The hub tells everybody what a gated repository has, and refuses only its files.
        if status in (401, 403) and response.headers.get("x-error-code") == "GatedRepo":
            raise PullFailed(f"{self._file.path} is gated: {ACCEPT}")
        if status not in (200, 206):
            raise PullFailed(f"{self._file.path}: the server answers {status} {response.reason_phrase}")
        # 4. Another file, or a page of somebody in between; what we have may still be good.
        offered = length + (begin if status == 206 else 0)
        if length and self._file.size is not None and offered != self._file.size:
            raise Interrupted(f"the server offers {offered} bytes instead of {self._file.size}")
        # 5. No room for it.
        if length > (free := shutil.disk_usage(self._part.path.parent).free):
            raise NoSpace(f"{self._file.path} needs {length} bytes more, and {free} are free on the disk")
        # 6. Another piece than we asked for.
        if status == 206 and not response.headers.get("content-range", "").startswith(f"bytes {begin}-"):
            self._part.restart()
            raise Interrupted("the server sends another piece than it was asked for, so it begins anew", 0.0)
        # 7. All of it, though we asked for the rest.
        if status == 200 and begin:
            self._part.restart()

    def _append(self, piece: bytes) -> None:
        if self._file.size is not None and self._part.num_bytes + len(piece) > self._file.size:
            self._part.restart()
            raise Interrupted(f"the server sends more than the {self._file.size} bytes of the file")
        self._part.append(piece)


def _length(response: httpx.Response) -> int:
    """Bytes of the body; 0 if the server does not tell."""
    value = response.headers.get("content-length", "")
    return int(value) if value.isdecimal() else 0


def client(stall_s: float) -> httpx.Client:
    """For `Transfer.run`. Credentials stay with the host that they are for, also across redirects."""
    return httpx.Client(follow_redirects=True, timeout=stall_s, max_redirects=5)

"""The rest of a file in pieces, several at a time and handed on in order, from a server that sends ranges.

Pieces that come before their turn wait in memory, so on the disk there is only ever the beginning of a file.
What has come of a piece whose connection is lost is kept for the next try. Knows neither hashes nor disks.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from pilotlight.errors import PullFailed
from pilotlight.store.retry import RETRIED, Interrupted, wait_of

NUM_STREAMS = 4

PIECE_BYTES = 4 << 20

LEAST_BYTES = 2 * PIECE_BYTES
"""What is less comes as fast by one stream."""

TICK_S = 0.2

SENT = ("accept-encoding", "authorization", "user-agent")
"""Of the request that was answered: httpx has taken out the credentials if they are not for that host."""


class Unsplit(Interrupted):
    """The server did not send a piece as it was asked to: what is missing is for one stream."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where pieces of a file are had, and the mark that tells whether it is still the same file."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    etag: str
    size: int

    @classmethod
    def of(cls, response: httpx.Response, size: int) -> "Source | None":
        """Of an answer that begins to send a file of that size; None where one stream is the safe way."""
        etag = response.headers.get("etag", "")
        sends_ranges = response.status_code == 206 or response.headers.get("accept-ranges") == "bytes"
        if not sends_ranges or not re.fullmatch(r'"[^"]+"', etag):  # W/"..." may stand for other bytes
            return None
        sent = response.request.headers
        return cls(str(response.url), {name: sent[name] for name in SENT if name in sent}, etag, size)


class Ranges:
    """The pieces that are on their way or waiting for their turn; for one thread."""

    def __init__(self, client: httpx.Client, source: Source) -> None:
        self._client = client
        self._source = source
        self._pieces: dict[int, _Piece] = {}

    @property
    def size(self) -> int:
        """Of the whole file."""
        return self._source.size

    @property
    def bytes_ahead(self) -> int:
        """That have come and were not handed on yet."""
        return sum(len(piece.data) for piece in self._pieces.values())

    def read(self, begin: int, tick: Callable[[], None]) -> Iterator[bytearray]:
        """From there to the end; `tick` is called while it waits. Raises `Interrupted`, also `Unsplit`.

        After that it may be called again, for where it was interrupted; the other pieces go on meanwhile.
        """
        while begin < self.size:
            for start in range(begin, min(self.size, begin + NUM_STREAMS * PIECE_BYTES), PIECE_BYTES):
                self._start(start)
            piece = self._pieces[begin]
            while not piece.is_settled.wait(TICK_S):
                tick()
            if piece.error is not None:
                raise piece.error
            yield self._pieces.pop(begin).data
            begin = piece.end

    def stop(self) -> None:
        """Nobody wants the pieces any more that are on their way."""
        for piece in self._pieces.values():
            piece.is_wanted = False

    def _start(self, start: int) -> None:
        piece = self._pieces.get(start)
        if piece is None:
            piece = self._pieces[start] = _Piece(start, min(start + PIECE_BYTES, self.size))
        elif not piece.can_go_on:
            return
        piece.start_fetching(self._client, self._source)


class _Piece:
    """The bytes from `start` to `end`, fetched in a thread that nobody waits for when the process ends."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.data = bytearray()
        self.error: BaseException | None = None
        self.is_settled = threading.Event()
        self.is_wanted = True

    @property
    def can_go_on(self) -> bool:
        """Its connection was lost; whatever else it ended with is told in its turn."""
        return isinstance(self.error, Interrupted) and not isinstance(self.error, Unsplit)

    def start_fetching(self, client: httpx.Client, source: Source) -> None:
        """What is missing of it; `is_settled` tells when it has come, or failed."""
        self.error = None
        self.is_settled.clear()
        threading.Thread(target=self._run, args=(client, source), daemon=True).start()

    def _run(self, client: httpx.Client, source: Source) -> None:
        try:
            self._fetch(client, source)
        except BaseException as exc:  # raised where somebody waits for it
            self.error = exc
        self.is_settled.set()

    def _fetch(self, client: httpx.Client, source: Source) -> None:
        begin = self.start + len(self.data)
        asked = {"range": f"bytes={begin}-{self.end - 1}", "if-range": source.etag}
        with lost(), client.stream("GET", source.url, headers={**source.headers, **asked}) as response:
            _check(response, f"bytes {begin}-{self.end - 1}/{source.size}")
            for chunk in response.iter_raw():
                if not self.is_wanted:
                    return
                if len(self.data) + len(chunk) > self.end - self.start:
                    raise Unsplit("the server sends more of a piece than it was asked for", 0.0)
                self.data += chunk
        if self.start + len(self.data) < self.end:
            raise Interrupted(f"the server ended after {self.start + len(self.data)} of {source.size} bytes")


def _check(response: httpx.Response, expected: str) -> None:
    """It is the piece that was asked for, of the same file."""
    if response.status_code in RETRIED:
        raise Unsplit(f"the server answers {response.status_code}", wait_of(response.headers))
    if response.status_code != 206 or response.headers.get("content-range") != expected:
        raise Unsplit("the server does not send the pieces it is asked for, so one stream has to do", 0.0)


@contextmanager
def lost() -> Iterator[None]:
    """What a connection may end with, as `Interrupted`, or `PullFailed` where it would again and again."""
    try:
        yield
    except httpx.TooManyRedirects as exc:
        raise PullFailed("the server redirects in circles") from exc
    except (httpx.RequestError, httpx.StreamError, httpx.InvalidURL) as exc:
        raise Interrupted(f"the connection was lost ({type(exc).__name__})") from exc

"""One keep-alive connection to an OpenAI-compatible server, and the times of its answers.

Plain asyncio sockets, so that measuring costs little; it knows nothing about scenarios or processes.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CALL_LIMIT_S = 600.0
LINE_LIMIT = 2**20

Message = dict[str, str]


class CallFailed(Exception):
    """The server refused a call, broke it off or answered without text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call brought, and when; times count from the moment the request was sent."""

    text: str
    num_tokens: int
    num_cached: int
    total_s: float
    times_s: tuple[float, ...] = ()

    @property
    def ttft_s(self) -> float:
        if not self.times_s:
            raise CallFailed("the answer streamed no text, so it has no time to first token")
        return self.times_s[0]

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times_s, self.times_s[1:], strict=False)]

    @property
    def tokens_per_s(self) -> float:
        """Decode speed: the first token belongs to the prompt."""
        return (self.num_tokens - 1) / (self.total_s - self.ttft_s)


class Client:
    """Owns one connection; one call at a time."""

    def __init__(self, url: str, model: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._model = model
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def chat(
        self, messages: list[Message], num_tokens: int, *, is_streamed: bool = True, tier: str = "auto"
    ) -> Reply:
        """Ask for exactly `num_tokens` greedy tokens; raises CallFailed."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "service_tier": tier,
            "stream": is_streamed,
        }
        if is_streamed:
            body["stream_options"] = {"include_usage": True}
        answer = await self._request("POST", "/v1/chat/completions", json.dumps(body).encode())
        return answer.reply()

    async def get(self, path: str) -> int:
        """The status of a plain GET; raises CallFailed when nobody answers."""
        return (await self._request("GET", path)).status

    async def _request(self, method: str, path: str, body: bytes = b"") -> "_Answer":
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await self._exchange(head + body)
        except TimeoutError as error:
            raise CallFailed(f"{path} gave no full answer within {CALL_LIMIT_S:.0f} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CallFailed(f"the connection broke during {path}: {error}") from error

    async def _exchange(self, request: bytes) -> "_Answer":
        """Send and read; a kept connection that the server has closed meanwhile is opened anew once."""
        is_kept = self._writer is not None
        try:
            return await self._send(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            self._close()
            if not is_kept:
                raise
            return await self._send(request)

    async def _send(self, request: bytes) -> "_Answer":
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, limit=LINE_LIMIT
            )
        answer = _Answer()
        self._writer.write(request)
        await answer.read(self._reader)
        if answer.is_last:
            self._close()
        return answer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@dataclass(slots=True)
class _Answer:
    """Collects one HTTP answer as it arrives."""

    started_s: float = field(default_factory=time.perf_counter)
    ended_s: float = 0.0
    status: int = 0
    is_last: bool = False
    body: bytearray = field(default_factory=bytearray)
    times_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    rest: bytes = b""

    async def read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        self.is_last = headers.get("connection", "").lower() == "close"
        is_events = headers.get("content-type", "").startswith("text/event-stream")
        if headers.get("transfer-encoding") == "chunked":
            await self._read_chunks(reader, is_events)
        elif "content-length" in headers:
            self.body += await reader.readexactly(int(headers["content-length"]))
        else:
            await self._read_to_end(reader, is_events)
        self.ended_s = time.perf_counter()

    async def _read_chunks(self, reader: asyncio.StreamReader, is_events: bool) -> None:
        while size := int((await reader.readline()).partition(b";")[0] or b"0", 16):
            self._take((await reader.readexactly(size + 2))[:-2], is_events)
        await reader.readline()

    async def _read_to_end(self, reader: asyncio.StreamReader, is_events: bool) -> None:
        """As HTTP/1.0 has it: the server closes when all is said."""
        self.is_last = True
        while data := await reader.read(LINE_LIMIT):
            self._take(data, is_events)

    def _take(self, data: bytes, is_events: bool) -> None:
        if is_events:
            self._take_events(data)
        else:
            self.body += data

    def _take_events(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (content := line[5:].strip()) != b"[DONE]":
                self._take_event(json.loads(content))

    def _take_event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            raise CallFailed(f"error in mid-stream: {event['error']}")
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            if text := delta.get("content") or delta.get("reasoning_content"):
                self.times_s.append(time.perf_counter() - self.started_s)
                self.texts.append(text)

    def reply(self) -> Reply:
        if self.status != 200:
            raise CallFailed(f"status {self.status}: {self.body[:300].decode(errors='replace')}")
        usage = self.usage or json.loads(self.body or b"{}").get("usage") or {}
        return Reply(
            text="".join(self.texts),
            num_tokens=usage.get("completion_tokens", len(self.times_s)),
            num_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            total_s=self.ended_s - self.started_s,
            times_s=tuple(self.times_s),
        )

"""What one request was given so far: tokens, ends, and the times between. Knows no events and no bytes."""

import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from pilotlight.core import Accepted, Chunk, Finished
from pilotlight.energy.accounts import Energy
from pilotlight.metrics import ModelMeter
from pilotlight.scheduler.answer import Item


class Usage(Struct, frozen=True):
    """Token counts of a whole request: its prompt once, its answers summed."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    energy: Energy | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's usage object, and what the answer took."""
        energy = {} if self.energy is None else {"energy": _energy_body(self.energy)}
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            **energy,
        }


def _energy_body(energy: Energy) -> dict[str, Any]:
    """Numbers to four digits: no meter has more."""
    prefill, decode = energy.prefill_joules, energy.decode_joules
    said: dict[str, Any] = {
        "joules": None if prefill is None or decode is None else _rounded(prefill + decode),
        "prefill_joules": _rounded(prefill),
        "decode_joules": _rounded(decode),
        "method": energy.method,
        "scope": energy.scope,
        "share": _rounded(energy.share),
    }
    if energy.battery_percent is not None:
        said["battery_percent"] = _rounded(energy.battery_percent)
    return said if energy.reason is None else said | {"reason": energy.reason}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


class Tally:
    """Counts one request's items as they are read, and tells the model's meter."""

    def __init__(self, meter: ModelMeter, n: int, arrived: float) -> None:
        self._meter = meter
        self._arrived = arrived
        self._prompt = 0
        self._completion = [0] * n
        self._cached = 0
        self._last = [0.0] * n

    @property
    def usage(self) -> Usage:
        return Usage(self._prompt, sum(self._completion), self._cached)

    def add(self, items: Sequence[Item]) -> list[Chunk | Finished]:
        """Count the items; what is to be shown of them, queued chunks of one answer joined into one."""
        now = time.perf_counter()
        shown: list[Chunk | Finished] = []
        for item in items if len(items) == 1 else _joined(items):
            if isinstance(item, Chunk):
                self._count(item, now)
                if item.text:
                    shown.append(item)
            elif isinstance(item, Finished):
                self._completion[item.index] = item.completion_tokens
                self._begin(item)
                shown.append(item)
            else:
                self._prompt = item.prompt_tokens
        return shown

    def report(self, began_at: float | None) -> None:
        """Add the counts to the model's, and how long the request waited until it began; once, at its end."""
        if began_at is not None:
            self._meter.observe_wait(began_at - self._arrived)
        usage = self.usage
        self._meter.count_tokens(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)

    def _count(self, chunk: Chunk, now: float) -> None:
        if not chunk.tokens:
            return
        last = self._last[chunk.index]
        if last:
            self._meter.observe_gap((now - last) / chunk.tokens)
        else:
            self._begin(chunk)
            if not any(self._last):
                self._meter.observe_first_token(now - self._arrived)
        self._last[chunk.index] = now
        self._completion[chunk.index] += chunk.tokens

    def _begin(self, item: Chunk | Finished) -> None:
        """By the first that comes of an answer, which may be its end."""
        # The first one gets its row first. Those after it share the prompt that it computes, so only what was
        # cached for it was there before.
        if not item.index:
            self._cached = item.cached_tokens


def _joined(items: Sequence[Item]) -> list[Item]:
    """Under load several chunks of one answer wait for the writer; they may go out as one."""
    chunks: dict[int, Chunk] = {}
    rest: list[Item] = []
    for item in items:
        if not isinstance(item, Chunk):
            rest.append(item)
        elif (old := chunks.get(item.index)) is None:
            chunks[item.index] = item
        else:
            joined = old.text + item.text, old.tokens + item.tokens
            chunks[item.index] = Chunk(item.index, *joined, old.cached_tokens)
    accepted = [item for item in rest if isinstance(item, Accepted)]
    return [*accepted, *chunks.values(), *(item for item in rest if isinstance(item, Finished))]

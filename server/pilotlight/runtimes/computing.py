"""For whom a runtime computed, and for how long."""

from collections.abc import Collection

from pilotlight.worker.protocol import Computed


class Computing:
    """Seconds and tokens by request, since they were last taken."""

    def __init__(self) -> None:
        self._parts: dict[int, list[float]] = {}

    def prefill(self, request_id: int, num_tokens: int, seconds: float) -> None:
        """A piece of its prompt was computed."""
        part = self._part(request_id)
        part[0] += seconds
        part[1] += num_tokens

    def decode(self, request_ids: Collection[int], seconds: float) -> None:
        """A token for each of these was, side by side: each had the same part of the time."""
        for request_id in request_ids:
            part = self._part(request_id)
            part[2] += seconds / len(request_ids)
            part[3] += 1

    def take(self) -> tuple[Computed, ...]:
        """All of it, and begin anew."""
        parts, self._parts = self._parts, {}
        return tuple(
            Computed(request_id, prefill_s, int(prefilled), decode_s, int(decoded))
            for request_id, (prefill_s, prefilled, decode_s, decoded) in parts.items()
        )

    def _part(self, request_id: int) -> list[float]:
        return self._parts.setdefault(request_id, [0.0, 0, 0.0, 0])

"""How workers run what they have: what yields is held for the policy, heat or interactive requests, and so
many threads compute as the policy says."""

from collections.abc import Sequence

from pilotlight.core import Request, WorkerInfo
from pilotlight.scheduler.gate import Orders


class Holds:
    """What is wanted of all workers now."""

    def __init__(self) -> None:
        self.orders = Orders()
        """Of the policy."""
        self.is_resting = False
        """So that the machine cools."""

    def is_held(self, model: str, urgent_models: set[str]) -> bool:
        """Its worker is to compute nothing that yields: in a rest, or if the policy says so, none does, and
        while another has interactive requests, that has the machine for itself."""
        return self.is_resting or self.orders.holds_yielding or bool(urgent_models - {model})

    def threads(self, requests: Sequence[Request], info: WorkerInfo) -> int | None:
        """That are to compute what a worker runs; None if that does not matter, or cannot be changed.

        The request that is limited least counts, of interactive ones if there are any: the others wait.
        """
        if not (requests and info.capabilities.live_threads):
            return None
        on_shift = [request for request in requests if not request.yields] or requests
        return max(self.orders.threads_for(request).of(info.threads) for request in on_shift)

    def reason(self, urgent_models: set[str]) -> str:
        """Why what yields is paused, for a person."""
        if self.orders.holds_yielding:
            return "resting, as the policy says"
        is_cooling = self.is_resting and not urgent_models
        return "resting, so that the machine cools" if is_cooling else "paused for interactive requests"

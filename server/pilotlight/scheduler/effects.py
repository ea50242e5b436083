"""What the scheduler decides, as the calls that carry it out."""

from typing import Protocol

from pilotlight.core import Request
from pilotlight.errors import Error
from pilotlight.scheduler.residency import Reason


class Effects(Protocol):
    """What the scheduler can do. None of these may call back into it before it returns."""

    def start(self, model: str) -> None:
        """Begin loading; `on_worker_ready` or `on_worker_gone` follows."""

    def stop(self, model: str, reason: Reason) -> None:
        """End its worker, loaded or loading; `on_worker_gone` follows once the process is no more."""

    def dispatch(self, request: Request) -> None:
        """Hand the request to its ready worker; `on_request_done` follows unless it is cancelled."""

    def cancel(self, request: Request) -> None:
        """Free a dispatched request's sequences; nothing follows."""

    def fail(self, request: Request, error: Error) -> None:
        """Tell the client; nothing follows."""

    def idle(self, model: str) -> None:
        """The model's last request has ended."""

    def trim(self, model: str) -> None:
        """Have its worker forget what it keeps for later requests."""

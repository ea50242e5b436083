"""Which requests are in workers, under the numbers that workers know them by. Pure bookkeeping."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilotlight.core import Request, RequestClass
from pilotlight.energy.accounts import Energy
from pilotlight.worker.protocol import Generate


@dataclass(slots=True)
class Dispatched:
    """A request in a worker, under the number the worker knows it by."""

    request: Request
    number: int
    unfinished: int
    """Answers that have not ended."""
    energy: Energy | None = None
    """What it took, once it is in no worker any more."""

    @property
    def sequences(self) -> Sequence[tuple[int, int]]:
        """Number and index of each of its answers."""
        return [(self.number, index) for index in range(self.request.n)]

    @property
    def message(self) -> Generate:
        """What its worker is sent."""
        request = self.request
        return Generate(
            id=self.number,
            prompt=request.prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            stop=request.stop,
            n=request.n,
            ignore_eos=request.ignore_eos,
            cache_prompt=request.cache_prompt,
            context=request.context,
            request_class=request.request_class,
        )


class Dispatches:
    """All requests that are in workers now."""

    def __init__(self) -> None:
        self._by_number: dict[int, Dispatched] = {}
        self._numbers: dict[str, int] = {}
        self._last_number = 0

    def add(self, request: Request) -> Dispatched:
        """It goes to its worker, under a number that was never used before."""
        self._last_number += 1
        dispatched = Dispatched(request, self._last_number, request.n)
        self._by_number[dispatched.number] = dispatched
        self._numbers[request.id] = dispatched.number
        return dispatched

    def get(self, number: int) -> Dispatched | None:
        """None once it was removed: what its worker says of it was on its way."""
        return self._by_number.get(number)

    def remove(self, request: Request) -> Dispatched | None:
        """It has ended, or was cancelled; None if it was in no worker."""
        number = self._numbers.pop(request.id, None)
        return None if number is None else self._by_number.pop(number)

    @property
    def requests(self) -> Sequence[Request]:
        return [one.request for one in self._by_number.values()]

    def of(self, model: str) -> Sequence[Request]:
        """Those in its worker."""
        return [request for request in self.requests if request.model == model]

    @property
    def classes(self) -> set[RequestClass]:
        """Those of all."""
        return {request.request_class for request in self.requests}

    @property
    def urgent_models(self) -> set[str]:
        """Those with interactive requests."""
        return {request.model for request in self.requests if not request.yields}

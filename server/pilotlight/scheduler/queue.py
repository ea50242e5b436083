"""The requests that wait for one model, and whose turn it is.

The more urgent class goes first. Within a class, the client that runs the fewest sequences of it goes first;
of those, the one that was served the longest ago, or never; of one client, the request that came first. So a
client with a thousand requests takes no more than its share. Pure.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import count

from pilotlight.core import RANKS, Request, RequestClass

MOST_CLIENTS = 256
"""Clients remembered as served, for each model; who was served longer ago counts as never served."""

Client = tuple[RequestClass, str]


class Queue:
    """Requests in the order they came, and the clients that were served lately."""

    def __init__(self) -> None:
        self._waiting: dict[str, Request] = {}
        self._served: dict[Client, None] = {}
        """The longest ago first."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        """In the order they came."""
        return iter(tuple(self._waiting.values()))

    @property
    def rank(self) -> int:
        """Of the most urgent one; there has to be one."""
        return min(request.rank for request in self._waiting.values())

    def put(self, request: Request) -> None:
        self._waiting[request.id] = request

    def remove(self, request_id: str) -> Request | None:
        """It waits no more; None if it did not."""
        return self._waiting.pop(request_id, None)

    def take(self, request: Request) -> None:
        """It is served."""
        del self._waiting[request.id]
        client = _client(request)
        self._served.pop(client, None)
        self._served[client] = None
        if len(self._served) > MOST_CLIENTS:
            del self._served[next(iter(self._served))]

    def clear(self) -> list[Request]:
        """All of them, in the order they came; nobody waits any more."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    def order(self, running: Iterable[Request]) -> Iterator[Request]:
        """Whose turn it is, and who comes next if nobody else comes and those who are `running` stay."""
        if len(self._waiting) <= 1:  # nearly always
            yield from self
            return
        active: Counter[Client] = Counter()
        for request in running:
            active[_client(request)] += request.n
        served = {client: number for number, client in enumerate(self._served, start=1)}
        numbers = count(len(served) + 1)
        lines: dict[Client, deque[Request]] = {}
        for request in self._waiting.values():
            lines.setdefault(_client(request), deque()).append(request)

        def turn(client: Client) -> tuple[int, int, int]:
            return RANKS[client[0]], active[client], served.get(client, 0)

        while lines:
            client = min(lines, key=turn)  # of equals, the one that came first
            first = lines[client].popleft()
            if not lines[client]:
                del lines[client]
            active[client] += first.n
            served[client] = next(numbers)
            yield first


def _client(request: Request) -> Client:
    return request.request_class, request.client

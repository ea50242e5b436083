"""One model's line: who waits for it, who runs in it, and who may begin.

Pure; what follows from it is the scheduler's business.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from pilotlight.core import ClassStatus, Request, RequestClass, WorkerState
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.queue import Queue
from pilotlight.scheduler.standing import Standing, Turnover


@dataclass(slots=True)
class Line:
    """One model's worker state, the requests waiting for it and those it runs."""

    state: WorkerState = WorkerState.STOPPED
    parallel: int = 0
    queue: Queue = field(default_factory=Queue)
    running: dict[str, Request] = field(default_factory=dict)
    turnover: Turnover = field(default_factory=Turnover)

    @property
    def is_loaded(self) -> bool:
        """Or soon will be: whoever waits, waits for its worker and not for room."""
        return self.state in (WorkerState.STARTING, WorkerState.READY)

    @property
    def active(self) -> int:
        """Sequences running."""
        return sum(request.n for request in self.running.values())

    @property
    def classes(self) -> dict[RequestClass, ClassStatus]:
        """What there is of each class."""
        active: Counter[RequestClass] = Counter()
        for request in self.running.values():
            active[request.request_class] += request.n
        queued = Counter(request.request_class for request in self.queue)
        return {one: ClassStatus(active[one], queued[one]) for one in RequestClass}

    @property
    def is_urgent(self) -> bool:
        """Interactive requests run or wait in it."""
        return any(not request.yields for request in (*self.running.values(), *self.queue))

    def next(self, still: Collection[RequestClass]) -> Request | None:
        """Whose turn it is, but for classes that stand `still`."""
        waiting = self.queue.order(self.running.values())
        return next((request for request in waiting if request.request_class not in still), None)

    def clear(self) -> None:
        """What it ran runs no more."""
        self.running.clear()
        self.turnover.clear()

    def has_room(self, request: Request, limits: Limits) -> bool:
        """What yields is in the way of its like only: for others the worker sets it aside.

        A request with more sequences than the worker has needs none of them: the worker refuses it by name.
        One with more than its limit goes in alone of its class.
        """
        in_its_way = [other.n for other in self.running.values() if request.yields or not other.yields]
        is_too_many = request.n > self.parallel
        has_row = not in_its_way or is_too_many or sum(in_its_way) + request.n <= self.parallel
        return has_row and self._is_within(limits, request)

    def _is_within(self, limits: Limits, request: Request) -> bool:
        limit = limits.side_by_side(request)
        like_it = sum(one.n for one in self.running.values() if one.request_class is request.request_class)
        return limit is None or not (like_it and request.n) or like_it + request.n <= limit

    def standing(
        self,
        request_id: str,
        now: float,
        held: Collection[RequestClass],
        still: Collection[RequestClass],
    ) -> Standing | None:
        """Where the request is among those who wait, if it does. Others pass classes that are `held`; for
        those that stand `still` nobody knows how long it takes."""
        is_loaded = self.state is WorkerState.READY
        ahead: list[Request] = []
        for request in self.queue.order(self.running.values()):
            if request.id == request_id:
                is_held = request.request_class in held
                position = 1 + sum(is_held or one.request_class not in held for one in ahead)
                ready_s = None if position > 1 else self.turnover.load_left_s(now)
                turn_s = None if request.request_class in still else self._turn_s(position)
                return Standing(position, turn_s if is_loaded else ready_s, is_loaded)
            ahead.append(request)
        return None

    def place_in_s(self, request_class: RequestClass, still: Collection[RequestClass]) -> float | None:
        """How long until one of the class that waits here begins, as far as that is known."""
        is_next = (first := self.next(still)) is not None and first.request_class is request_class
        return self._turn_s(1) if is_next and self.running else None

    def _turn_s(self, position: int) -> float | None:
        """How long until whoever is there begins, as things go on."""
        return self.turnover.wait_s(position, len(self.running))

"""How workers run what they have: what yields is held for the policy, heat or interactive requests, and so
many threads compute as the policy says, and other programs go before what nobody waits for."""

from collections.abc import Collection, Sequence

from pilotlight.core import Model, Request, RequestClass
from pilotlight.policy.limits import ALL_THREADS, EFFICIENT
from pilotlight.power.saver import Wish
from pilotlight.scheduler.gate import Orders
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import SetThreads

YIELDING = {one for one in RequestClass if one.yields}


class Holds:
    """What is wanted of all workers now."""

    def __init__(self) -> None:
        self.orders = Orders()
        """Of the policy."""
        self.is_resting = False
        """So that the machine cools."""

    def is_held(
        self,
        model: str,
        requests: Sequence[Request],
        urgent_models: set[str],
        awaited_by: Collection[RequestClass] = (),
    ) -> bool:
        """Its worker, which has these requests, is to compute nothing that yields: in a rest none does; if
        the policy holds all classes there are of it; and while another has interactive requests, that has the
        machine for itself.

        It is `awaited_by` those who wait for it to end what it runs: as long as it is held it is in their
        way. So their classes count for the policy as well, and where people wait it is not held at all.
        """
        if RequestClass.INTERACTIVE in awaited_by:
            return False
        classes = {request.request_class for request in requests if request.yields} | set(awaited_by)
        is_held = self.is_resting or (classes or YIELDING) <= self.orders.held.keys()
        return is_held or bool(urgent_models - {model})

    def threads(self, requests: Sequence[Request], model: Model, own: int, enough: int) -> SetThreads | None:
        """That are to compute what a worker runs, of its `own`; None if it runs nothing.

        The request that is limited least counts, of interactive ones if there are any: the others wait. 0 is
        `enough` if that is not known.
        """
        on_shift = [request for request in requests if not request.yields] or requests
        always = EFFICIENT if model.is_efficient else ALL_THREADS
        limits = [always | self.orders.threads_for(request) for request in on_shift]
        if not limits:
            return None
        return SetThreads(max(one.alone(own, enough) for one in limits), max(one.of(own) for one in limits))

    def priority(self, requests: Sequence[Request], clocks: Wish) -> Priority:
        """What a worker that runs these is to the system: one that only has what yields gives way."""
        only_yields = bool(requests) and all(request.yields for request in requests)
        if not (only_yields and self.orders.gives_way):
            return Priority.NORMAL
        return Priority.ECO if clocks is Wish.HOLD else Priority.LOW

    def clocks(self, classes: Collection[RequestClass]) -> Wish:
        """That are wanted while requests of these classes are in workers."""
        running = set(classes) - self.orders.held.keys()
        if not running:
            return Wish.REST
        return Wish.HOLD if self.orders.eco.issuperset(running) else Wish.RELEASE

    @property
    def wants_efficient(self) -> bool:
        """A rule in force lets no more threads compute than are enough."""
        return any(threads.is_efficient for threads in self.orders.threads.values())

    def reason(self, request_class: RequestClass, urgent_models: set[str]) -> str:
        """Why what yields is paused, for a person."""
        if because := self.orders.held.get(request_class):
            return f"resting: {because}"
        is_cooling = self.is_resting and not urgent_models
        return "resting, so that the machine cools" if is_cooling else "paused for interactive requests"

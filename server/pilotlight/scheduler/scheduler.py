"""Who runs now and who waits: a synchronous decision tree over events, acting only through `Effects`.

No clock, no I/O, no sensors; time and readings arrive as events. One task calls it (`scheduler.loop`). Every
request that comes in leaves exactly once: dispatched and done, cancelled, or failed. Which models may be
loaded together, and who goes for another, is `Residency`'s arithmetic.
"""

import math
from collections.abc import Collection, Iterable, Mapping

from pilotlight.core import Request, RequestClass, WorkerState
from pilotlight.errors import Busy, Error, ShuttingDown, Unloaded, retry_after
from pilotlight.registry.budget import Room
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.effects import Effects
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.line import Line
from pilotlight.scheduler.residency import Needs, Plan, Reason, Residency, Resident
from pilotlight.scheduler.standing import Standing

TRIM_S = 1.0
"""What it brings to forget shows by then: the next word on pressure says that it was not enough."""


class Scheduler:
    """Owns the lines; `max_queued` bounds the requests of a class that wait, over all models."""

    def __init__(self, effects: Effects, max_queued: int) -> None:
        self._effects = effects
        self._max_queued = max_queued
        self._lines: dict[str, Line] = {}
        self._residency = Residency()
        self._wanted: dict[str, None] = {}
        """Models that requests wait for and that are not loaded, in the order they came to be wanted; those
        that interactive requests wait for go before the others."""
        self._leaving: dict[str, bool] = {}
        """Models that are to end, what they run first; and whether somebody has asked for that."""
        self._plan = Plan()
        """How room is being made for the first of the wanted."""
        self._limits = Limits()
        self._held_classes: Collection[RequestClass] = ()
        """Of which the policy wants nothing computed."""
        self._paused: Collection[str] = ()
        """Models whose workers compute nothing that yields."""
        self._now = 0.0
        self._trimmed_at = math.inf
        """When models last forgot what they kept."""
        self._is_stopping = False

    # --- to look at ---

    def line(self, model: str) -> Line:
        return self._lines.setdefault(model, Line())

    def standing(self, model: str, request_id: str, now: float) -> Standing | None:
        """Where a request of the model is among those who wait; None if it does not."""
        return self.line(model).standing(request_id, now, self._held_classes, self._still(model))

    def resident(self, model: str) -> Resident | None:
        """What it is charged, and when it expires; None if it has no worker."""
        return self._residency.resident(model)

    @property
    def bytes_charged(self) -> int:
        """To all models."""
        return self._residency.num_bytes

    @property
    def next_due(self) -> float:
        """When `on_time` has something to do; `math.inf` if only other events will give it any."""
        if self._is_stopping:
            return math.inf
        return min(self._plan.look_again_at, self._residency.next_expiry)

    def awaited(self, model: str) -> set[RequestClass]:
        """Classes of those who wait for the model to end what it runs: for a place beside that, for the
        worker that comes after, or for the room. Whoever has asked for its end is interactive."""
        if self._leaving.get(model):
            return {RequestClass.INTERACTIVE}
        # Nobody overtakes: behind the first who wants the room, the others wait for it as well.
        models = [model, *self._wanted] if model in self._plan.hold else [model]
        waiting = {request.request_class for one in models for request in self.line(one).queue}
        # For a place, what yields is in the way of its like only.
        return waiting if self._is_held(model) else {one for one in waiting if one.yields}

    # --- readings ---

    def on_time(self, now: float) -> None:
        """It is `now`, in seconds of any clock that never goes back; the events that follow happen then."""
        self._now = now
        if self.next_due <= now:
            self._stop(self._residency.expired(now), Reason.EXPIRED)
            self._settle()

    def on_budget(self, room: Room) -> None:
        """What the workers may hold together from the next event on."""
        self._residency.room = room

    def on_needs(self, model: str, needs: Needs) -> None:
        """What it takes to load it, also for who waits already; unknown ones count as needing nothing."""
        self._residency.learn(model, needs)
        if model in self._wanted:
            self._settle()

    def on_measured(self, model: str, num_bytes: int) -> None:
        """What its worker holds."""
        self._residency.measured(model, num_bytes)
        self._settle()

    def on_pressure(self, level: Level) -> None:
        """The machine is short of memory: models forget what they only keep for later; the idle ones go if
        that was not enough, or when it is critical; then none is loaded, either."""
        is_worse = level > self._residency.level
        is_lasting = level is Level.WARN and not is_worse and self._now >= self._trimmed_at + TRIM_S
        self._residency.level = level
        if level is Level.CRITICAL or is_lasting:
            self._stop(self._residency.idle_ones(), Reason.PRESSURE)
        if is_worse:
            self._trim()
        self._settle()

    def on_limits(self, limits: Limits) -> None:
        """They count from now on; what runs is left alone."""
        self._limits = limits
        self._residency.limit(limits)
        for model, line in self._lines.items():
            self._pump(model, line)

    def on_held(self, classes: Collection[RequestClass]) -> None:
        """The policy wants nothing of these computed until this says otherwise: who waits goes on waiting, a
        model that nobody else waits for is not loaded, and none goes for it."""
        self._held_classes = classes
        for model, line in self._lines.items():
            self._pump(model, line)
        self._settle()

    def on_paused(self, models: Collection[str]) -> None:
        """Of what yields, the workers of these compute nothing until this says otherwise; who waits for a
        place in them is in line all the same."""
        self._paused = models

    # --- requests ---

    def on_request(self, request: Request) -> None:
        line = self.line(request.model)
        # 1. Stopping: nobody new.
        if self._is_stopping:
            self._effects.fail(request, ShuttingDown("the daemon is shutting down"))
            return
        # 2. It would have to wait, and enough are waiting.
        is_served = line.state is WorkerState.READY and not self._is_held(request.model)
        is_first = not line.queue or request.rank < line.queue.rank
        must_wait = not is_served or not is_first or not line.has_room(request, self._limits)
        num_queued = self._num_queued(request.request_class)
        if request.n and must_wait and num_queued >= self._max_queued:
            text = (
                f"{num_queued} {request.request_class} requests are waiting; "
                f"at most {self._max_queued} of a class may (server.queue)"
            )
            place_in_s = self._place_in_s(request.request_class)
            self._effects.fail(request, Busy(text, retry_after_s=retry_after(place_in_s)))
            return
        # 3. In line, in its turn; a model that is not loaded is wanted from now on.
        line.queue.put(request)
        if line.is_loaded:
            self._note_urgency(request.model, line)
            self._pump(request.model, line)
        else:
            self._wanted.setdefault(request.model)
            self._settle()

    def on_cancel(self, request_id: str) -> None:
        """The client left. Unknown ids are fine: it may have ended in the same moment."""
        for model, line in self._lines.items():
            if (running := line.running.pop(request_id, None)) is not None:
                line.turnover.drop(request_id)
                self._effects.cancel(running)
                self._after_end(model, line)
                return
            if line.queue.remove(request_id) is not None:
                self._after_leaving(model, line)
                return

    def on_refusals(self, refusals: Mapping[RequestClass, Error]) -> None:
        """Those of these classes who wait hear why they may not run, loads excepted; what runs is left
        alone."""
        for model, line in self._lines.items():
            for request in [one for one in line.queue if one.n and one.request_class in refusals]:
                line.queue.remove(request.id)
                self._effects.fail(request, refusals[request.request_class])
            if not line.queue:
                self._wanted.pop(model, None)
        # Not sooner: what is to be refused must not be begun in the place of what was.
        for model, line in self._lines.items():
            self._after_leaving(model, line)
        self._settle()

    def on_request_done(self, request_id: str, error: Error | None = None) -> None:
        """It ran to its end, or its worker would not have it because of `error`."""
        for model, line in self._lines.items():
            if (request := line.running.pop(request_id, None)) is not None:
                if error is None:
                    line.turnover.end(request_id, self._now, yields=request.yields)
                else:
                    line.turnover.drop(request_id)
                self._after_end(model, line)
                return

    # --- workers ---

    def on_worker_ready(self, model: str, parallel: int) -> None:
        line = self.line(model)
        if line.state is WorkerState.STOPPING:
            return  # it was told to end in the same moment
        assert line.state is WorkerState.STARTING, f"{model} is ready while {line.state}"
        line.state = WorkerState.READY
        line.parallel = parallel
        line.turnover.load_ends(self._now)
        self._residency.ready(model, self._now)
        self._residency.note_urgency(model, self._now, is_urgent=line.is_urgent)
        if not self._is_outranked(line):
            self._fill(line)
        self._settle()
        self._pump(model, line)

    def on_worker_gone(self, model: str, error: Error | None) -> None:
        """Its process is no more: it died or could not be loaded because of `error`, or was stopped.

        Those it ran are lost; those who wait get a fresh one, unless a load has just failed them.
        """
        line = self.line(model)
        lost = list(line.running.values())
        if error is not None and (line.state is WorkerState.STARTING or self._is_stopping):
            lost += line.queue.clear()
        line.clear()
        self._after_gone(model, line, WorkerState.FAILED if error else WorkerState.STOPPED)
        for request in lost:
            assert error is not None, f"{model}: stopped while it ran {request.id}"
            self._effects.fail(request, error)
        self._settle()

    def on_unload(self, model: str, *, is_asked: bool = True) -> None:
        """It is to go, and somebody waits for that or not: it ends what it runs, and then its worker. Who
        asked for a load only, hears so; who asked for more, waits on."""
        line = self.line(model)
        for request in [request for request in line.queue if not request.n]:
            line.queue.remove(request.id)
            self._effects.fail(request, Unloaded(f"{model} was unloaded before its load was done"))
        self._leave(model, line, is_asked=is_asked)

    def on_change(self, model: str) -> None:
        """It is to be loaded anew: it ends what it runs, and then its worker; who waits gets another one."""
        line = self.line(model)
        if line.state is WorkerState.STARTING:
            # Whoever waits is as well off with the next one, and may have asked for that.
            self._stop([model], Reason.ASKED)
            self._settle()
        else:
            self._leave(model, line, is_asked=False)

    def forget(self, model: str) -> bool:
        """Nobody will ask for it any more; False, and nothing is forgotten, while it is there or wanted."""
        line = self.line(model)
        if line.is_loaded or line.state is WorkerState.STOPPING or line.queue:
            return False
        del self._lines[model]
        self._residency.forget(model)
        return True

    # --- the end ---

    def on_shutdown(self) -> None:
        """Nobody new, and nobody who still waits; what runs may finish."""
        self._is_stopping = True
        for line in self._lines.values():
            for request in line.queue.clear():
                self._effects.fail(request, ShuttingDown("the daemon is shutting down"))
        self._wanted.clear()
        self._settle()

    def on_drain_limit(self) -> None:
        """Those who still run have had their time; their clients hear why they get no more."""
        text = "the daemon is shutting down, and the answer was not complete within server.drain_s"
        for line in self._lines.values():
            for request in line.running.values():
                self._effects.cancel(request)
                self._effects.fail(request, ShuttingDown(text))
            line.clear()
        self._settle()

    def check(self) -> None:
        """Invariants: nobody both waits and runs, nobody runs
        without a worker, nobody waits without cause."""
        self._residency.check()
        for model, line in self._lines.items():
            waiting = {request.id for request in line.queue}
            assert not waiting & set(line.running), f"{model}: a request waits and runs"
            assert not line.running or line.state is WorkerState.READY, f"{model}: runs while {line.state}"
            if line.state is WorkerState.READY and (first := line.next(self._held_classes)) is not None:
                has_cause = self._is_held(model) or not line.has_room(first, self._limits)
                assert has_cause, f"{model}: a request waits though there is room"
            assert not line.queue or line.is_loaded or model in self._wanted, f"{model}: stuck"

    # --- how it is done ---

    def _num_queued(self, request_class: RequestClass) -> int:
        waiting = (request for line in self._lines.values() for request in line.queue)
        return sum(request.n > 0 and request.request_class is request_class for request in waiting)

    def _place_in_s(self, request_class: RequestClass) -> float | None:
        """Seconds until one of the class that waits begins; None if that is not known."""
        places = [line.place_in_s(request_class, self._still(model)) for model, line in self._lines.items()]
        return min((place for place in places if place is not None), default=None)

    def _still(self, model: str) -> set[RequestClass]:
        """Classes of which nobody begins in its worker, however much time passes."""
        if self._is_held(model):
            return set(RequestClass)
        paused = {one for one in RequestClass if one.yields} if model in self._paused else set()
        return paused | set(self._held_classes)

    def _note_urgency(self, model: str, line: Line) -> None:
        """When a model becomes urgent, or is so no longer, others may have to wait for it, or need not."""
        if self._residency.note_urgency(model, self._now, is_urgent=line.is_urgent):
            self._settle()

    def _is_outranked(self, line: Line) -> bool:
        """It serves nobody interactive, and those who are wait for the room it takes."""
        return not line.is_urgent and any(not self._yields(self.line(model)) for model in self._wanted)

    def _wanted_in_turn(self) -> list[str]:
        """Without those that would be loaded only to rest."""
        wanted = [model for model in self._wanted if not self._rests(self.line(model))]
        return sorted(wanted, key=lambda model: self._yields(self.line(model)))

    def _rests(self, line: Line) -> bool:
        """The policy holds all who wait in it."""
        return line.next(self._held_classes) is None

    def _yields(self, line: Line) -> bool:
        """Nothing interactive waits in it."""
        return not line.queue or line.queue.rank > 0

    def _settle(self) -> None:
        """Start those who are wanted as far as they fit, in order; for the first that does not, make room."""
        self._stop([model for model in self._leaving if self._may_leave(self.line(model))], Reason.ASKED)
        if self._is_stopping:
            return
        held, self._plan = self._plan.hold, Plan()
        self._stop(self._residency.surplus(self._now), Reason.BUDGET)
        for model in self._wanted_in_turn():
            if not self._is_settled(model):
                break
        self._stop(self._plan.stop, Reason.ROOM)
        for model in held - self._plan.hold:
            self._pump(model, self.line(model))

    def _is_settled(self, model: str) -> bool:
        """The wanted model is started, or its requests refused; else `_plan` says how it will be."""
        line = self.line(model)
        if line.state is WorkerState.STOPPING:
            return False
        if (error := self._residency.refusal(model)) is not None:
            self._refuse(model, line, error)
        elif self._residency.fits(model):
            self._start(model, line)
        else:
            self._plan = self._residency.make_room(model, self._now, is_urgent=not self._yields(line))
            return False
        return True

    def _start(self, model: str, line: Line) -> None:
        del self._wanted[model]
        line.state = WorkerState.STARTING
        line.turnover.load_begins(self._now)
        self._residency.begin(model, self._now)
        self._effects.start(model)

    def _stop(self, models: Iterable[str], reason: Reason) -> None:
        """Their requests that wait are in line behind those of the models that are wanted already."""
        for model in models:
            line = self.line(model)
            line.state = WorkerState.STOPPING
            self._residency.ending(model)
            if line.queue:
                self._wanted.setdefault(model)
            self._effects.stop(model, reason)

    def _refuse(self, model: str, line: Line, error: Error) -> None:
        del self._wanted[model]
        for request in line.queue.clear():
            self._effects.fail(request, error)

    def _trim(self) -> None:
        self._trimmed_at = self._now
        for model, line in self._lines.items():
            if line.state is WorkerState.READY:
                self._effects.trim(model)

    def _leave(self, model: str, line: Line, *, is_asked: bool) -> None:
        if line.is_loaded:
            self._leaving[model] = is_asked or self._leaving.get(model, False)
            self._residency.unpin(model)
            self._settle()
        else:
            self._after_leaving(model, line)

    def _may_leave(self, line: Line) -> bool:
        """A load that requests wait for is not broken off, but one that only others who want it loaded do."""
        if line.state is WorkerState.STARTING:
            return not any(request.n for request in line.queue)
        return line.state is WorkerState.READY and not line.running

    def _after_end(self, model: str, line: Line) -> None:
        """One it ran is no more."""
        is_news = self._residency.note_urgency(model, self._now, is_urgent=line.is_urgent)
        self._pump(model, line)
        if not line.running:
            self._residency.idle(model, self._now)
            self._effects.idle(model)
        if is_news or not line.running:
            self._settle()

    def _after_leaving(self, model: str, line: Line) -> None:
        """One who waited is no more; it may have needed more room than others behind it."""
        self._pump(model, line)
        if model in self._wanted:
            if not line.queue:
                del self._wanted[model]
            self._settle()
        elif line.is_loaded:
            self._note_urgency(model, line)
            if model in self._leaving:
                self._settle()

    def _after_gone(self, model: str, line: Line, state: WorkerState) -> None:
        line.state = state
        self._residency.gone(model)
        self._leaving.pop(model, None)
        if line.queue:
            self._wanted.setdefault(model)

    def _is_held(self, model: str) -> bool:
        """It gets nothing new, so that it falls idle and can go."""
        return model in self._plan.hold or model in self._leaving

    def _pump(self, model: str, line: Line) -> None:
        if line.state is WorkerState.READY and not self._is_held(model):
            self._fill(line)

    def _fill(self, line: Line) -> None:
        while (request := line.next(self._held_classes)) is not None and line.has_room(request, self._limits):
            line.queue.take(request)
            line.running[request.id] = request
            if request.n:
                line.turnover.begin(request.id, self._now)
            self._residency.busy(request)
            self._effects.dispatch(request)

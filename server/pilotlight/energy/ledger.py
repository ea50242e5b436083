"""Whose joules they were: what meters count while requests are in workers, divided among them.

Between two looks at the meters a count is divided among the workers that compute, by the processor time each
of them took; and within a worker among its requests, by the time it says that it computed for each. What
nobody computed for (requests are paused, or have left) is nobody's. So what all have together is what was
counted.

Synchronous, in the event loop; time comes with every call. Meters are looked at when something begins, is
computed or ends, and with the readings in between; never else.
"""

from collections.abc import Callable, Mapping, Sequence

from pilotlight.core import Request
from pilotlight.energy.accounts import Account, Bench, Counted, Energy
from pilotlight.energy.meters import Gauge, Meter, Method, ProcessorTime, cpu_seconds
from pilotlight.energy.totals import Totals
from pilotlight.power.reading import Reading
from pilotlight.worker.protocol import Computed

PREFERRED = (
    (Method.RAPL, Method.NVML),
    (Method.RAPL,),
    (Method.BATTERY,),
    (Method.BOARD,),
    (Method.NVML,),
    (Method.MODEL,),
)
"""The first of these that counted all of a request are told: narrow and fine before wide and coarse, measured
before reckoned. Two scopes that share nothing add up."""

LEAST_S = 0.001
"""Processors count anew about every millisecond: sooner there is nothing to see."""

JOULES_PER_WH = 3600.0


class Ledger:
    """Owns the meters and all accounts. Costs nothing while no request is in a worker."""

    def __init__(
        self,
        meters: Sequence[Meter] = (),
        watts_per_core: float = 0.0,
        cpu_seconds: Callable[[int], float | None] = cpu_seconds,
    ) -> None:
        """`watts_per_core` is the user's own word, 0 for none. `cpu_seconds` gives the processor time that a
        process has used."""
        self.totals = Totals()
        self.metered: dict[Method, float] = {}
        """Counted while requests were in workers."""
        self.unattributed: dict[Method, float] = {}
        """Of that, what is nobody's."""
        self.full_wh: float | None = None
        """What the machine's batteries hold, as last read."""
        self._processor_time = ProcessorTime(watts_per_core)
        self.meters: Mapping[Method, Meter] = {
            meter.method: meter for meter in (*meters, self._processor_time)
        }
        self._cpu_seconds = cpu_seconds
        self._benches: dict[str, Bench] = {}
        self._last: dict[Method, float | None] = {}
        self._looked_at = 0.0

    # --- what happens ---

    def began(self, number: int, request: Request, pid: int, now: float) -> None:
        """The request is with the worker of its model, under this number."""
        self._look(now)
        bench = self._benches.setdefault(request.model, Bench(pid))
        bench.accounts[number] = Account(request, now, dict(self.metered))
        self._mark_cpu()

    def computed(self, model: str, parts: Sequence[Computed], now: float) -> None:
        """The model's worker computed these since it last said so."""
        bench = self._benches.get(model)
        seconds = sum(part.seconds for part in parts)
        if bench is None or seconds <= 0:
            return
        self._look(now)
        pool, missed = bench.pool, bench.missed
        bench.pool, bench.missed = {}, set()
        for part in parts:
            account = bench.accounts.get(part.id)
            if account is not None:
                account.missed |= missed
            for method, joules in pool.items():
                self._charge(account, method, part, joules * part.seconds / seconds)

    def paused(self, model: str, num_sequences: int, now: float) -> None:
        """So many of the model's sequences are paused from now on."""
        if (bench := self._benches.get(model)) is not None:
            self._look(now)
            bench.num_paused = num_sequences

    def ended(self, number: int, request: Request, now: float) -> Energy:
        """The request has left its worker, however it ended; what it took."""
        if now - self._looked_at >= LEAST_S:
            self._look(now)
        bench = self._benches[request.model]
        account = bench.accounts.pop(number)
        if not bench.accounts:
            self._leave(self._benches.pop(request.model).pool)
        if not self._benches:
            self._last.clear()
        return self._energy(account)

    def forget(self, model: str) -> None:
        """Nobody asks it any more: what it took is told without its name."""
        self.totals.forget(model)

    def on_reading(self, reading: Reading, now: float) -> None:
        """A look at the machine."""
        self.full_wh = reading.full_wh
        for meter in self.meters.values():
            if isinstance(meter, Gauge):
                meter.on_reading(reading, now)
        if self._benches:
            self._look(now)

    # --- dividing ---

    def _look(self, now: float) -> None:
        """Divide what was counted since the last look."""
        self._looked_at = now
        computing = [bench for bench in self._benches.values() if bench.is_computing]
        used = [self._used(bench) for bench in computing] if self._needs_cpu else [0.0] * len(computing)
        for method, meter in self.meters.items():
            before, counted = self._last.get(method), meter.joules(now)
            self._last[method] = counted
            weights = [one for one in zip(computing, used, strict=True) if meter.counts(one[0].pid)]
            if before is not None and counted is not None:
                self._divide(method, counted - before, weights)
            else:
                for bench, _ in weights:
                    bench.missed.add(method)

    def _divide(self, method: Method, joules: float, weights: Sequence[tuple[Bench, float]]) -> None:
        """Among these workers, by the processor time that each used."""
        self.metered[method] = self.metered.get(method, 0.0) + joules
        if not weights:
            self._leave({method: joules})
        together = sum(used for _, used in weights)
        for bench, used in weights:
            share = used / together if together else 1 / len(weights)
            bench.pool[method] = bench.pool.get(method, 0.0) + joules * share

    def _leave(self, pool: Mapping[Method, float]) -> None:
        """It is nobody's."""
        for method, joules in pool.items():
            self.unattributed[method] = self.unattributed.get(method, 0.0) + joules

    def _charge(self, account: Account | None, method: Method, part: Computed, joules: float) -> None:
        if account is None:  # it was cancelled before its worker told this
            self._leave({method: joules})
        elif part.seconds > 0:
            account.add(method, part, joules)
            self.totals.add(account.request, method, part, joules)

    def _used(self, bench: Bench) -> float:
        before, bench.cpu_s = bench.cpu_s, self._cpu_seconds(bench.pid)
        used = 0.0 if before is None or bench.cpu_s is None else bench.cpu_s - before
        self._processor_time.used(used)
        return used

    def _mark_cpu(self) -> None:
        """From now on it is looked at what each worker uses."""
        if self._needs_cpu:
            for bench in self._benches.values():
                bench.cpu_s = self._cpu_seconds(bench.pid)

    @property
    def _needs_cpu(self) -> bool:
        return len(self._benches) > 1 or self._processor_time.lacks is None

    # --- telling ---

    def _energy(self, account: Account) -> Energy:
        battery = self._told(account, Method.BATTERY)
        percent = None if battery is None else self.percent(battery.joules)
        for methods in PREFERRED:
            told = [counted for one in methods if (counted := self._told(account, one)) is not None]
            if len(told) == len(methods):
                metered = sum(self.metered[one] - account.metered_before.get(one, 0.0) for one in methods)
                joules = sum(one.joules for one in told)
                return Energy(
                    method="+".join(methods),
                    scope="+".join(self.meters[one].scope for one in methods),
                    prefill_joules=sum(one.prefill_joules for one in told),
                    decode_joules=sum(one.decode_joules for one in told),
                    share=joules / metered if metered > 0 else None,
                    battery_percent=percent,
                )
        return Energy(Method.NONE, reason=self._why_none(account))

    def _told(self, account: Account, method: Method) -> Counted | None:
        counted = account.found(method)
        has_news = counted is not None and self.meters[method].has_news(account.began_at)
        return counted if has_news else None

    def percent(self, joules: float) -> float | None:
        """Of what the batteries hold when full."""
        return 100 * joules / (self.full_wh * JOULES_PER_WH) if self.full_wh else None

    def _why_none(self, account: Account) -> str:
        if not account.counted and not account.missed:
            return "nothing was computed"
        silent = [method for method in Method if account.found(method) is not None]
        if silent:
            return f"its meter ({silent[0]}) measured nothing anew while this was computed"
        return "no meter counted all of it; GET /admin/energy says why"

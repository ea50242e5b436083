"""Does the daemon notice by its own answers that it is slowed down, and only then?

On a machine whose files tell of no sensor at all. `notice` slows the processors down by a quarter in the
middle of answers, and counts tokens until the daemon says so. `steady` has a noisy neighbour instead, and
counts how often the daemon is wrong.
"""

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from client import CallFailed, Client
from load import REAL_PLAN, Figures, Load
from models import SHAPES, ensure_model
from saturation import NUM_PROMPT_WORDS, ask
from servers import ServerFailed, Settings, end_on_sigterm, find_pilotlight, pilotlight, running
from table import Target, against
from throttle import Throttle, throttling

EVERY_S = 0.2
"""How often the daemon is asked; it looks once a second itself."""

COLD_TOKENS = 300
NUM_COLD = 2
BEFORE, AFTER = 110, 140
"""Tokens of an answer before the processors are slowed down, and after."""

PART = 0.79
"""Of the processors: threads that wait for each other are a quarter slower with that."""

NOTICED_WITHIN = 64
"""Tokens."""

TARGETS = {
    "tokens until noticed, most": Target(NOTICED_WITHIN),
    "noticed before": Target(0),
    "false alarms": Target(0),
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What the metrics said at a time of `time.perf_counter`; a level that is not known is 0."""

    at: float
    level: float
    duty: float
    slowdown: float
    load: float

    @property
    def is_hot(self) -> bool:
        """It takes itself for that."""
        return self.level > 0

    @property
    def is_alarm(self) -> bool:
        """So it does, or it holds background work, which goes on for minutes after."""
        return self.is_hot or self.duty < 1


@dataclass(slots=True)
class Watch:
    """Asks a daemon for its metrics again and again."""

    url: str
    sights: list[Sight] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled; raises `httpx.HTTPError`."""
        async with httpx.AsyncClient() as client:
            while True:
                metrics = (await client.get(f"{self.url}/metrics")).text
                values = [_value(metrics, name) for name in NAMES]
                self.sights.append(Sight(time.perf_counter(), *values))
                await asyncio.sleep(EVERY_S)

    def hot(self, since: float, until: float) -> float | None:
        """When it first took itself for that in this time."""
        return next((one.at for one in self.sights if since < one.at <= until and one.is_hot), None)


NAMES = (
    "pilotlight_thermal_level",
    "pilotlight_background_duty_ratio",
    "pilotlight_slowdown_ratio",
    "pilotlight_other_load_ratio",
)


def _value(metrics: str, name: str) -> float:
    """0 of what is not known."""
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


# --- slowed down for real ---


@dataclass(frozen=True, slots=True)
class Trial:
    """One answer in whose middle the processors were slowed down."""

    slowdown: float
    """As its tokens tell."""
    tokens: float
    """Until it was noticed; infinite if it never was."""
    is_early: bool
    """It was, before it was so."""


async def notice(load: Load, watch: Watch, args: argparse.Namespace) -> Figures:
    """Slow down in the middle of answers."""
    with throttling(load.pid, args.threads) as throttle:
        async with load.client() as client:
            rate = await _cold(client, load)
            trials = []
            for turn in range(args.trials):
                trials.append(await _trial(client, replace(load, round=turn), watch, throttle, rate))
                print(f"{trials[-1].slowdown:.0%} slower: {trials[-1].tokens:g} tokens", file=sys.stderr)
    tokens = [trial.tokens for trial in trials]
    return {
        "tokens per second": rate,
        "true slowdown": statistics.median(trial.slowdown for trial in trials),
        "tokens until noticed, median": statistics.median(tokens),
        "tokens until noticed, most": max(tokens),
        "noticed before": sum(trial.is_early for trial in trials),
    }


async def _cold(client: Client, load: Load) -> float:
    """Let it learn what it does when cold; tokens per second."""
    replies = [await client.chat(_prompt(load, "cold", n), COLD_TOKENS) for n in range(NUM_COLD)]
    return statistics.median(reply.tokens_per_s for reply in replies)


async def _trial(client: Client, load: Load, watch: Watch, throttle: Throttle, rate: float) -> Trial:
    began = time.perf_counter()
    asking = asyncio.create_task(client.chat(_prompt(load, "slow"), BEFORE + AFTER))
    await asyncio.sleep(BEFORE / rate)
    throttle.limit(PART)
    slowed = time.perf_counter()
    reply = await asking
    throttle.limit(1.0)
    times = [began + at for at in reply.times_s]
    noticed = watch.hot(slowed, times[-1])
    await client.chat(_prompt(load, "calm"), COLD_TOKENS)
    return Trial(
        slowdown=1 - _rate(times, slowed, times[-1]) / _rate(times, times[0], slowed),
        tokens=float("inf") if noticed is None else sum(slowed < at <= noticed for at in times),
        is_early=watch.hot(began, slowed) is not None,
    )


def _rate(times: Sequence[float], since: float, until: float) -> float:
    """Tokens per second."""
    inside = [at for at in times if since <= at <= until]
    return (len(inside) - 1) / (inside[-1] - inside[0])


# --- beside a neighbour ---


async def steady(load: Load, watch: Watch, args: argparse.Namespace) -> Figures:
    """Answer after answer, as fast as the neighbour lets it."""
    rates: list[float] = []
    async with load.client() as client:
        await _cold(client, load)
        began = time.perf_counter()
        with _neighbour():
            while time.perf_counter() < began + 60 * args.minutes:
                reply = await client.chat(_prompt(load, "steady", len(rates)), COLD_TOKENS)
                rates.append(reply.tokens_per_s)
    sights = [one for one in watch.sights if one.at > began]
    alarms = [one.is_alarm for one in sights]
    return {
        "minutes": (time.perf_counter() - began) / 60,
        "tokens per second": statistics.median(rates),
        "tokens per second, least": min(rates),
        "load of others": statistics.mean(one.load for one in sights),
        "slowdown, most": max(one.slowdown for one in sights),
        "false alarms": sum(b and not a for a, b in zip([False, *alarms], alarms, strict=False)),
    }


@contextmanager
def _neighbour() -> Iterator[None]:
    """Another program that is at work."""
    with subprocess.Popen([sys.executable, str(Path(__file__).with_name("neighbour.py"))]) as process:
        try:
            yield
        finally:
            process.kill()


def _prompt(load: Load, *place: object) -> list[dict[str, str]]:
    return ask(load.words(NUM_PROMPT_WORDS, *place))


MODES: dict[str, Callable[[Load, Watch, argparse.Namespace], Awaitable[Figures]]] = {
    "notice": notice,
    "steady": steady,
}


def _blind(folder: Path) -> Path:
    """The root of a machine without a sensor. What other programs use it can tell."""
    root = folder / "machine"
    root.mkdir()
    (root / "proc").symlink_to("/proc")
    return root


async def measure(args: argparse.Namespace) -> Figures:
    """Raises ServerFailed and CallFailed, in a group."""
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as folder:
        root = _blind(Path(folder))
        settings = Settings(args.model.resolve(), args.threads, args.context, 1)
        launch = pilotlight(find_pilotlight(args.pilotlight), Path(folder, "state"), settings)
        async with running(replace(launch, command=(*launch.command, "--power-root", str(root)))) as server:
            watch = Watch(server.url)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(watch.run())
                load = Load(server.url, server.model, server.pid, REAL_PLAN)
                figures = await MODES[args.mode](load, watch, args)
                watching.cancel()
    return figures


def main() -> None:
    end_on_sigterm()
    parser = argparse.ArgumentParser(description="Noticing one's own slowness without any sensor.")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: random weights")
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b", help="of the random weights")
    parser.add_argument("--trials", type=int, default=10, help="of `notice`")
    parser.add_argument("--minutes", type=float, default=30.0, help="of `steady`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=4096)
    args = parser.parse_args()
    args.model = args.model or ensure_model(args.shape)
    try:
        figures = asyncio.run(measure(args))
    except* (ServerFailed, CallFailed, httpx.HTTPError) as group:
        sys.exit(f"error: {group.exceptions[0]}")
    except* KeyboardInterrupt:
        sys.exit(130)
    print(f"{args.model.name}, {args.threads} threads\n")
    print(against(figures, TARGETS))


if __name__ == "__main__":
    main()

"""Processor time per token: all threads against as many as are enough, and work in bursts against rests after
each token.

Drives the runtime as a worker does, in this process and step by step: the daemon never rests after a single
token, so nothing else can show what that would cost.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import SHAPES, ensure_model
from pilotlight.core import Prompt, Sampling
from pilotlight.policy.pace import Bursts
from pilotlight.power.sampling import PERIOD_S
from pilotlight.runtimes import create
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.stepping import RowRuntime
from pilotlight.worker.protocol import Delta, Generate, Load
from table import number, render

CONTEXT = 2048

PROMPT = (1, 2, 3, 4, 5, 6, 7, 8)
"""Tokens, the same for all; which ones does not matter."""


@dataclass(frozen=True, slots=True)
class Run:
    """What some tokens took: processor time, of all threads, and the time from the first step to the last."""

    cpu_s: float
    total_s: float
    busy_s: float
    """In steps."""
    num_tokens: int

    @property
    def cpu_ms(self) -> float:
        """Per token."""
        return 1000 * self.cpu_s / self.num_tokens

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.total_s

    @property
    def duty(self) -> float:
        return self.busy_s / self.total_s


Rest = Callable[[float], float]
"""Given the seconds that a token took, how long to rest after it."""


class Bench:
    """One loaded model, and requests that run by themselves."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = create("llamacpp")
        assert isinstance(runtime, RowRuntime)
        self.runtime = runtime
        load = Load(str(path), "full", CONTEXT, 1, threads)
        self.threads = runtime.load(load, lambda _: None).threads
        self._num_requests = 0

    def run(self, threads: int, num_tokens: int, rest: Rest) -> Run:
        """One answer of so many tokens; the prompt does not count."""
        self.runtime.set_threads(threads, self.threads)
        self._begin(num_tokens)
        cpu_s, began_s, busy_s = time.process_time(), time.perf_counter(), 0.0
        while self.runtime.has_work:
            took_s = self._step()
            busy_s += took_s
            if self.runtime.has_work:
                time.sleep(rest(took_s))
        total_s = time.perf_counter() - began_s
        return Run(time.process_time() - cpu_s, total_s, busy_s, num_tokens - 1)

    def _begin(self, num_tokens: int) -> None:
        """Until its first token is there."""
        self._num_requests += 1
        asked = Generate(
            self._num_requests, Prompt(tokens=PROMPT), Sampling(temperature=0), num_tokens, (), 1, True, False
        )
        self.runtime.start(self.runtime.prepare(asked))
        while not any(isinstance(event, Delta) for event in self.runtime.step()):
            pass

    def _step(self) -> float:
        started_s = time.perf_counter()
        self.runtime.step()
        self.runtime.settle()
        return time.perf_counter() - started_s


def never(_: float) -> float:
    return 0.0


def after_each(duty: float) -> Rest:
    return lambda took_s: took_s * (1 / duty - 1)


def in_bursts(duty: float) -> Rest:
    """As the daemon's pacer does it: it looks once a second, and what runs meanwhile is a burst."""
    bursts, looked_s = Bursts(), time.perf_counter()
    tokens, ran_s = 0, 0.0

    def rest(took_s: float) -> float:
        nonlocal looked_s, tokens, ran_s
        tokens, ran_s = tokens + 1, ran_s + took_s
        if time.perf_counter() - looked_s < PERIOD_S:
            return 0.0
        bursts.ran(tokens, ran_s)
        tokens, ran_s = 0, 0.0
        looked_s = began_s = time.perf_counter()
        while bursts.rests(looked_s, duty):
            looked_s += PERIOD_S
        return looked_s - began_s

    return rest


def measure(bench: Bench, enough: int, args: argparse.Namespace) -> dict[str, list[Run]]:
    """All kinds by turns, round by round."""
    most, tokens = bench.threads, args.tokens
    bench.run(most, 16, never)
    runs: dict[str, list[Run]] = {}
    for _ in range(args.rounds):
        bursts = bench.run(most, tokens, in_bursts(args.duty))
        for kind, run in {
            f"{most} threads": bench.run(most, tokens, never),
            f"efficient: {enough}": bench.run(enough, tokens, never),
            "in bursts": bursts,
            # As much of the time as the bursts really had.
            "after each token": bench.run(most, tokens, after_each(bursts.duty)),
        }.items():
            runs.setdefault(kind, []).append(run)
    return runs


def table(runs: dict[str, list[Run]]) -> list[list[str]]:
    """A row per kind, with ratios to the first one by round."""
    head = ["", "CPU-ms/token", "tok/s", "duty", "CPU ratio", "by round", "tok/s ratio"]
    first = next(iter(runs.values()))
    rows = [head]
    for kind, some in runs.items():
        cpu = [run.cpu_ms / other.cpu_ms for run, other in zip(some, first, strict=True)]
        speed = [run.tokens_per_s / other.tokens_per_s for run, other in zip(some, first, strict=True)]
        rows.append(
            [
                kind,
                number(statistics.median(run.cpu_ms for run in some)),
                number(statistics.median(run.tokens_per_s for run in some)),
                f"{statistics.median(run.duty for run in some):.2f}",
                f"{statistics.median(cpu):.2f}",
                f"{min(cpu):.2f}-{max(cpu):.2f}",
                f"{statistics.median(speed):.2f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Processor time per token by threads and rests.")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of random weights")
    parser.add_argument("--shape", choices=SHAPES, default="smol-135m")
    parser.add_argument("--threads", type=int, default=0, help="the most; 0: the runtime's default")
    parser.add_argument("--tokens", type=int, default=600, help="of each answer")
    parser.add_argument("--duty", type=float, default=0.5, help="the part of the time that paced work runs")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    path = args.model or ensure_model(args.shape, vocab=None)
    try:
        bench = Bench(path, args.threads)
    except LoadError as error:
        sys.exit(f"error: {error}")
    began_s = time.perf_counter()
    enough = bench.runtime.enough_threads(lambda: False)
    took_s = time.perf_counter() - began_s
    said = f"{enough} of {bench.threads} threads are enough" if enough else "how many are enough: not known"
    print(f"{path.name}: {said}, found in {took_s:.1f} s; {args.tokens} tokens, {args.rounds} rounds\n")
    print(render(table(measure(bench, enough or bench.threads, args))))


if __name__ == "__main__":
    main()

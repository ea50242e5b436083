"""Holds what a model's worker really takes against what was estimated before it was loaded.

Real workers, real sizes: right after the load, twice, and with `--fill` once the whole context was in use.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from models import ensure_model
from pilotlight.core import Loading, Model, Prompt, Sampling, Size
from pilotlight.registry.cost import Estimate, estimate
from pilotlight.registry.costs import layout
from pilotlight.registry.gguf import read_model
from pilotlight.registry.shape import Shape
from pilotlight.worker.protocol import (
    Done,
    Generate,
    Load,
    Ready,
    Splitter,
    Step,
    ToDaemon,
    decode_to_daemon,
    encode,
)
from pilotlight.worker.size import size_of

MODELS = (
    ("micro", "F16"),
    ("micro", "Q8_0"),
    ("tiny", "Q4_0"),
    ("smol-135m", "Q8_0"),
    ("smol-135m", "F16"),
    ("llama-1b", "Q4_0"),
    ("llama-1b", "Q8_0"),
    ("llama-3b", "Q4_0"),
)
MODE = "full"
"""Of the crash ladder."""

MMAP = (False, True)
"""The file read, or mapped: then what is repacked of it is there twice."""

CELLS = ("f16", "q8_0")
"""Types of keys and values; the second needs flash attention."""

CONTEXTS = (1024, 4096)

THREADS = 1
"""They share what a worker holds, and several wait for each other where other programs run."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to load one model."""

    path: Path
    mmap: bool
    cells: str
    context: int

    @property
    def title(self) -> str:
        return f"{self.path.stem:18} {'mapped' if self.mmap else 'read':6} {self.cells:5} {self.context:6}"

    @property
    def model(self) -> Model:
        loading = Loading(kv_cache_type=self.cells, mmap=self.mmap)
        return Model("bench", self.path, context=self.context, loading=loading)

    def estimated(self) -> Estimate:
        """Before anything is loaded."""
        shape = Shape.of(read_model(self.path))
        return estimate(shape, layout(self.model, shape, MODE))


class Child:
    """One worker process, spoken to without a daemon."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._splitter = Splitter()

    def size(self) -> Size:
        found = size_of(self._process.pid)
        assert found is not None, "the worker is alive"
        return found

    def send(self, message: Load | Generate) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(encode(message))
        self._process.stdin.flush()

    def messages(self) -> Iterator[ToDaemon]:
        assert self._process.stdout is not None
        while data := self._process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            yield from map(decode_to_daemon, self._splitter.feed(data))
        raise SystemExit("the worker has ended")

    def wait_ready(self) -> None:
        while not any(isinstance(message, Ready) for message in self.messages()):
            pass

    def read(self, number: int, num_tokens: int) -> None:
        """Let it compute a prompt of random tokens, and one token after it."""
        tokens = tuple(random.Random(number).choices(range(1000, 30_000), k=num_tokens))
        wish = Generate(number, Prompt(tokens=tokens), Sampling(), 1, (), 1, True, True)
        self.send(wish)
        for message in self.messages():
            if isinstance(message, Step) and any(isinstance(event, Done) for event in message.events):
                return


@contextmanager
def loaded(case: Case) -> Iterator[Child]:
    """A worker that is ready; ended afterwards."""
    command = [sys.executable, "-P", "-m", "pilotlight.worker.child", "llamacpp"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            child = Child(process)
            child.send(Load(str(case.path), MODE, case.context, 0, THREADS, loading=case.model.loading))
            child.wait_ready()
            yield child
        finally:
            process.kill()
            process.wait()


def measure(case: Case, *, fill: bool) -> dict[str, float]:
    """Bytes, and the ratios of estimate to measurement."""
    before = case.estimated()
    with loaded(case) as child:
        first = child.size()
        if fill:
            # One context is parked when the next prompt comes, which needs all cells.
            child.read(1, case.context - 8)
            child.read(2, case.context - 8)
        full = child.size()
    with loaded(case) as child:
        second = child.size()
    figures = {
        "estimated": before.at_load.total,
        "measured": first.total,
        "estimate": before.at_load.total / first.total,
        "private": before.at_load.private / first.private,
        "shared": before.at_load.shared / first.shared,
        "second load": first.total / second.total,
    }
    return figures | ({"at most": before.at_most.total / full.total} if fill else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", help="of `models.py`; default: all five")
    parser.add_argument(
        "--vocab", type=Path, help="vocab-only GGUF for the models; default: fetched with pip"
    )
    parser.add_argument("--models", type=Path, help="folder of files SHAPE-KIND.gguf; default: bench/work")
    parser.add_argument(
        "--fill", action="store_true", help="also fill the larger context of models that are read"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    rows = []
    print(f"{'model':18} {'file':6} {'cells':5} {'context':>6}  estimated  measured     MB; ratios")
    for shape, kind in [model for model in MODELS if not args.shapes or model[0] in args.shapes]:
        out = args.models and args.models / f"{shape}-{kind}.gguf"
        path = ensure_model(shape, kind, args.vocab, out)
        for mmap, cells, context in product(MMAP, CELLS, CONTEXTS):
            case = Case(path, mmap, cells, context)
            fill = args.fill and not mmap and context == CONTEXTS[-1]
            figures = measure(case, fill=fill)
            rows.append({**{key: str(value) for key, value in asdict(case).items()}, **figures})
            sizes = f"{figures['estimated'] / 1e6:9.1f} {figures['measured'] / 1e6:9.1f}"
            ratios = "  ".join(f"{name} {figures[name]:.3f}" for name in list(figures)[2:])
            print(f"{case.title}  {sizes}  {ratios}", flush=True)
    worst = max(abs(row["estimate"] - 1) for row in rows)
    again = max(abs(row["second load"] - 1) for row in rows)
    print(f"before the first load at most {worst:.1%} off (target 5 %), after it {again:.1%} (target 2 %)")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

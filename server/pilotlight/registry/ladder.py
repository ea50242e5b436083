"""The crash ladder: modes in which a model can be loaded, from fast to safe, and which ones crash here.

Some machines promise what they do not have (virtual machines that advertise AMX), and native code dies of it.
Such a crash costs one load: the next mode is tried, and what worked is remembered for this machine and this
build of the library. A new build starts at the top again.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import structlog
from msgspec import Struct, ValidationError, convert, to_builtins

from pilotlight.errors import Error
from pilotlight.registry import private_file
from pilotlight.registry.description import written

MODES = {
    "llamacpp": ("full", "no-extra-buffers", "plain"),
    "onnx": ("full",),
    "mlx": ("full",),
    "echo": ("full", "no-extra-buffers", "plain"),
}
"""Per runtime, the first is the fastest."""

COSTS = {
    "no-extra-buffers": "about 1.4 times slower, because weights are not repacked for this CPU",
    "plain": "slower still, without flash attention either",
}

PACKAGES = {"llamacpp": "llama-cpp-python", "onnx": "onnxruntime", "mlx": "mlx"}

VERSION = 1

log = structlog.get_logger()


class Outcome(Struct, frozen=True):
    """On this machine, with this build, the runtime needs this mode."""

    machine: str
    runtime: str
    build: str
    mode: str
    reason: str
    since: float


class Ladder:
    """Remembers outcomes in `ladder.json` of the state directory. A file it cannot read counts as empty."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = state_dir / "ladder.json"
        self._clock = clock

    def outcomes(self) -> list[Outcome]:
        """Everything remembered, other machines' and builds' too."""
        try:
            content = json.loads(self._path.read_text())
            return convert(content["outcomes"], list[Outcome])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, RecursionError, ValidationError) as exc:
            log.warning(
                "crash ladder file is unreadable and starts over", path=str(self._path), error=str(exc)
            )
            return []

    def outcome(self, runtime: str) -> Outcome | None:
        """What is remembered for this runtime on this machine, with the installed build."""
        key = (machine(), runtime, build(runtime))
        known = [o for o in self.outcomes() if o.mode in MODES[runtime]]
        return next((o for o in reversed(known) if (o.machine, o.runtime, o.build) == key), None)

    def modes(self, runtime: str) -> tuple[str, ...]:
        """The modes to try, fastest first, without those known to crash here."""
        modes = MODES[runtime]
        known = self.outcome(runtime)
        return modes[modes.index(known.mode) :] if known else modes

    def remember(self, runtime: str, mode: str, reason: str) -> None:
        """`mode` is the first that worked; faster ones crashed for
        `reason`. Where it cannot be written, it is lost."""
        new = Outcome(machine(), runtime, build(runtime), mode, reason, self._clock())
        others = [o for o in self.outcomes() if (o.machine, o.runtime) != (new.machine, runtime)]
        content = {"version": VERSION, "outcomes": [to_builtins(o) for o in [*others, new]]}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private_file.write(self._path, json.dumps(content, indent=2).encode())
        except OSError as exc:
            log.warning("crash ladder file cannot be written", path=str(self._path), error=str(exc))

    def forget(self) -> None:
        """Start at the top again, for every runtime. Raises `Error` where it cannot."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise Error(f"{written(self._path)} cannot be deleted: {exc.strerror or exc}") from exc


def machine() -> str:
    """This machine's kind: two with the same string run the same native code alike."""
    facts = _cpuinfo()
    name, flags = (
        facts.get("model name") or platform.processor() or platform.machine(),
        facts.get("flags", ""),
    )
    digest = hashlib.sha256(f"{flags} {platform.release()}".encode()).hexdigest()[:8]
    return f"{platform.machine()} {name} {digest}"


def features() -> frozenset[str]:
    """What the processor can do, in the words of Linux' cpuinfo."""
    facts = _cpuinfo()
    told = facts.get("flags") or facts.get("Features")
    # Apple's processors have had it since the first that a Mac came with.
    return frozenset(told.split() if told else ["asimddp"] if platform.machine() == "arm64" else ())


def _cpuinfo() -> dict[str, str]:
    """Of the first processor that Linux lists, empty elsewhere."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    except OSError:
        return {}
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def build(runtime: str) -> str:
    """Version of the runtime's library, and a digest of its files'
    hashes: a rebuild of the same version differs."""
    package = PACKAGES.get(runtime)
    if package is None:
        return ""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return "not installed"
    record = found.read_text("RECORD") or ""
    return f"{found.version} {hashlib.sha256(record.encode()).hexdigest()[:8]}"

"""What `doctor` finds on this machine: processor, runtimes.

Imports no native runtime: that is tried in a process of its own, which may die of it.
"""

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.runtimes.probe import MODULES
from pilotlight.signals import death_of

X86 = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
)
AMX = ("amx_tile", "amx_int8", "amx_bf16")
ARM = ("asimd", "asimddp", "i8mm", "sve", "bf16")
FEATURES = (*X86, *AMX, *ARM)
"""What matrix multiplication profits from, as /proc/cpuinfo spells it on x86 and ARM."""

PACKAGES = (
    ("llamacpp", "llama-cpp-python", "llama-cpp-python"),
    ("onnx", "onnxruntime", "pilotlight[onnx]"),
    ("mlx", "mlx-lm", "pilotlight[mlx]"),
)
"""Each runtime's distribution, and what to install for it."""

DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "mlx_lm": "mlx-lm"}
"""Of modules that are named otherwise."""

PROBE_S = 60.0
"""For importing a library: a cold disk and a slow machine, not a hang."""


class Cpu(Struct, frozen=True):
    """`features` is None where the system does not tell."""

    name: str
    features: tuple[str, ...] | None
    cores: int | None
    threads: int | None

    @property
    def has_amx(self) -> bool:
        return "amx_tile" in (self.features or ())


class Library(Struct, frozen=True):
    """A runtime's native library; `version` is None when it is not installed.

    `needs` are the other distributions it cannot do without, each with its version or None. `providers` can
    compute its models, where that is a choice. `fault` says why importing it fails.
    """

    runtime: str
    package: str
    install: str
    version: str | None
    needs: tuple[tuple[str, str | None], ...] = ()
    providers: tuple[str, ...] = ()
    fault: str | None = None

    @property
    def distributions(self) -> tuple[tuple[str, str | None], ...]:
        """All of them, the library's own first."""
        return ((self.package, self.version), *self.needs)

    @property
    def is_installed(self) -> bool:
        return all(version is not None for _, version in self.distributions)


def cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The processor, its features from Linux' cpuinfo where there is one."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))
    }
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags") or facts.get("Features")
    features = None if flags is None else tuple(feature for feature in FEATURES if feature in flags.split())
    return Cpu(name, features, psutil.cpu_count(logical=False), psutil.cpu_count())


def libraries() -> tuple[Library, ...]:
    """What each runtime needs; those that are installed are imported, side by side."""
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(lambda row: _library(*row), PACKAGES))


def _library(runtime: str, package: str, install: str) -> Library:
    names = [_distribution(module) for module in MODULES.get(runtime, ())] or [package]
    (package, version), *needs = [(name, _version(name)) for name in names]
    found = Library(runtime, package, install, version, tuple(needs))
    return replace(found, **_probe(runtime)) if found.is_installed and runtime in MODULES else found


def _distribution(module: str) -> str:
    """The one that brought the module, or would: builds for a GPU have names of their own."""
    usual = DISTRIBUTIONS.get(module, module)
    brought = metadata.packages_distributions().get(module, ())
    return usual if _version(usual) or not brought else brought[0]


def _probe(runtime: str) -> dict[str, Any]:
    """`providers` and `fault`, as a process that imports the library tells."""
    command = [sys.executable, "-P", "-m", "pilotlight.runtimes.probe", runtime]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return {"fault": f"not done after {PROBE_S:.0f} s"}
    if done.returncode == 0:
        return {"providers": tuple(done.stdout.split())}
    if (death := death_of(done.returncode)) is not None:
        return {"fault": f"died of {death.cause}"}
    *_, words = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    return {"fault": words}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

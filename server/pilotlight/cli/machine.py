"""What `doctor` finds on this machine: processor, memory, runtimes.

Imports no native runtime: a broken one must not take the doctor down with it.
"""

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

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
    ("onnx", "onnxruntime-genai", "pilotlight[onnx]"),
    ("mlx", "mlx-lm", "pilotlight[mlx]"),
)
"""Each runtime's distribution, and what to install for it."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """`features` is None where the system does not tell."""

    name: str
    features: tuple[str, ...] | None
    cores: int | None
    threads: int | None

    @property
    def has_amx(self) -> bool:
        return "amx_tile" in (self.features or ())


@dataclass(frozen=True, slots=True)
class Memory:
    bytes_total: int
    bytes_available: int


@dataclass(frozen=True, slots=True)
class Library:
    """A runtime's native library; `version` is None when it is not installed."""

    runtime: str
    package: str
    install: str
    version: str | None


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


def memory() -> Memory:
    found = psutil.virtual_memory()
    return Memory(found.total, found.available)


def libraries() -> tuple[Library, ...]:
    return tuple(
        Library(runtime, package, install, _version(package)) for runtime, package, install in PACKAGES
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

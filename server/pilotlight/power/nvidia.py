"""Linux: NVIDIA's GPUs while a model of ours is on them: heat, watts, and whether heat slows them down.

Whoever opens NVML wakes a GPU that sleeps, and keeps one awake that is. So first of all files tell whether
one of our workers has a GPU open, and which ones are awake; without either nobody is asked. Nothing stays
open between looks.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pilotlight.power.files import Files, Remembered
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence, ThermalLevel

DRIVER = "sys/bus/pci/drivers/nvidia"

AWAKE = ("active", "unsupported")
"""Of `power/runtime_status`; the second is a machine that never suspends devices
(Documentation/ABI/testing/sysfs-devices-power)."""

LONGEST_GAP_S = 10.0

MOST_WATTS = 2000.0
"""Of one GPU."""

MOST_CELSIUS = 150.0

SOURCE = "nvml"

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_DEVICE = re.compile(r"/dev/nvidia\d+")


class UnreadError(Exception):
    """The GPUs cannot be asked, for this reason."""


class Sample(Struct, frozen=True):
    """What one GPU says now; None is what it does not tell."""

    celsius: float | None
    watts: float | None
    millijoules: int | None
    """Since its driver was loaded."""
    is_throttled: bool | None
    """Slowed down because of heat; not because of a limit of power, at which GPUs work."""


class Nvml(Protocol):
    """NVIDIA's library; `nvidia_calls.Library` is the real one."""

    def look(self, addresses: Sequence[str]) -> Sequence[Sample]:
        """Of the GPUs with these PCI addresses, in their order. Blocks. Raises `UnreadError`."""


class Nvidia:
    """Remembers each GPU's energy at the last look. Our own processes are below a root of their own, as for
    `load.Load`."""

    def __init__(self, files: Files, nvml: Nvml, own_root: Path = Path("/")) -> None:
        self._files = files
        self._own_files = Files(own_root)
        self._nvml = nvml
        self._gpus = Remembered(self._find)
        self._before: dict[str, tuple[float, int]] = {}

    def read(self, now: float, pids: Collection[int]) -> Iterator[Finding]:
        """`pids` are our own processes."""
        gpus = self._gpus.at(now)
        if not gpus:
            yield from _missing("there is no GPU with NVIDIA's driver")
            return
        users = tuple(pid for pid in pids if pid != os.getpid() and self._has_open(pid))
        awake = [gpu for gpu in gpus if self._is_awake(gpu)]
        if not users or not awake:
            self._before.clear()
            yield from _missing("no model is on the GPU: asking it would keep it awake")
            return
        try:
            samples = self._nvml.look(awake)
        except UnreadError as exc:
            yield from _missing(str(exc))
            return
        yield Known("gpu_pids", users, "proc")
        yield from _heat(samples)
        yield self._watts(dict(zip(awake, samples, strict=True)), now)

    def _find(self) -> list[str]:
        return [name for name in self._files.names(DRIVER) if _ADDRESS.fullmatch(name)]

    def _is_awake(self, gpu: str) -> bool:
        return self._files.text(f"{DRIVER}/{gpu}/power/runtime_status") in AWAKE

    def _has_open(self, pid: int) -> bool:
        folder = f"proc/{pid}/fd"
        targets = (self._own_files.link(f"{folder}/{name}") for name in self._own_files.names(folder))
        return any(target is not None and _DEVICE.fullmatch(target) for target in targets)

    def _watts(self, samples: dict[str, Sample], now: float) -> Finding:
        """Of all together: by the energy since the last look, where that is counted, else what each says."""
        watts = [self._mean(gpu, sample, now) or sample.watts for gpu, sample in samples.items()]
        self._before = {
            gpu: (now, sample.millijoules)
            for gpu, sample in samples.items()
            if sample.millijoules is not None
        }
        known = [one for one in watts if one is not None and 0 <= one <= MOST_WATTS]
        if len(known) < len(watts):
            return Missing("gpu_watts", "the GPU does not tell it")
        return Known(
            "gpu_watts", sum(known), SOURCE, Confidence.DERIVED if len(known) > 1 else Confidence.MEASURED
        )

    def _mean(self, gpu: str, sample: Sample, now: float) -> float | None:
        before = self._before.get(gpu)
        if before is None or sample.millijoules is None or not 0 < now - before[0] <= LONGEST_GAP_S:
            return None
        return (sample.millijoules - before[1]) / 1000 / (now - before[0])


def _missing(reason: str) -> Iterator[Finding]:
    for field in ("gpu_celsius", "gpu_watts"):
        yield Missing(field, reason)


def _heat(samples: Sequence[Sample]) -> Iterator[Finding]:
    celsius = [one.celsius for one in samples if one.celsius is not None and 0 < one.celsius <= MOST_CELSIUS]
    if celsius:
        yield Known("gpu_celsius", max(celsius), SOURCE)
    else:
        yield Missing("gpu_celsius", "the GPU does not tell it")
    throttled = [one.is_throttled for one in samples if one.is_throttled is not None]
    if throttled:
        yield Known("is_throttled", any(throttled), SOURCE)
    if any(throttled):
        # However cool the processors are.
        yield Known("thermal", ThermalLevel.SERIOUS, SOURCE, Confidence.DERIVED)

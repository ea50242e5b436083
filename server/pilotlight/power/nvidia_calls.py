"""The calls of NVML that `nvidia` asks, by nvidia-ml-py, if it is installed.

Written after its documentation, and never run on a real GPU so far.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pilotlight.power.nvidia import Sample, UnreadError

SENSOR = 0
"""The GPU itself."""

THERMAL = 0x20 | 0x40
"""Of the reasons for slow clocks (nvml.h): software and hardware thermal slowdown."""


class Library:
    """`nvidia.Nvml`, for real."""

    def look(self, addresses: Sequence[str]) -> Sequence[Sample]:
        try:
            import pynvml  # a third of a megabyte of source, and only for those who have a GPU
        except ImportError as exc:
            raise UnreadError("it needs pip install 'pilotlight[nvidia]'") from exc
        try:
            # Attaches those that are asked for, and no other ones.
            pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_ATTACH)
            try:
                return [_sample(pynvml, address) for address in addresses]
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as exc:
            raise UnreadError(f"NVML says: {exc}") from exc


def _sample(nvml: Any, address: str) -> Sample:
    gpu = nvml.nvmlDeviceGetHandleByPciBusId(address)

    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        """None where this GPU, or its driver, does not know the call."""
        try:
            return call(gpu, *arguments)
        except nvml.NVMLError:
            return None

    celsius = ask(nvml.nvmlDeviceGetTemperatureV, SENSOR)
    if celsius is None:  # older drivers
        celsius = ask(nvml.nvmlDeviceGetTemperature, SENSOR)
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    if reasons is None:  # older drivers
        reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    milliwatts = ask(nvml.nvmlDeviceGetPowerUsage)
    return Sample(
        celsius=celsius,
        watts=None if milliwatts is None else milliwatts / 1000,
        millijoules=ask(nvml.nvmlDeviceGetTotalEnergyConsumption),
        is_throttled=None if reasons is None else bool(reasons & THERMAL),
    )

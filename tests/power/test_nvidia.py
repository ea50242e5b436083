"""NVIDIA's GPUs: asked only while a model of ours is on one, and what their answers mean.

The answers are written after NVML's documentation; none of this ever ran on a GPU.
"""

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynvml
import pytest
from trees import write

from pilotlight.power.files import Files
from pilotlight.power.finding import Known, assemble
from pilotlight.power.nvidia import AWAKE, DRIVER, Nvidia, Sample, UnreadError
from pilotlight.power.nvidia_calls import Library
from pilotlight.power.reading import Reading, ThermalLevel

GPU, OTHER = "0000:01:00.0", "0000:02:00.0"

WORKER = 4242


class Recorded:
    """NVML that answers what a test says, and writes down whom it was asked for."""

    def __init__(self) -> None:
        self.sample = Sample(celsius=64, watts=95.5, millijoules=None, is_throttled=False)
        self.refusal: str | None = None
        self.asked: list[list[str]] = []

    def look(self, addresses: Sequence[str]) -> Sequence[Sample]:
        self.asked.append(list(addresses))
        if self.refusal is not None:
            raise UnreadError(self.refusal)
        return [self.sample for _ in addresses]


def open_device(root: Path, device: str, pid: int) -> None:
    """The process of this number opens it."""
    folder = root / f"proc/{pid}/fd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(len(os.listdir(folder)))).symlink_to(device)


class Laptop:
    """A machine with GPUs, as files, and the container that we are in."""

    def __init__(self, root: Path, **status: str) -> None:
        self.nvml = Recorded()
        self.container = root / "container"
        self.nvidia = Nvidia(Files(root), self.nvml, self.container)
        write(root, {f"{DRIVER}/bind": ""})
        write(self.container, {f"proc/{WORKER}/status": ""})
        for gpu in (GPU, OTHER)[: len(status)]:
            write(root, {f"{DRIVER}/{gpu}/power/runtime_status": status[f"gpu{(GPU, OTHER).index(gpu)}"]})

    def open(self, device: str, pid: int = WORKER) -> None:
        """A process of ours opens it."""
        open_device(self.container, device, pid)

    def look(self, now: float = 0.0) -> Reading:
        return assemble(self.nvidia.read(now, (os.getpid(), WORKER)), now)


def test_a_gpu_that_a_model_is_on_is_asked(tmp_path: Path) -> None:
    """It is awake anyway."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0")
    reading = laptop.look()
    assert (reading.gpu_celsius, reading.gpu_watts, reading.is_throttled) == (64, 95.5, False)
    assert reading.gpu_pids == (WORKER,)
    assert laptop.nvml.asked == [[GPU]]


@pytest.mark.parametrize("device", ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/dri/renderD128", "socket:[7]"])
def test_a_gpu_that_no_model_is_on_is_left_alone(tmp_path: Path, device: str) -> None:
    """Opening NVML would keep it from falling asleep. Its control device is open without it, too."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open(device)
    reading = laptop.look()
    assert (laptop.nvml.asked, reading.gpu_watts) == ([], None)
    assert reading.unknown["gpu_watts"] == "no model is on the GPU: asking it would keep it awake"


def test_that_we_have_it_open_ourselves_is_no_reason(tmp_path: Path) -> None:
    """Only workers count."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0", os.getpid())
    laptop.look()
    assert laptop.nvml.asked == []


def test_a_gpu_that_only_the_machine_around_us_uses_is_left_alone(tmp_path: Path) -> None:
    """There our worker's number is another process."""
    laptop = Laptop(tmp_path, gpu0="active")
    open_device(tmp_path, "/dev/nvidia0", WORKER)
    laptop.look()
    assert laptop.nvml.asked == []


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming", "error", ""])
def test_a_gpu_that_sleeps_is_never_woken(tmp_path: Path, status: str) -> None:
    """Whatever else looks as if it was in use; another one that is awake is asked."""
    laptop = Laptop(tmp_path, gpu0=status, gpu1="active")
    laptop.open("/dev/nvidia1")
    laptop.look()
    assert laptop.nvml.asked == [[OTHER]]
    alone = Laptop(tmp_path / "alone", gpu0=status)
    alone.open("/dev/nvidia0")
    alone.look()
    assert alone.nvml.asked == []
    assert status not in AWAKE


def test_a_machine_without_one_is_asked_nothing(tmp_path: Path) -> None:
    """The reason is another."""
    laptop = Laptop(tmp_path)
    laptop.open("/dev/nvidia0")
    assert laptop.look().unknown["gpu_watts"] == "there is no GPU with NVIDIA's driver"
    assert laptop.nvml.asked == []


def test_watts_are_the_mean_since_the_last_look(tmp_path: Path) -> None:
    """By the counter, where there is one; after a pause what the GPU says itself."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0")
    watts = []
    for now, millijoules in ((0, 9_000_000), (2, 9_240_000), (60, 9_300_000)):
        laptop.nvml.sample = Sample(64, 95.5, millijoules, None)
        watts.append(laptop.look(now).gpu_watts)
    assert watts == [95.5, 120, 95.5]


def test_heat_is_throttling_and_a_power_limit_is_not(tmp_path: Path) -> None:
    """A GPU at its power limit works as it should."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0")
    laptop.nvml.sample = Sample(91, 60, None, is_throttled=True)
    reading = laptop.look()
    assert (reading.is_throttled, reading.thermal) == (True, ThermalLevel.SERIOUS)
    found = [*laptop.nvidia.read(1.0, (WORKER,)), Known("headroom", 0.2, "cool processors")]
    assert assemble(found, 1.0).thermal is ThermalLevel.SERIOUS


@pytest.mark.parametrize(
    "sample", [Sample(None, None, None, None), Sample(-5, -1, -7, None), Sample(900, 1e9, 0, None)]
)
def test_what_cannot_be_is_not_known(tmp_path: Path, sample: Sample) -> None:
    """Nor what a GPU does not tell."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0")
    laptop.nvml.sample = sample
    reading = laptop.look()
    assert (reading.gpu_celsius, reading.gpu_watts, reading.is_throttled) == (None, None, None)


def test_why_it_cannot_be_asked_is_told(tmp_path: Path) -> None:
    """A missing library, a driver that does not answer."""
    laptop = Laptop(tmp_path, gpu0="active")
    laptop.open("/dev/nvidia0")
    laptop.nvml.refusal = "NVML says: GPU is lost"
    assert laptop.look().unknown["gpu_celsius"] == "NVML says: GPU is lost"


def test_without_a_driver_the_real_library_says_so() -> None:
    """Nor one for a GPU that no machine has."""
    with pytest.raises(UnreadError, match="NVML says: "):
        Library().look(["ffff:1f:1f.7"])


class FakeNvml:
    """nvidia-ml-py with a GPU behind it that knows only the old calls."""

    NVMLError = pynvml.NVMLError
    NVML_INIT_FLAG_NO_ATTACH = pynvml.NVML_INIT_FLAG_NO_ATTACH

    def __init__(self, reasons: int) -> None:
        self.reasons = reasons
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInitWithFlags": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByPciBusId": "handle",
            "nvmlDeviceGetTemperature": 71,
            "nvmlDeviceGetPowerUsage": 151_250,
            "nvmlDeviceGetCurrentClocksThrottleReasons": self.reasons,
        }

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            inspect.signature(getattr(pynvml, name)).bind(*arguments)
            if name not in answers:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            return answers[name]

        return call


@pytest.mark.parametrize(
    ("reasons", "is_throttled"), [(0x0, False), (0x4, False), (0x84, False), (0x20, True), (0x48, True)]
)
def test_the_library_is_asked_as_it_wants_and_closed_again(
    monkeypatch: pytest.MonkeyPatch, reasons: int, is_throttled: bool
) -> None:
    """By calls that it has, with what they take; of an old GPU by the old ones."""
    nvml = FakeNvml(reasons)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert Library().look([GPU]) == [Sample(71, 151.25, None, is_throttled)]
    assert (nvml.calls[0], nvml.calls[-1]) == ("nvmlInitWithFlags", "nvmlShutdown")

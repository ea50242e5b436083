"""What a model gets when nobody says: the same for every runtime."""

import math
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pilotlight.runtimes import cgroups

DEFAULT_CONTEXT = 8192
"""Tokens when neither the request nor the model's training asks
for less: memory is taken for all of them at once."""

DEFAULT_PARALLEL = 8


def default_context(trained: int) -> int:
    """Of a model that was trained for so many tokens (0: not known), when nobody asks for a context."""
    return min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)


STEP_S = 0.75
"""Aimed-at length of a step while only prompts are computed: how late a cancel or a shorter prompt may be."""

BUSY_STEP_S = 0.5
"""The same while streams run: the inter-token time that a long prompt of somebody else may cause."""

CROWD_STEP_S = 3.0
"""The same, at most, while all streams have only just begun: who came together goes on together."""

YIELDING_STEP_S = 0.2
"""The same for prompts that yield: what is lost, or waited for, when an interactive request comes."""

BRIEF_S = 0.003
"""A step of so many seconds is brief: what is said with it might as well have been said before it."""

BUNDLE_S = 0.008
"""Text may wait this long for more of it; half of what one frame of a 60 Hz screen takes."""

HEADROOM = 64
"""Tokens of answer that must fit beside the running sequences before one more starts."""


def num_cores(root: Path = Path("/"), processors: Collection[int] | None = None) -> int:
    """Physical cores this process may use: a second thread on the same core only heats it. With more threads
    than our cgroups have time for, all would wait for the rest of each period."""
    if processors is None:
        has_affinity = hasattr(os, "sched_getaffinity")
        processors = os.sched_getaffinity(0) if has_affinity else range(os.cpu_count() or 1)
    return max(1, min([_cores_of(processors, root), *_quotas(root)]))


def _cores_of(processors: Collection[int], root: Path) -> int:
    cores = {_siblings(processor, root) for processor in processors}
    if None not in cores:
        return len(cores)
    return min(len(processors), psutil.cpu_count(logical=False) or len(processors))


def _siblings(processor: int, root: Path) -> str | None:
    """The processors of the same core, by any of which it is known; None if nobody tells."""
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is that of kernels before 5.3
        with suppress(OSError):
            return (root / f"sys/devices/system/cpu/cpu{processor}/topology/{name}").read_text()
    return None


def _quotas(root: Path) -> Iterator[int]:
    """How many processors' time each of our cgroups has, rounded up."""
    for version, folder in cgroups.folders("cpu", root):
        with suppress(OSError, ValueError):  # no limit here: no such file, or "max"
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version == 1 else ("cpu.max",)
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0:  # the first version says -1 for none
                yield math.ceil(quota / period)

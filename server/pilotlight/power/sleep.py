"""How long the machine has slept. On Linux `time.monotonic`, and so the event loop's clock, stands still
meanwhile: what was a night looks like a second."""

import sys
import time

LEAST_S = 1.0
"""Two looks at two clocks may differ by less without any sleep."""


def slept_s() -> float:
    """In all, since the machine was started; 0 where its clock goes on in its sleep, or nobody tells."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

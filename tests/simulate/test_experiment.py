"""Machines side by side, in processes of their own."""

import os
import signal
import subprocess
import sys

import psutil

from serving import until

ENDLESS = """
from pilotlight.simulate.experiment import Plan, runs
from pilotlight.simulate.platforms import PI_5

plan = Plan(platforms=[PI_5], policies=["none"], hours=10000.0, num_machines=9, vary=0.3, num_processes=2)
try:
    list(runs(plan))
except KeyboardInterrupt:
    print("stopped")
"""


def is_at_work(process: psutil.Process) -> bool:
    """Both of those that compute have begun; what else there is only helps to start them."""
    children = process.children(recursive=True)
    return sum(child.cpu_times().user > 0.5 for child in children) == 2


def test_ctrl_c_ends_all_processes_at_once() -> None:
    """It goes to all that a terminal runs; none has more to say, and what waits is not computed."""
    command = [sys.executable, "-c", ENDLESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            until(lambda: is_at_work(psutil.Process(process.pid)))
            os.killpg(process.pid, signal.SIGINT)
            assert process.communicate(timeout=10) == ("stopped\n", "")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

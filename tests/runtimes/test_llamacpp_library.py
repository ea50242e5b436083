"""How llama.cpp's library is loaded."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.runtimes.llamacpp.library import LARGE_BYTES, SPINS, import_llama

PROGRAM = "from pilotlight.runtimes.llamacpp.library import import_llama; import_llama({})"


MACHINE = platform.machine()
MAPS = Path("/proc/self/maps")


def _is_told() -> bool:
    """Not where spinning was never measured, nor where llama.cpp has threads that are not GNU's OpenMP's."""
    import_llama()
    return MACHINE in SPINS and MAPS.exists() and "libgomp" in MAPS.read_text()


@pytest.mark.skipif(not _is_told(), reason="threads wait as their library has it")
@pytest.mark.parametrize(
    ("given", "bytes_model", "spins"),
    [
        ({}, 1, str(SPINS.get(MACHINE, 0))),
        ({}, LARGE_BYTES, str(2 * SPINS.get(MACHINE, 0))),
        ({"GOMP_SPINCOUNT": "7"}, 1, "7"),
        ({"OMP_WAIT_POLICY": "passive"}, 1, "0"),
    ],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_how(
    given: dict[str, str], bytes_model: int, spins: str
) -> None:
    """What OpenMP itself says that it was told."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(bytes_model)],
        env=ours | given | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown.stderr

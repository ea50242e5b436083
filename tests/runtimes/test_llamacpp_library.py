"""How llama.cpp's library is loaded."""

import os
import subprocess
import sys

import pytest

from pilotlight.runtimes.llamacpp.library import SPINS, import_llama

PROGRAM = "from pilotlight.runtimes.llamacpp.library import import_llama; import_llama()"


def _uses_gnu_openmp() -> bool:
    import_llama()
    with open("/proc/self/maps") as maps:
        return "libgomp" in maps.read()


@pytest.mark.skipif(not _uses_gnu_openmp(), reason="this build of llama.cpp has threads of another kind")
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, str(SPINS["x86_64"])), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_how(given: dict[str, str], spins: str) -> None:
    """What OpenMP itself says that it was told."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=ours | given | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown.stderr

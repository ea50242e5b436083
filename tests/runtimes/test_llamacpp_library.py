"""How llama.cpp's library is loaded."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilotlight.runtimes.llamacpp.library import LARGE_BYTES, SPINS, import_llama, library_build

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


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, as if its files were two in another folder."""
    for name in ("libllama.so", "libggml-cpu.so"):
        (tmp_path / name).write_bytes(b"native")
        os.utime(tmp_path / name, (1, 1))
    monkeypatch.setattr(import_llama(), "_base_path", tmp_path)
    return import_llama()


def test_a_build_is_the_same_as_long_as_its_files_are(library: Any) -> None:
    """Whatever else is in their folder."""
    before = library_build(library)
    (library._base_path / "libelse.so").write_bytes(b"native")
    assert library_build(library) == before


@pytest.mark.parametrize("name", ["libllama.so", "libggml-cpu.so"])
def test_another_build_of_the_same_version_is_told_apart(library: Any, name: str) -> None:
    """Of the same size, too."""
    before = library_build(library)
    (library._base_path / name).write_bytes(b"onward")
    assert library_build(library) != before

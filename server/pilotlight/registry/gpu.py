"""Which GPUs the installed build of llama.cpp computes on.

The daemon imports nothing of it: it looks at the names of its files, and if one is for a GPU, a process of
its own says which there are.
"""

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec
import structlog

from pilotlight.core import Model
from pilotlight.runtimes.offload import Device, used

ON_CPU = ("base", "cpu", "blas", "rpc")
"""Parts of ggml that compute on no GPU of this machine."""

_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z]+)[\w-]*\.(?:so|dylib|dll)")

LOOK_S = 60.0
"""For a driver that has to be woken first."""

log = structlog.get_logger()


def computing(model: Model) -> tuple[Device, ...]:
    """What computes the model besides the CPU; see `gpus`."""
    return gpus() if model.runtime == "llamacpp" and model.loading.gpu_layers else ()


@cache
def gpus() -> tuple[Device, ...]:
    """What models are spread over; looked at once, which on a machine with a GPU blocks for a second or more.

    None where a look at them fails: then their memory counts as the machine's.
    """
    if not backends():
        return ()
    command = [sys.executable, "-P", "-m", "pilotlight.runtimes.llamacpp.devices"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LOOK_S, check=True)
        return used(msgspec.json.decode(done.stdout, type=tuple[Device, ...]))
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as exc:
        log.warning("GPUs cannot be looked at", error=str(exc))
        return ()


def backends(folder: Path | None = None) -> tuple[str, ...]:
    """Names like "cuda"; none for a build for CPUs only. `folder` has the libraries of llama-cpp-python."""
    if folder is None:
        spec = find_spec("llama_cpp")
        roots = spec.submodule_search_locations if spec else None
        if not roots:
            return ()
        folder = Path(roots[0]) / "lib"
    if not folder.is_dir():
        return ()
    found = {match[1] for file in folder.iterdir() if (match := _LIBRARY.fullmatch(file.name))}
    return tuple(sorted(found.difference(ON_CPU)))

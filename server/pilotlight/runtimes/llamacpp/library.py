"""The library itself; the only file that imports `llama_cpp`."""

import hashlib
import importlib.util
import os
import platform
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

from pilotlight.runtimes.base import MissingLibraryError

SPINS = {"x86_64": 2000}
"""How often a thread looks whether the others have come to a barrier before it sleeps (`GOMP_SPINCOUNT`), by
machine: for 0.03 to 0.1 ms. With GNU's 300 000 it holds a processor for 5 ms, at each of a step's hundreds of
barriers, while the thread that is waited for stands in line behind another program: until `waiting` notices,
a token could take up to twenty times as long."""

LARGE_BYTES = 512 * 2**20
"""A model from this size on gets twice as many looks: what lies between two barriers takes longer, and one
stream is 3 % faster. Short answers of a small one would be a fifth slower: the daemon wants a processor."""

USER_SAYS = bool(os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})
"""How threads wait for each other."""

NAMES = ("*llama*", "*ggml*")
"""Of the library's files, in a folder that may be the system's."""


def import_llama(bytes_model: int = 0) -> Any:
    """The low-level module, without the high-level one its package pulls in (100 ms and 20 MB less).

    How its threads wait depends on the model that it is imported for.
    """
    _sleep_soon(bytes_model)
    spec = importlib.util.find_spec("llama_cpp")
    if "llama_cpp" not in sys.modules and spec is not None:
        package = ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations or ())
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    try:
        from llama_cpp import llama_cpp
    except ImportError as exc:
        raise MissingLibraryError(exc, "llama_cpp", "llama-cpp-python") from exc
    return llama_cpp


def _sleep_soon(bytes_model: int) -> None:
    """Unless the user says how to wait. GNU's OpenMP reads it once, when it is loaded."""
    spins = SPINS.get(platform.machine())
    if spins and not USER_SAYS:
        os.environ["GOMP_SPINCOUNT"] = str(spins if bytes_model < LARGE_BYTES else 2 * spins)


def library_version() -> str:
    """Version of llama-cpp-python, which pins its llama.cpp."""
    return version("llama-cpp-python")


def library_build(lib: Any) -> str:
    """Tells what this library computes from what others of its version do: a rebuild, or those that
    `LLAMA_CPP_LIB_PATH` leads to."""
    files = {path for name in NAMES for path in lib._base_path.glob(name) if path.is_file()}
    stats = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    # Whether keys and values are rotated before they are quantized, see `llama-kv-cache.cpp`.
    rotation = os.environ.get("LLAMA_ATTN_ROT_DISABLE")
    return hashlib.sha256(repr((stats, rotation)).encode()).hexdigest()[:16]

"""The library itself; the only file that imports `llama_cpp`."""

import importlib.util
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

from pilotlight.runtimes.base import MissingLibraryError


def import_llama() -> Any:
    """The low-level module, without the high-level one its package pulls in (100 ms and 20 MB less)."""
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


def library_version() -> str:
    """Version of llama-cpp-python, which pins its llama.cpp."""
    return version("llama-cpp-python")

"""Which GPUs the installed build of llama.cpp computes on, by the names of its files: nothing is imported."""

import re
from importlib.util import find_spec
from pathlib import Path

ON_CPU = ("base", "cpu", "blas", "rpc")
"""Parts of ggml that compute on no GPU of this machine."""

_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z]+)[\w-]*\.(?:so|dylib|dll)")


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

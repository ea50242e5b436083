"""Imports a runtime's libraries and prints what can compute with them.

For `doctor`, which runs it in a process of its own: `python -m pilotlight.runtimes.probe RUNTIME`.
"""

import importlib
import os
import sys

from pilotlight.runtimes.capabilities import OPTIONAL

MODULES = {"llamacpp": ("llama_cpp",), **OPTIONAL}
"""By runtime."""


def main() -> None:
    """Importing is the test; whatever it raises or dies of is the answer."""
    runtime = sys.argv[1]
    # Before the library is imported, see `import_onnxruntime`.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    for module in MODULES[runtime]:
        _import(module)
    if runtime == "onnx":
        from pilotlight.runtimes.onnx.native import import_onnxruntime
        from pilotlight.runtimes.onnx.providers import available

        print(*available(import_onnxruntime().get_available_providers()))


def _import(module: str) -> None:
    if module == "mlx_lm":
        # As a worker does it: all of it takes seconds.
        from pilotlight.runtimes.mlx.architecture import find_module

        find_module("llama")
    else:
        importlib.import_module(module)


if __name__ == "__main__":
    main()

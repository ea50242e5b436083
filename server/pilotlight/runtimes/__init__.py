"""The native libraries that run models, each in its own file and imported only when it is chosen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotlight.runtimes.base import Runtime


def create(name: str) -> "Runtime":
    """The runtime of that name; heavy imports happen here, in the worker."""
    if name == "llamacpp":
        from pilotlight.runtimes.llamacpp.runtime import LlamaCpp

        return LlamaCpp()
    if name == "onnx":
        from pilotlight.runtimes.onnx.runtime import open_model
        from pilotlight.runtimes.stepping import RowRuntime

        return RowRuntime(name, open_model)
    if name == "mlx":
        from pilotlight.runtimes.mlx.runtime import open_model
        from pilotlight.runtimes.stepping import RowRuntime

        return RowRuntime(name, open_model)
    if name == "echo":
        from pilotlight.runtimes.echo import Echo

        return Echo()
    raise ValueError(f"no runtime is named {name!r}")

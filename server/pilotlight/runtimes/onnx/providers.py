"""Which of ONNX Runtime's execution providers computes a model. Knows names, not the library."""

from collections.abc import Iterable

from pilotlight.runtimes.base import LoadError

AUTO, CPU = "auto", "cpu"

PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
"""What the setting `provider` calls them (`Capabilities.providers`), and what the library does."""


def available(offered: Iterable[str]) -> tuple[str, ...]:
    """Those that can be chosen, of those that the installed library offers under its names."""
    names = set(offered)
    return tuple(ours for ours, theirs in PROVIDERS.items() if theirs in names)


def choose(wanted: str, offered: Iterable[str]) -> str:
    """The provider for the setting `wanted`. Raises `LoadError` if this machine's library does not offer it.

    `AUTO` is the CPU, whatever else is offered: keys and values live in ordinary memory, in which only the
    CPU writes in place. The others would copy all of them to their device and back at every step.
    """
    if wanted == AUTO:
        return CPU
    found = available(offered)
    if wanted not in found:
        raise LoadError(f"onnxruntime has no execution provider {wanted} here; there is: {', '.join(found)}")
    return wanted

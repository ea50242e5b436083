"""What computes a GGUF model besides the CPU, and which of its layers it has: llama.cpp's own order. Pure."""

from msgspec import Struct

ALL = -1
"""For a number of layers: all of them, and the output."""


class Device(Struct, frozen=True):
    """A GPU as llama.cpp lists it. One that `is_integrated` uses the machine's memory and has none itself."""

    name: str
    description: str
    is_integrated: bool
    bytes_total: int
    bytes_free: int


def used(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Those that it spreads a model over: integrated ones only if there are no others."""
    own = tuple(device for device in devices if not device.is_integrated)
    return own or devices


def num_staying(num_layers: int, gpu_layers: int) -> int:
    """Layers that the CPU keeps: the first ones. The output counts as one more, and is the first to go."""
    if gpu_layers == ALL:
        return 0
    return min(num_layers, max(0, num_layers + 1 - gpu_layers))


def refusal(gpu_layers: int) -> str:
    """Why a model with that setting cannot be loaded where nothing but the CPU computes."""
    return (
        f"gpu_layers is {gpu_layers}, and this build of llama.cpp computes on the CPU only; leave "
        "it out, or install llama-cpp-python built for your GPU"
    )

"""What each runtime can do, for the daemon, which imports no native library. The workers say the same."""

from importlib.util import find_spec

from pilotlight.core import Capabilities, Sampling
from pilotlight.runtimes import kv_types

ALL_SAMPLING = Sampling.__struct_fields__

CAPABILITIES = {
    "llamacpp": Capabilities(
        sampling=ALL_SAMPLING,
        threads=True,
        live_threads=True,
        kv_cache_types=kv_types.NAMES,
        mmap=True,
        gpu_layers=True,
        lora=True,
    ),
    "onnx": Capabilities(
        sampling=ALL_SAMPLING,
        threads=True,
        providers=("cpu", "cuda", "directml", "openvino", "qnn"),
    ),
    "mlx": Capabilities(sampling=ALL_SAMPLING, kv_cache_types=tuple(kv_types.BITS)),
    "echo": Capabilities(threads=True, live_threads=True),
}
"""By runtime."""

OPTIONAL = {"onnx": ("onnxruntime", "tokenizers"), "mlx": ("mlx", "mlx_lm", "tokenizers")}
"""Modules of the runtimes that are no part of the default install."""


def is_installed(runtime: str) -> bool:
    """Its modules can be found; whether they work is known once a worker has imported them."""
    return all(find_spec(module) for module in OPTIONAL.get(runtime, ()))

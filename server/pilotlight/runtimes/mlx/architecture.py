"""Builds the network of a model folder from mlx-lm's architectures and fills it with the folder's weights.

Nothing in the folder is run; what it says of itself is held against the architecture.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.mlx.checkpoint import CONFIG, Checkpoint

SAME_AS = {
    "mistral": "llama",
    "xverse": "llama",
    "iquestcoder": "llama",
    "joyai_llm_flash": "deepseek_v3",
    "kimi_k2": "deepseek_v3",
    "minimax_m2": "minimax",
    "gemma4_unified": "gemma4",
    "llava": "mistral3",
    "phi-msft": "phixtral",
    "falcon_mamba": "mamba",
    "qwen2_5_vl": "qwen2_vl",
    "deepseek_v41_text": "deepseek_v41",
}
"""Kinds that mlx-lm computes with the module of another."""


def build(checkpoint: Checkpoint, progress: Callable[[float], None]) -> Any:
    """The network with all its weights in memory. Raises `LoadError`."""
    module = find_module(checkpoint.kind)
    described = f"{checkpoint.folder / CONFIG} describes no {checkpoint.kind}"
    with _failures(described):
        network = module.Model(module.ModelArgs.from_dict(checkpoint.config))
    weights: dict[str, Any] = {}
    for file in checkpoint.weights:
        with _failures(f"{file} cannot be read"):
            weights |= mx.load(str(file))
    with _failures(f"the weights in {checkpoint.folder} do not fit {CONFIG}"):
        _fill(network, weights, checkpoint.quantization)
    with _failures(f"the weights in {checkpoint.folder} cannot be loaded"):
        _evaluate([array for _, array in tree_flatten(network.parameters())], progress)
    return network


def find_module(kind: str) -> Any:
    """mlx-lm's module for the kind. Raises `LoadError`.

    The package's own __init__ imports transformers, which takes seconds and up to 260 MB, for downloads and
    tokenizers; its models need none of it. So the package stands there without its __init__ being run.
    """
    if "mlx_lm" not in sys.modules:
        spec = find_spec("mlx_lm")
        if spec is None:
            missing = ModuleNotFoundError(name="mlx_lm")
            raise MissingLibraryError(missing, "mlx_lm", "pilotlight[mlx]")
        sys.modules["mlx_lm"] = module_from_spec(spec)
    try:
        module = import_module(f"mlx_lm.models.{SAME_AS.get(kind, kind)}")
    except (ImportError, SystemExit) as exc:  # one architecture exits if a library is missing
        raise LoadError(f"mlx-lm has no models of kind {kind}: {exc}") from exc
    if not hasattr(module, "Model"):
        raise LoadError(f"mlx-lm has no models of kind {kind}")
    return module


def library_version() -> str:
    """Of mlx-lm, once a module of it was found; of a checkout that nobody installed, which says too little of
    itself, it is a digest of its models."""
    try:
        return version("mlx-lm")
    except PackageNotFoundError:
        digest = hashlib.sha256()
        for folder in sys.modules["mlx_lm"].__path__:
            for file in sorted(Path(folder, "models").rglob("*.py")):
                digest.update(file.read_bytes())
        return f"of unknown version, {digest.hexdigest()[:16]}"


def windows(network: Any, kind: str) -> list[int | None]:
    """How many tokens each layer looks back, None for all.

    Raises `LoadError` for layers whose state is no list of keys and values: it cannot be cut at a token.
    """
    cache = import_module("mlx_lm.models.cache")
    found: list[int | None] = []
    for layer in cache.make_prompt_cache(network):
        if type(layer) is cache.KVCache:
            found.append(None)
        elif type(layer) is cache.RotatingKVCache and not layer.keep:
            found.append(layer.max_size)
        else:
            raise LoadError(f"models of kind {kind} are not supported: they keep a {type(layer).__name__}")
    return found


def _fill(network: Any, weights: dict[str, Any], quantization: dict[str, Any]) -> None:
    """Give the network its weights, none left over; layers whose weights are quantized become such layers."""
    if hasattr(network, "sanitize"):
        weights = network.sanitize(weights)

    def how(path: str, layer: Any) -> Any:
        if path in quantization:
            return quantization[path]
        return hasattr(layer, "to_quantized") and f"{path}.scales" in weights

    if quantization:
        common = {name: quantization[name] for name in ("group_size", "bits", "mode") if name in quantization}
        nn.quantize(network, **common, class_predicate=how)
    network.eval()
    network.load_weights(list(weights.items()))
    if quantization and mx.default_device() == mx.cpu:
        # Its quantized products are 8 to 35 times faster with scales and activations of 32 bits than of 16.
        network.set_dtype(mx.float32)


def _evaluate(arrays: list[Any], progress: Callable[[float], None]) -> None:
    """Read them from the files, one by one."""
    for number, array in enumerate(arrays, 1):
        mx.eval(array)
        progress(0.9 * number / len(arrays))


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """A model that is not what it says fails anywhere in the library, with any kind of exception."""
    try:
        yield
    except Exception as exc:
        raise LoadError(f"{what}: {' '.join(str(exc).split())[:500] or type(exc).__name__}") from exc

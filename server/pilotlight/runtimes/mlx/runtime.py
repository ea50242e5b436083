"""Opens MLX folders for `stepping.RowRuntime`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.kv_types import BITS, KvTypes
from pilotlight.runtimes.limits import DEFAULT_CONTEXT
from pilotlight.runtimes.mlx.checkpoint import Checkpoint
from pilotlight.runtimes.opened import Opened
from pilotlight.worker.protocol import Load

if TYPE_CHECKING:
    from pilotlight.runtimes.mlx.network import Network

THREADS = 1
"""MLX computes on one thread of the CPU, or on the GPU, and cannot be told otherwise."""


def open_model(load: Load, progress: Callable[[float], None]) -> Opened:
    """A folder of MLX or Hugging Face. Raises `LoadError`."""
    path = Path(load.path)
    checkpoint = Checkpoint.read(path)
    network = load_network(checkpoint, progress, _kv_bits(load.loading.kv_cache_type))
    folder = Folder(
        path,
        num_vocab=network.num_vocab,
        end_tokens=checkpoint.end_tokens,
        other_ends=checkpoint.other_ends,
    )
    trained = checkpoint.context_trained or load.context or DEFAULT_CONTEXT
    return Opened(
        decoder=network,
        vocabulary=folder,
        template=folder.template(load.chat_template),
        context=min(load.context or DEFAULT_CONTEXT, trained),
        context_trained=trained,
        threads=THREADS,
        version=network.version,
        description=f"{checkpoint.kind} on {network.device}",
        make_sampler=folder.make_sampler,
        bytes_model=sum(file.stat().st_size for file in checkpoint.weights),
    )


def _kv_bits(kv_cache_type: str) -> int | None:
    """Raises `LoadError`."""
    kv = KvTypes.parse(kv_cache_type)
    if kv is None:
        return None
    if kv.keys != kv.values:
        raise LoadError(f"kv_cache_type {kv_cache_type}: mlx keeps keys and values in the same type")
    return BITS[kv.keys]


def load_network(
    checkpoint: Checkpoint, progress: Callable[[float], None], kv_bits: int | None = None
) -> "Network":
    """Raises `LoadError`, and `MissingLibraryError` where MLX is not there or cannot be used."""
    try:
        from pilotlight.runtimes.mlx.network import Network
    except ImportError as exc:
        raise MissingLibraryError(exc, "mlx", "pilotlight[mlx]") from exc
    progress(0.0)
    return Network(checkpoint, progress, kv_bits)

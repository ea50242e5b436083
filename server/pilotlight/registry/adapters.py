"""What the file of a LoRA adapter says, before native code sees it: which models it is for, and its size."""

from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from pilotlight.core import Lora
from pilotlight.registry.gguf import Header, read_model
from pilotlight.registry.reader import HeaderError


class Adapter(Struct, frozen=True):
    """One file."""

    architecture: str
    bytes_weights: int


def bytes_of(lora: Lora, architecture: str) -> int:
    """What the adapter takes in memory. Raises `HeaderError` if it is for other models, and `OSError`."""
    found = _read(Path(lora.path), lora.created)
    if found.architecture != architecture:
        raise HeaderError(
            f"the LoRA adapter {Path(lora.path).name} is for models of the architecture "
            f"{found.architecture}, and this one is {architecture}"
        )
    return found.bytes_weights


@lru_cache(maxsize=64)
def _read(path: Path, _created: int) -> Adapter:
    """Of the file as it was changed last."""
    header = read_model(path)
    alpha = header.metadata.get("adapter.lora.alpha")
    kind = header.text("general.type"), header.text("adapter.type")
    if kind != ("adapter", "lora") or not isinstance(alpha, float | None):
        raise HeaderError(f"{path.name} is no LoRA adapter in GGUF: it says to be {_said(header)}")
    return Adapter(header.text("general.architecture") or "none", header.bytes_weights)


def _said(header: Header) -> str:
    kind, architecture = header.text("general.type"), header.text("general.architecture")
    return f"a {kind or 'model'} of the architecture {architecture or 'none'}"

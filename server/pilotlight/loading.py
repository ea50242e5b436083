"""How a model's table says it is to be loaded, where runtimes differ in what they can be told."""

from typing import Annotated

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pilotlight.core import Loading, Lora
from pilotlight.errors import ConfigError
from pilotlight.registry.stores.weights import changed
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.kv_types import AUTO, KvTypes
from pilotlight.sources import AbsolutePath


def _kv_cache_type(text: str) -> str:
    KvTypes.parse(text)
    return text


ALIKE = ("mlx",)
"""Runtimes that keep keys and values in the same type."""

KvCacheType = Annotated[str, AfterValidator(_kv_cache_type)]


class LoraSettings(BaseModel):
    """[[model.lora]]: an adapter that the model is loaded with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    path: AbsolutePath
    scale: float = 1.0


class LoadingSettings(BaseModel):
    """Keys of [[model]] that a runtime may not know."""

    kv_cache_type: KvCacheType | None = None
    mmap: bool | None = None
    gpu_layers: int = Field(-1, ge=-1, le=4096)
    lora: tuple[LoraSettings, ...] = ()


def loading(
    name: str, wanted: LoadingSettings, runtime: str, kv_cache_type: str, before: Loading | None = None
) -> Loading:
    """What the table of the model wants, or with `kv_cache_type` what all others get, if the runtime can.

    Adapters that are away, with their disk perhaps, are taken for what they were `before`.
    Raises `ConfigError` for what it cannot and the table has.
    """
    capabilities = CAPABILITIES[runtime]
    for key in ("mmap", "gpu_layers", "lora"):
        if key in wanted.model_fields_set and not getattr(capabilities, key):
            raise ConfigError(f"model {name!r}: {key} is not supported by {runtime}")
    known = {one.path: one.created for one in (before.lora if before else ())}
    found = Loading(
        kv_cache_type=wanted.kv_cache_type or kv_cache_type,
        mmap=wanted.mmap,
        gpu_layers=wanted.gpu_layers,
        lora=tuple(
            Lora(str(one.path), one.scale, changed(one.path) or known.get(str(one.path), 0))
            for one in wanted.lora
        ),
    )
    kv = KvTypes.parse(found.kv_cache_type)
    if kv is None or not (refusal := _refusal(kv, runtime)):
        return found
    if wanted.kv_cache_type is None:
        return replace(found, kv_cache_type=AUTO)
    raise ConfigError(f"model {name!r}: kv_cache_type {refusal}")


def _refusal(kv: KvTypes, runtime: str) -> str | None:
    """Why the runtime cannot keep keys and values so."""
    types = CAPABILITIES[runtime].kv_cache_types
    if unsupported := kv.unsupported(types):
        return f"{unsupported[0]!r} is not supported by {runtime}; there is: {', '.join((AUTO, *types))}"
    if runtime in ALIKE and kv.keys != kv.values:
        return f"'{kv.keys}/{kv.values}': {runtime} keeps keys and values in the same type"
    return None

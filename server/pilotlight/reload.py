"""What reading the settings again has changed. Pure: values in, words out."""

from collections.abc import Iterable
from dataclasses import fields

from msgspec import Struct
from pydantic import BaseModel

from pilotlight.config import Config
from pilotlight.core import Model, RequestClass

LIVE = {
    *("server.builtin", "defaults.context", "defaults.parallel", "defaults.threads"),
    *("defaults.kv_cache_type", "defaults.keep_alive", "memory.per_model"),
    *("policy.preset", "policy.background_priority", "policy.hysteresis"),
    *(f"classes.{request_class}" for request_class in RequestClass),
}
"""Settings that only say which models, rules and classes of clients there are, and what models are like: they
are taken without a restart."""


class Reloaded(Struct, frozen=True):
    """What is different now: models by name, and settings that differ and wait for a restart."""

    file: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    needs_restart: tuple[str, ...]

    @classmethod
    def between(
        cls, running: Config, read: Config, before: Iterable[Model], after: Iterable[Model]
    ) -> "Reloaded":
        """`before` and `after` are the configured models; `running` are the settings that we started with."""
        old = {model.name: model for model in before}
        new = {model.name: model for model in after}
        return cls(
            file=str(read.file),
            added=tuple(name for name in new if name not in old),
            changed=tuple(name for name in new if name in old and new[name] != old[name]),
            removed=tuple(name for name in old if name not in new),
            needs_restart=tuple(_fixed(running, read)),
        )


def _fixed(running: Config, read: Config) -> Iterable[str]:
    for table in (field.name for field in fields(Config)):
        section = getattr(running, table)
        if isinstance(section, BaseModel):
            for key, value in section:
                if getattr(getattr(read, table), key) != value and f"{table}.{key}" not in LIVE:
                    yield f"{table}.{key}"

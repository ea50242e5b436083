"""What is told of a model, in /v1/models, in /admin and by the command line, with a daemon and without one.

Pure: values in, plain data out.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from pilotlight.core import Cost, Model, ModelStatus, WorkerState
from pilotlight.registry.stores.found import Skipped

Versions = Sequence[Mapping[str, Any]]

EFFICIENT = "efficient"
"""For a number of threads: no more than are enough."""


def brief(status: ModelStatus) -> dict[str, Any]:
    """A model in a list: OpenAI's fields, plus what it is and what it is doing."""
    model, info = status.model, status.info
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "pilotlight",
        "aliases": model.aliases,
        "state": status.state,
        "runtime": model.runtime,
        "store": model.store,
        "description": info.description if info else None,
        "capabilities": to_builtins(info.capabilities if info else model.capabilities),
        "bytes": info.bytes_model if info else None,
        "bytes_disk": model.bytes_disk,
        "bytes_resident": status.bytes_resident,
        "bytes_charged": status.bytes_charged,
        "pin": model.pin,
        "unload_in_s": status.unload_in_s,
        "conversations": {"saved": status.saved, "restored": status.restored},
        "cost": _cost(status.cost) if status.cost else None,
        "context": info.context if info else model.context or None,
        "threads": status.threads or None,
        "enough_threads": status.enough_threads or None,
        "parallel": info.parallel if info else model.parallel or None,
        "progress": status.progress,
        "is_measuring": status.is_measuring,
        "active": status.active,
        "queued": status.queued,
        "classes": {name: to_builtins(one) for name, one in status.classes.items()},
        "paused": status.paused,
        "priority": status.priority,
        "loads": status.loads,
        "load_s": status.load_s,
        "evictions": dict(status.evictions),
        "error": status.error,
    }


def full(status: ModelStatus, versions: Mapping[str, Versions]) -> dict[str, Any]:
    """All of it: where its files are, its versions if it was pulled (by its name, see `Shelf.versions`),
    the settings it is loaded with (0: its worker chooses), its worker."""
    model = status.model
    return {
        **brief(status),
        "path": written(model.path),
        "versions": versions.get(model.name, ()),
        "settings": {
            "context": model.context,
            "parallel": model.parallel,
            "threads": EFFICIENT if model.is_efficient else model.threads,
            "provider": model.provider,
            **to_builtins(model.loading),
            "memory": model.memory,
            "concurrency": dict(model.concurrency),
            "chat_template": model.chat_template,
            "sampling": dict(model.sampling),
        },
        "restarts": status.restarts,
        "worker": to_builtins(status.info) if status.info else None,
    }


def listing(
    statuses: Iterable[ModelStatus],
    skipped: Iterable[Skipped],
    unpulled: Iterable[str],
    versions: Mapping[str, Versions],
) -> dict[str, Any]:
    """All of every model, what looks like one and is not used, and the names of what is to be pulled."""
    return {
        "models": [full(status, versions) for status in statuses],
        "not_used": [
            {"store": one.store, "path": written(one.path), "reason": one.reason} for one in skipped
        ],
        "not_pulled": list(unpulled),
    }


def at_rest(model: Model) -> ModelStatus:
    """As it is while no daemon runs."""
    return ModelStatus(model, WorkerState.STOPPED, None, 0.0, 0, 0, None, 0, None)


def written(path: Path) -> str:
    """As JSON and errors can have it: a name that a system takes may be no text."""
    return os.fsencode(path).decode(errors="replace")


def _cost(cost: Cost) -> dict[str, Any]:
    """In bytes; `measured` is null until the model was loaded once on this machine with these settings.
    `device` is in a GPU's own memory, all else in the machine's."""
    return {
        "estimated": cost.estimated.total,
        "measured": cost.at_load.total if cost.is_measured else None,
        "private": cost.at_load.private,
        "shared": cost.at_load.shared,
        "at_most": cost.at_most.total,
        "device": cost.device,
    }

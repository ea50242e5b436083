"""What people do with pulled models, by the names they use; answers are for a terminal or HTTP."""

from typing import Any

from pilotlight.config import Config
from pilotlight.errors import BadRequest, ModelNotFound
from pilotlight.settings import ModelSettings
from pilotlight.store.disk import usable
from pilotlight.store.events import Job
from pilotlight.store.manifest import Record, Version
from pilotlight.store.store import Store, short_name
from pilotlight.store.waste import Waste


class Shelf:
    """The store of one configuration. Every method reads and writes files, so it blocks."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.store = Store(config.server.store_dir)

    def job(self, wanted: str) -> Job:
        """What to download for the name of a model, or a reference; see `reference`. Raises `BadRequest`,
        and like all of these `PullFailed` if the disk refuses."""
        if (entry := self._known(wanted)) is not None:
            if entry.path is not None:
                raise BadRequest(
                    f"{wanted} is a file of yours, {entry.path}: there is nothing to pull", param="model"
                )
            return self._job(entry.source, entry.name)
        try:
            with usable(self.store.root):
                record = self.store.record(wanted)
        except ModelNotFound:
            from pilotlight.store import reference  # the daemon starts without

            return self._job(str(reference.parse(wanted)), "")
        return self._job(record.origin, record.name)

    def versions(self) -> dict[str, list[dict[str, Any]]]:
        """What there is of each pulled model, by its name, the oldest first."""
        with usable(self.store.root):
            return {
                record.name: [_told(version, record) for version in self.store.versions(record.name)]
                for record in self.store.records()
            }

    def rollback(self, wanted: str) -> dict[str, Any]:
        """Raises `ModelNotFound`, `NoRollback`, and `BadRequest` if it may be several."""
        with usable(self.store.root):
            record = self.store.rollback(self._meant(wanted))
        return {"model": record.name, "version": record.active, "previous": record.previous}

    def remove(self, wanted: str) -> dict[str, Any]:
        """Raises `ModelNotFound`, and `BadRequest` if it may be several."""
        with usable(self.store.root):
            name = self.store.name_of(self._meant(wanted))
            return {"model": name, "bytes_freed": self.store.remove(name)}

    def prune(self, dry_run: bool) -> dict[str, Any]:
        """What is not active, deleted or only named."""
        with usable(self.store.root):
            wasted = self._waste() if dry_run else self.store.prune()
        removed = [{"what": waste.what, "bytes": waste.bytes} for waste in wasted]
        return {"dry_run": dry_run, "removed": removed, "bytes_freed": sum(waste.bytes for waste in wasted)}

    def _waste(self) -> list[Waste]:
        with self.store.locked():  # nothing that is counted goes meanwhile
            return self.store.waste()

    def _known(self, wanted: str) -> ModelSettings | None:
        """What is configured by this name or alias."""
        known = {name: entry for entry in self._config.models for name in (entry.name, *entry.aliases)}
        return known.get(wanted)

    def _meant(self, wanted: str) -> str:
        """The name to look for in the store: no other model has it as its short name where it is configured.
        Raises `ModelNotFound`."""
        if (entry := self._known(wanted)) is None:
            return wanted
        pulled = {record.name for record in self.store.records()}
        if entry.name not in pulled and any(short_name(name) == entry.name for name in pulled):
            raise ModelNotFound(f"{wanted} is configured, and nothing of it is pulled", param="model")
        return entry.name

    def _job(self, wanted: str, name: str) -> Job:
        server = self._config.server
        return Job(wanted, name, str(self.store.root), server.download_stall_s, server.download_retry_s)


def _told(version: Version, record: Record) -> dict[str, Any]:
    """`state` is `active`, `previous` (what a rollback returns to), `failed` with a reason, or `kept`."""
    states = {record.active: "active", record.previous: "previous"}
    reason = record.failures.get(version.id)
    return {
        "version": version.id,
        "state": states.get(version.id, "failed" if reason else "kept"),
        "reason": reason,
        "revision": version.revision,
        "pulled": version.pulled,
        "bytes": version.bytes,
    }

"""From a reference to the files that it means, their hashes, and where to get them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pilotlight.errors import PullFailed
from pilotlight.store import hub
from pilotlight.store.manifest import File, Version, version_id
from pilotlight.store.paths import check_path
from pilotlight.store.reference import HubReference, UrlReference

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a model, and where each of its files is; `headers` are secret and go to the hub only."""

    name: str
    version: Version
    urls: dict[str, str]
    """By the path of the file."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def plan_url(reference: UrlReference) -> Plan:
    """What a URL means, without asking anybody; its size is not known yet."""
    file = File(reference.file, f"sha256:{reference.sha256}")
    version = Version(version_id((file,)), str(reference), "", 0.0, file.path, (file,))
    return Plan(file.path.removesuffix(".gguf"), version, {file.path: reference.url})


def plan_hub(reference: HubReference, timeout_s: float) -> Plan:
    """What the hub has for it. Raises like `hub.list_files`."""
    from pilotlight.store.selection import choose

    listing = hub.list_files(reference, timeout_s)
    choice = choose(reference.repo, reference.pick, listing.files)
    prefix = f"{choice.folder}/" if choice.folder else ""
    files = tuple(_file(listing.files[path], path.removeprefix(prefix)) for path in choice.files)
    urls = {file.path: listing.url(prefix + file.path) for file in files}
    origin = str(replace(reference, pick=choice.label))
    version = Version(version_id(files), origin, listing.revision, 0.0, choice.entry, files)
    name = reference.repo + (f":{choice.label}" if choice.label else "")
    return Plan(name, version, urls, hub.headers())


def _file(sibling: "RepoSibling", path: str) -> File:
    digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
    if sibling.size is None:
        raise PullFailed(f"the hub does not tell the size of {sibling.rfilename}")
    check_path(sibling.rfilename)
    return File(check_path(path), digest, sibling.size)

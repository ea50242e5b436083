"""The Hugging Face hub: what a repository has at one commit, and how its files are asked for.

huggingface_hub does what it knows best: endpoint, tokens, the names of errors. It does not download: its
downloader checks the length of a file and never its hash, gives up at a 500 or 416, and cannot be cancelled.
Imported where the hub is asked only, never by the daemon; sends no telemetry.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pilotlight import __version__
from pilotlight.errors import BadRequest, PullFailed
from pilotlight.store.reference import HubReference
from pilotlight.store.retry import RETRIED, Interrupted, wait_of
from pilotlight.store.transfer import ACCEPT

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

WE: dict[str, Any] = {"library_name": "pilotlight", "library_version": __version__}
"""Who asks."""


class Listing(Struct, frozen=True):
    """The files of a repository at one commit, by path; anybody may have written all of it."""

    repo: str
    revision: str
    files: "Mapping[str, RepoSibling]"

    def url(self, path: str) -> str:
        """Where the hub has that file."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, path, revision=self.revision)


def list_files(reference: HubReference, timeout_s: float) -> Listing:
    """Ask the hub. Raises `BadRequest` if it has no such thing, `PullFailed` if it refuses, `Interrupted`."""
    with mapped(reference):
        from huggingface_hub import HfApi

        api = HfApi(**WE)
        info = api.model_info(
            reference.repo, revision=reference.revision, files_metadata=True, timeout=timeout_s
        )
        files = {_checked(sibling).rfilename: sibling for sibling in info.siblings or ()}
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
            raise ValueError("no commit")
    return Listing(reference.repo, str(info.sha), files)


def _checked(sibling: "RepoSibling") -> "RepoSibling":
    """The library takes what it is told. Raises `ValueError` for what is no file."""
    lfs = sibling.lfs
    texts = sibling.rfilename, sibling.blob_id or "", lfs.sha256 if lfs else ""
    for text in texts:
        if not isinstance(text, str):
            raise ValueError("a file without a name or hash")
        text.encode()  # else no URL could hold it
    if sibling.size is not None and not _is_count(sibling.size):
        raise ValueError("a file of no size")
    return sibling


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def headers() -> dict[str, str]:
    """Of every request; they are secret, and for the hub only."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # made at run time

    found: dict[str, str] = build_hf_headers(**WE)
    return found


@contextmanager
def mapped(reference: HubReference) -> Iterator[None]:
    """The library's exceptions in our words; none of them with a URL, which may be signed."""
    # Read when the library is imported: else it would also look up which program started us.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as exc:
        raise PullFailed(f"{reference.repo} is gated: {ACCEPT}") from exc
    except errors.RevisionNotFoundError as exc:
        raise BadRequest(f"{reference.repo} has no revision {reference.revision!r}", param="model") from exc
    except errors.RepositoryNotFoundError as exc:
        raise BadRequest(
            f"the hub has no {reference.repo}, or it is private: then set HF_TOKEN or run `hf auth login`",
            param="model",
        ) from exc
    except errors.OfflineModeIsEnabled as exc:
        raise PullFailed("HF_HUB_OFFLINE is set, so the hub is not asked") from exc
    except errors.HfHubHTTPError as exc:
        status, headers = exc.response.status_code, exc.response.headers
        if status in RETRIED:
            raise Interrupted(f"the hub answers {status}", wait_of(headers)) from exc
        raise PullFailed(f"the hub refuses {reference.repo}: {status} {exc.response.reason_phrase}") from exc
    except HTTPError as exc:
        raise Interrupted(f"the hub does not answer ({type(exc).__name__})") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise PullFailed(
            f"the hub's answer about {reference.repo} makes no sense: {type(exc).__name__}"
        ) from exc

"""A hub that answers anything: what makes no sense is told, and nothing of it is used."""

from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import ModelInfo

from pilotlight.errors import PullFailed
from pilotlight.store.hub import list_files
from pilotlight.store.reference import HubReference

FILE = {"rfilename": "x-Q8_0.gguf", "size": 2000, "blobId": "a" * 40}

LFS = {"sha256": 5, "size": 2000, "pointerSize": 130}

WRONG = [
    {"sha": "main"},
    {"sha": "\ud800"},
    {"sha": None},
    {"siblings": [FILE | {"rfilename": ["x"]}]},
    {"siblings": [FILE | {"rfilename": "\ud800"}]},
    {"siblings": [FILE | {"size": -1}]},
    {"siblings": [FILE | {"size": 0.5}]},
    {"siblings": [FILE | {"blobId": 7}]},
    {"siblings": [FILE | {"lfs": LFS}]},
    {"siblings": [None]},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_listing_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """In a line, whichever part of it is wrong."""
    answer = {"id": "a/b", "sha": "c" * 40, "siblings": [FILE]} | change
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: ModelInfo(**answer))
    with pytest.raises(PullFailed, match="the hub's answer about a/b makes no sense"):
        list_files(HubReference("a/b"), 1.0)

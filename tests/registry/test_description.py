"""What is told of models."""

import os
from pathlib import Path

import msgspec

from pilotlight.core import Model
from pilotlight.registry.description import at_rest, listing
from pilotlight.registry.stores.found import Skipped


def test_a_path_that_is_no_text_is_told_all_the_same() -> None:
    """JSON has nothing for it, and the list has others."""
    path = Path(os.fsdecode(b"/m\xff/a.gguf"))
    found = listing([at_rest(Model("a", path))], [Skipped("folder", path, "is gone")], (), {})
    told = msgspec.json.decode(msgspec.json.encode(found))
    assert told["models"][0]["path"] == told["not_used"][0]["path"] == "/m\ufffd/a.gguf"

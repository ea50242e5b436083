"""Where stores are."""

import json
from pathlib import Path

import pytest

from pilotlight.registry.stores.places import OLLAMA_SERVICE, Place, places

HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/huggingface/hub"),
        ({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/cache"}, "/hf/hub"),
        ({"HF_HOME": "~/hf"}, "/home/me/hf/hub"),
        ({"HF_HOME": "$DATA/hf", "DATA": "/data"}, "/data/hf/hub"),
        ({"HF_HUB_CACHE": "/hub", "HF_HOME": "/hf"}, "/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/legacy", "HF_HOME": "/hf"}, "/legacy"),
    ],
)
def test_the_hugging_face_cache_is_where_its_library_looks(environ: dict[str, str], expected: str) -> None:
    """The same variables in the same order."""
    assert places(["huggingface"], [], environ, HOME) == (Place("huggingface", Path(expected)),)


def test_ollama_s_store_is_the_user_s_and_the_service_s() -> None:
    """Or the one its variable names, alone."""
    usual = [place.path for place in places(["ollama"], [], {}, HOME)]
    assert usual == [Path("/home/me/.ollama/models"), OLLAMA_SERVICE]
    named = places(["ollama"], [], {"OLLAMA_MODELS": '"/big/ollama"'}, HOME)
    assert [place.path for place in named] == [Path("/big/ollama")]


def test_lm_studio_s_folder_is_where_its_own_files_say(tmp_path: Path) -> None:
    """The pointer to its home, and the folder for downloads in its settings."""
    assert [place.path for place in places(["lmstudio"], [], {}, tmp_path)] == [
        tmp_path / ".lmstudio" / "models",
        tmp_path / ".cache" / "lm-studio" / "models",
    ]
    home = tmp_path / "elsewhere"
    home.mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{home}\n")
    (home / "settings.json").write_text(json.dumps({"downloadsFolder": "/big/models"}))
    assert places(["lmstudio"], [], {}, tmp_path)[0].path == Path("/big/models")


@pytest.mark.parametrize(
    "settings",
    [
        *("", "[]", "{}", "[" * 10**5, "\0"),
        *(
            '{"downloadsFolder": "relative"}',
            '{"downloadsFolder": "/\\u0000"}',
            '{"downloadsFolder": "/\\ud800"}',
        ),
    ],
)
def test_settings_of_lm_studio_that_say_nothing_are_left_alone(tmp_path: Path, settings: str) -> None:
    """The usual folder, then."""
    (tmp_path / ".lmstudio").mkdir()
    (tmp_path / ".lmstudio" / "settings.json").write_text(settings)
    assert places(["lmstudio"], [], {}, tmp_path)[0].path == tmp_path / ".lmstudio" / "models"


def test_stores_that_are_switched_off_are_nowhere() -> None:
    """The user's own folders are no store of others."""
    assert places([], [Path("/models")], {}, HOME) == (Place("folder", Path("/models")),)

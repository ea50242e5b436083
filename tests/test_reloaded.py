"""What reading the settings again comes to."""

from pathlib import Path
from typing import Any

from pilotlight.config import Config, models
from pilotlight.reload import Reloaded


def resolve(folder: Path, text: str, **flags: Any) -> Config:
    (folder / "models.toml").write_text(text)
    return Config.resolve(flags, config_file=folder / "models.toml", environ={"PILOTLIGHT_QUEUE": "5"})


def again(config: Config, text: str) -> Config:
    assert config.file is not None
    assert config.read_again is not None
    config.file.write_text(text)
    return config.read_again()


def between(old: Config, new: Config) -> Reloaded:
    return Reloaded.between(old, new, models(old), models(new))


def table(name: str, **settings: Any) -> str:
    lines = "".join(f"{key} = {value!r}\n" for key, value in settings.items())
    return f"[[model]]\nname = '{name}'\npath = '{name}.gguf'\n{lines}"


def test_models_that_came_changed_and_went_are_told(tmp_path: Path) -> None:
    """In the order of the file."""
    old = resolve(tmp_path, table("same") + table("other") + table("gone"))
    found = between(old, again(old, table("new") + table("other", context=9) + table("same")))
    assert (found.added, found.changed, found.removed) == (("new",), ("other",), ("gone",))
    assert (found.file, found.needs_restart) == (str(tmp_path / "models.toml"), ())


def test_defaults_change_the_models_that_have_none_of_their_own(tmp_path: Path) -> None:
    """And the built-in ones; one can be switched off, too."""
    old = resolve(tmp_path, table("m", context=9))
    assert "m" not in between(old, again(old, "[defaults]\ncontext = 64\n" + table("m", context=9))).changed
    assert "pilot" in between(old, again(old, "[server]\nbuiltin = false\n" + table("m"))).removed


def test_flags_and_variables_still_win(tmp_path: Path) -> None:
    """They are what they were at the start."""
    old = resolve(tmp_path, "", port=7)
    new = again(old, "[server]\nport = 8\nqueue = 9")
    assert (new.server.port, new.server.queue) == (7, 5)
    assert between(old, new).needs_restart == ()


def test_what_cannot_change_while_we_run_is_told(tmp_path: Path) -> None:
    """By name; where models are looked for can."""
    old = resolve(tmp_path, "")
    text = (
        "[server]\nport = 1\ndrain_s = 1\n[defaults]\nload_s = 1\nthreads = 1\nkeep_alive = '1m'\n"
        "[memory]\nper_model = '1GiB'\n[catalog]\nstores = []"
    )
    assert between(old, again(old, text)).needs_restart == (
        "server.port",
        "server.drain_s",
        "defaults.load_s",
    )
    assert [place.store for place in again(old, text).places] == ["folder"]

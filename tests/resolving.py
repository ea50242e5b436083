"""Settings as a daemon of this folder would find them."""

from pathlib import Path
from typing import Any

from pilotlight.config import Config
from pilotlight.store.manifest import File, Version
from pilotlight.store.store import Store


def resolve(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: Any) -> Config:
    file = tmp_path / "models.toml"
    file.write_text(text)
    own = {"PILOTLIGHT_STORE_DIR": str(tmp_path / "store")}
    return Config.resolve(flags, config_file=file, environ=own | (env or {}))


def put(tmp_path: Path, *names: str) -> None:
    """Models of these names, as if they were pulled."""
    store = Store(tmp_path / "store")
    for name in names:
        file = File("model.gguf", f"sha256:{'0' * 64}", 0)
        store.part(file.digest)
        store.arrived(file.digest).touch()
        store.activate(name, store.install(name, Version("0" * 12, name, "", 0.0, file.path, (file,))))

"""Settings as a daemon of this folder would find them."""

from pathlib import Path
from typing import Any

from pilotlight.config import Config


def resolve(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: Any) -> Config:
    file = tmp_path / "models.toml"
    file.write_text(text)
    own = {"PILOTLIGHT_STORE_DIR": str(tmp_path / "store")}
    return Config.resolve(flags, config_file=file, environ=own | (env or {}))

"""The options that several commands share, and how they become a `Config`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pilotlight.errors import Error

if TYPE_CHECKING:
    from pilotlight.config import Config
    from pilotlight.registry.catalog import Catalog

F = TypeVar("F", bound=Callable[..., Any])


def daemon_options(command: F) -> F:
    """--config, --host, --port and --state-dir: where the daemon is."""
    for option in (
        click.option("--state-dir", metavar="DIR", help="Where the daemon keeps its state."),
        click.option(
            "--port", type=int, metavar="N", help="TCP port; 0 takes any free one.  [default: 8710]"
        ),
        click.option(
            "--host",
            metavar="ADDRESS",
            help="Its address; one that others can reach needs api_keys.  [default: 127.0.0.1]",
        ),
        click.option(
            "--config", metavar="FILE", type=click.Path(path_type=Path), help="The models.toml to read."
        ),
    ):
        command = option(command)
    return command


def resolve(config: Path | None, **flags: Any) -> "Config":
    """The configuration with these flags on top. Raises `ConfigError`."""
    from pilotlight.config import Config

    return Config.resolve(flags, config_file=config)


def catalog(config: "Config") -> "Catalog":
    """All models that a daemon with this configuration would know. Raises `ConfigError`."""
    import anyio

    from pilotlight import log
    from pilotlight.config import models, unpulled
    from pilotlight.registry.catalog import Catalog
    from pilotlight.registry.finder import Finder

    log.configure("warning")
    known = Catalog(models(config), Finder(config.places, config), unpulled(config))
    anyio.run(known.refresh)
    return known


def is_address_given(arguments: Mapping[str, Any]) -> bool:
    """The person named the daemon's address on the command line: no other daemon will do."""
    return arguments["host"] is not None or arguments["port"] is not None


def model_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of a model's name or alias, configured or found."""
    try:
        config = resolve(ctx.params.get("config"))
        known = catalog(config)
    except Error:
        return []
    names = (name for model in known for name in (model.name, *model.aliases))
    return [name for name in names if name.startswith(incomplete)]

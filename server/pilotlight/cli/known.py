"""What is known of models: as the running daemon says, else as one would say if it were started now."""

from typing import Any

from pilotlight.cli.client import Client, find
from pilotlight.cli.options import catalog
from pilotlight.config import Config
from pilotlight.registry.description import at_rest, full, listing


class Known:
    """Asks the daemon if there is one; opens no model in either case."""

    def __init__(self, config: Config, *, is_address_given: bool) -> None:
        self._config = config
        self._client: Client | None = find(config, is_address_given=is_address_given)

    def listing(self) -> dict[str, Any]:
        """Every `models` there is, and what is `not_used` or `not_pulled`."""
        if self._client is not None:
            return self._client.listing()
        known = catalog(self._config)
        return listing(map(at_rest, known), known.skipped, known.unpulled, self._versions())

    def show(self, name: str) -> dict[str, Any]:
        """Everything about one. Raises `Error` with the nearest name."""
        if self._client is not None:
            return self._client.show(name)
        return full(at_rest(catalog(self._config).get(name)), self._versions())

    def _versions(self) -> dict[str, list[dict[str, Any]]]:
        from pilotlight.store.shelf import Shelf

        return Shelf(self._config).versions()

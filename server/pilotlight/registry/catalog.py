"""The models the daemon can serve, by name. Knows what is configured, not what is loaded."""

import difflib
from collections.abc import Iterable, Iterator

from pilotlight.core import Model
from pilotlight.errors import ConfigError, ModelNotFound


class Catalog:
    """An ordered, immutable set of models with unique names."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_name: dict[str, Model] = {}
        for model in models:
            if model.name in self._by_name:
                raise ConfigError(
                    f"two models are named {model.name!r}: {self._by_name[model.name].path} and {model.path}"
                )
            self._by_name[model.name] = model

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Model:
        """The model of that name. Raises `ModelNotFound` with the nearest name."""
        if (model := self._by_name.get(name)) is not None:
            return model
        near = difflib.get_close_matches(name, self._by_name, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(self._by_name) or 'none'}"
        raise ModelNotFound(f"no model is named {name[:200]!r}; {hint}", param="model")

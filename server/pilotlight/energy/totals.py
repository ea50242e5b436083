"""Joules since the daemon started, by model and by app. Bounded: apps beyond the first ones are `OTHERS`, and
so are models that are forgotten."""

from pilotlight.core import Request, RequestClass
from pilotlight.energy.accounts import Counted
from pilotlight.energy.meters import Method
from pilotlight.worker.protocol import Computed

MOST_APPS = 32
"""Names come from whoever connects."""

OTHERS = "others"

ByModel = dict[tuple[str, Method], Counted]
ByApp = dict[tuple[str, RequestClass, Method], Counted]


class Totals:
    """`models` and `apps` are for reading."""

    def __init__(self) -> None:
        self.models: ByModel = {}
        self.apps: ByApp = {}
        self._names: set[str] = set()

    def add(self, request: Request, method: Method, part: Computed, joules: float) -> None:
        """For the computing of `part` of this request."""
        app = self._app(request.app)
        self.models.setdefault((request.model, method), Counted()).add(part, joules)
        self.apps.setdefault((app, request.request_class, method), Counted()).add(part, joules)

    def forget(self, model: str) -> None:
        """Its joules stay, without its name."""
        for name, method in [key for key in self.models if key[0] == model]:
            counted = self.models.pop((name, method))
            others = self.models.setdefault((OTHERS, method), Counted())
            others.prefill_joules += counted.prefill_joules
            others.decode_joules += counted.decode_joules
            others.prefill_tokens += counted.prefill_tokens
            others.decode_tokens += counted.decode_tokens

    def _app(self, name: str) -> str:
        if len(self._names) < MOST_APPS:
            self._names.add(name)
        return name if name in self._names else OTHERS

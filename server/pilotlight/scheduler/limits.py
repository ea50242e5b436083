"""What the policy sets bounds to in the scheduler, until it says otherwise. Pure values."""

import math
from collections.abc import Mapping

from msgspec import Struct, field

from pilotlight.core import Request, RequestClass
from pilotlight.policy.limits import least


class Limits(Struct, frozen=True):
    """How many sequences a model runs side by side, and how long it stays loaded without work."""

    concurrency: Mapping[tuple[RequestClass, bool], int] = field(default_factory=dict)
    """By their class, and whether their requests override the policy."""
    keep_alive_s: Mapping[RequestClass, float] = field(default_factory=dict)
    """By the class of the last request that it ran."""

    def side_by_side(self, request: Request) -> int | None:
        """Sequences like the request's, its own included; None for any number. Its model has a say, too."""
        ours = self.concurrency.get((request.request_class, request.is_overridden))
        return least(ours, request.side_by_side)

    def stay_s(self, request_class: RequestClass) -> float:
        """Seconds."""
        return self.keep_alive_s.get(request_class, math.inf)

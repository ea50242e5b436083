"""What a client asks for, while it is open which model answers, and what it is then.

Knows the dialects' bodies and writers; knows no connection.
"""

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request as HttpRequest

from pilotlight.api import classes, said
from pilotlight.api.edge import Exchange
from pilotlight.api.schema import GenerateBody
from pilotlight.api.service import Service
from pilotlight.api.writer import Shape, Writer
from pilotlight.core import Model, Request
from pilotlight.errors import ModelNotFound, NotPulled
from pilotlight.policy.decide import Decision
from pilotlight.policy.facts import Facts
from pilotlight.scheduler.gate import restricted


class Asking(Struct, frozen=True):
    """One request as it was asked: of this model, with nothing restricted."""

    asked: GenerateBody
    shape: Shape
    model: Model
    small: Model | None
    """See `small_of`."""
    request: Request
    facts: Facts
    service: Service
    answer_id: str
    warnings: Sequence[str] = ()

    @classmethod
    async def of(
        cls, http: HttpRequest, service: Service, asked: GenerateBody, shape: Shape, warnings: Sequence[str]
    ) -> "Asking":
        """Raises `BadRequest`, and `ModelNotFound`."""
        exchange = Exchange.of(http.scope)
        model = await service.catalog.find(asked.model)
        exchange.model = model.name
        request = classes.classified(
            asked.request(exchange.id, model), http, asked.service_tier, service.classes
        )
        small = await small_of(model, service)
        facts = said.facts(http, request, model, small)
        request = replace(request, is_overridden=facts.is_overridden)
        return cls(asked, shape, model, small, request, facts, service, exchange.id, warnings)

    def decided(self, decision: Decision) -> tuple[Request, Writer]:
        """What is really done, and who writes it down. Raises `ModelNotFound` if its model is gone meanwhile,
        and `Unsupported`."""
        model, decision = self._answering(decision)
        request = self.request
        if model is not self.model:
            # Built anew: what the request leaves open, each model has its own values for.
            request = replace(
                self.asked.request(request.id, model),
                request_class=request.request_class,
                client=request.client,
                app=request.app,
                is_overridden=request.is_overridden,
            )
        writer = Writer(
            self.shape,
            self.answer_id,
            model,
            tier=classes.TIERS_USED[request.request_class],
            include_usage=self.asked.include_usage,
            warnings=self.warnings,
            policy=said.body(decision),
        )
        return restricted(request, decision.actions), writer

    def _answering(self, decision: Decision) -> tuple[Model, Decision]:
        """Who answers, and what is said of it: while the request was held, the models may have changed."""
        catalog = self.service.catalog
        model = catalog.get(self.asked.model)
        small: Model | None = None
        if decision.actions.is_small and self.small is not None:
            with suppress(ModelNotFound):
                small = catalog.get(self.small.name)
        facts = replace(decision.facts, model=model.name, small=None if small is None else small.name)
        actions = replace(decision.actions, is_small=small is not None)
        return small or model, replace(decision, facts=facts, actions=actions)


async def small_of(model: Model, service: Service) -> Model | None:
    """The one that may answer in its place; None if it has none, or that one is not on this machine."""
    if model.small is None:
        return None
    try:
        # Not `find` at once: it looks into all stores for what was never pulled, at every request.
        return service.catalog.get(model.small)
    except NotPulled:
        return None
    except ModelNotFound:
        pass
    try:
        return await service.catalog.find(model.small)
    except ModelNotFound:
        return None

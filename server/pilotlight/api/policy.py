"""GET /admin/policy, POST /admin/policy/override: what is known of the machine and what follows from it."""

from typing import Annotated, Any

import anyio
from pydantic import PlainValidator
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import body, said
from pilotlight.api.edge import json_response
from pilotlight.api.schema import Strict, duration
from pilotlight.api.service import Service
from pilotlight.core import RequestClass
from pilotlight.errors import BadRequest
from pilotlight.policy.facts import Facts
from pilotlight.power.telling import told

LONGEST_OVERRIDE_S = 24 * 3600.0


def _ttl(value: Any) -> float:
    return duration(value, 'must be seconds (3600), a duration ("1h", "90m"), or 0 (end the override)')


class OverrideBody(Strict):
    """For how long."""

    ttl: Annotated[float, PlainValidator(_ttl, json_schema_input_type=float | str)]


OVERRIDE = body.Dialect(OverrideBody, {})


ANY_MODEL = ("the model", "its small one")


async def policy(_http: HttpRequest, service: Service) -> Response:
    """The reading of now: every value with its unit, age, source and confidence, or why it is not known; the
    rules in force, what they do with requests of each class, and how background work is paced for its heat.
    Looks at the machine if nobody did so in the last two seconds."""
    reading = await service.power.fresh()
    now = anyio.current_time()
    gate = service.gate
    decisions = {one: await gate.judge(Facts(one, *ANY_MODEL)) for one in RequestClass}
    return json_response(
        {
            "reading": told(reading, now),
            "preset": service.preset,
            "rules": gate.rules(),
            "classes": {one: said.body(decision) for one, decision in decisions.items()},
            "pacing": service.pacer.pacing(now),
            "saver_held": service.saver.is_held,
            "held": gate.held,
            "override_left_s": round(gate.override_left_s, 1),
        }
    )


async def override(http: HttpRequest, service: Service) -> Response:
    """For `ttl` seconds, no rule short of a critical one counts; 0 ends that."""
    asked, _ = await body.read(http, OVERRIDE, service.config.server)
    if asked.ttl > LONGEST_OVERRIDE_S:
        raise BadRequest(f"ttl must be at most {LONGEST_OVERRIDE_S:.0f} seconds", param="ttl")
    service.gate.override(asked.ttl)
    return json_response({"override_left_s": service.gate.override_left_s})

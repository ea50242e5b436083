"""GET /admin/energy: what answers took, by model and by app, and which meters said so."""

from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api.edge import json_response
from pilotlight.api.service import Service
from pilotlight.energy.accounts import Counted
from pilotlight.energy.ledger import Ledger
from pilotlight.energy.meters import Method


async def energy(_http: HttpRequest, service: Service) -> Response:
    """Joules since the start, by model and by app; the meters, and why some count nothing.
    Looks at none."""
    ledger = service.energy
    totals = ledger.totals
    return json_response(
        {
            "meters": [_meter(ledger, method) for method in ledger.meters],
            "models": [
                {"model": model, **_counted(ledger, method, counted)}
                for (model, method), counted in totals.models.items()
            ],
            "apps": [
                {"app": app, "class": request_class, **_counted(ledger, method, counted)}
                for (app, request_class, method), counted in totals.apps.items()
            ],
        }
    )


def _meter(ledger: Ledger, method: Method) -> dict[str, Any]:
    """What it counted in all, while there was work, and how much of that is nobody's."""
    meter = ledger.meters[method]
    said = {
        "method": method,
        "scope": meter.scope,
        "joules": ledger.metered.get(method, 0.0),
        "unattributed_joules": ledger.unattributed.get(method, 0.0),
    }
    return said if meter.lacks is None else said | {"reason": meter.lacks}


def _counted(ledger: Ledger, method: Method, counted: Counted) -> dict[str, Any]:
    said: dict[str, Any] = {
        "method": method,
        "scope": ledger.meters[method].scope,
        "joules": counted.joules,
        "prefill_joules": counted.prefill_joules,
        "decode_joules": counted.decode_joules,
        "prefill_tokens": counted.prefill_tokens,
        "decode_tokens": counted.decode_tokens,
    }
    if method is Method.BATTERY:
        said["battery_percent"] = ledger.percent(counted.joules)
    return said

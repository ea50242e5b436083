"""GET /admin/policy: what is known of the machine."""

import anyio
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api.edge import json_response
from pilotlight.api.service import Service
from pilotlight.power.telling import told


async def policy(_http: HttpRequest, service: Service) -> Response:
    """The reading of now: every value with its unit, age, source and confidence, or why it is not known.
    Looks at the machine if nobody did so in the last two seconds."""
    reading = await service.power.fresh()
    return json_response({"reading": told(reading, anyio.current_time())})

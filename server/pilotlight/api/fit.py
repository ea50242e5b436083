"""POST /admin/models/fit: what `pilotlight fit` says, for programs.

That is a process of its own: it reads headers, asks the hub and measures how fast memory is, with libraries
that the daemon does without.
"""

import subprocess
import sys
from collections.abc import Iterator

import anyio
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api.body import Dialect, read
from pilotlight.api.edge import unless_gone
from pilotlight.api.schema import Strict
from pilotlight.api.service import Service
from pilotlight.errors import BadRequest

FIT_S = 120.0
"""For a hub that is slow to answer."""


class FitBody(Strict):
    """A model's name, a file, or a repository of the hub; tokens it is to hold; memory it may take."""

    model: str = Field(min_length=1, max_length=2000)
    context: int | None = Field(None, ge=256, le=2**24)
    within: str | None = Field(None, max_length=40)


FIT = Dialect(FitBody, {})


async def fit(http: HttpRequest, service: Service) -> Response:
    """Whether a model fits this machine, at which context, what would make it fit, and how fast it may be."""
    asked, _ = await read(http, FIT, service.config.server)
    command = [sys.executable, "-P", "-m", "pilotlight", "fit", *_arguments(asked, service)]
    try:
        with anyio.fail_after(FIT_S):
            done = await unless_gone(
                http.receive,
                lambda: anyio.run_process(
                    command, stderr=subprocess.PIPE, check=False, env=service.environ()
                ),
            )
    except TimeoutError as exc:
        raise BadRequest(f"{asked.model} could not be judged in {FIT_S:.0f} s", param="model") from exc
    if not done.stdout:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["it did not say why"]
        raise BadRequest(reason[-1].removeprefix("pilotlight: "), param="model")
    return Response(done.stdout, media_type="application/json")


def _arguments(asked: FitBody, service: Service) -> Iterator[str]:
    yield "--json"
    # Nobody else can tell our workers from other programs.
    yield f"--budget={service.memory().budget}"
    if asked.context is not None:
        yield f"--context={asked.context}"
    if asked.within is not None:
        yield f"--within={asked.within}"
    yield from ("--", asked.model)

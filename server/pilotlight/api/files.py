"""/v1/files: the inputs of batches and what they wrote. OpenAI's, for the purpose `batch`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from pilotlight.api import page, problems
from pilotlight.api import upload as form
from pilotlight.api.edge import json_response
from pilotlight.api.service import Service
from pilotlight.batch.files import KEEP_S
from pilotlight.batch.records import File
from pilotlight.errors import Unsupported

MAX_FILENAME = 255
MIN_KEEP_S = 3600


class UploadForm(BaseModel):
    """The fields beside the file; numbers are text in a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str
    anchor: Literal["created_at"] = Field("created_at", alias="expires_after[anchor]")
    keep_s: int = Field(KEEP_S, alias="expires_after[seconds]", ge=MIN_KEEP_S, le=KEEP_S)


class FileQuery(page.PageQuery):
    """Which files, and in which order of their creation."""

    limit: int = Field(10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None


async def upload(http: HttpRequest, service: Service) -> Response:
    """Take in a file of requests: a form with `file` and `purpose`."""
    files = await service.batches.files()
    with files.incoming() as incoming:
        came = await form.read(http, incoming, service.config.server.upload_limit)
        fields = _fields(came)
        file = await files.keep(incoming, _shown(came.filename or ""), fields.purpose, fields.keep_s)
    return json_response(body(file))


async def files(http: HttpRequest, service: Service) -> Response:
    """The files there are."""
    query = page.parse(http.query_params, FileQuery)
    found = await (await service.batches.files()).all()
    if query.order == "desc":
        found.reverse()
    wanted = [file for file in found if query.purpose in (None, file.purpose)]
    return json_response(page.page(wanted, query, body))


async def file(http: HttpRequest, service: Service) -> Response:
    """What is known of a file."""
    files = await service.batches.files()
    return json_response(body(await files.get(http.path_params["id"])))


async def content(http: HttpRequest, service: Service) -> Response:
    """What is in a file."""
    files = await service.batches.files()
    found = await files.get(http.path_params["id"])
    return FileResponse(files.path(found.id), media_type="application/octet-stream")


async def delete(http: HttpRequest, service: Service) -> Response:
    """Delete a file that no unfinished batch needs."""
    file_id = http.path_params["id"]
    await (await service.batches.files()).remove(file_id)
    return json_response({"id": file_id, "object": "file", "deleted": True})


def body(file: File) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _fields(came: form.Form) -> UploadForm:
    try:
        fields = UploadForm.model_validate(came.fields)
    except ValidationError as exc:
        raise problems.describe(exc, UploadForm) from None
    if fields.purpose != "batch":
        raise Unsupported("purpose must be 'batch': files are for nothing else here", param="purpose")
    return fields


def _shown(filename: str) -> str:
    """A stranger's name, fit to be shown; no path is ever made of it."""
    return "".join(c if c.isprintable() else "?" for c in filename[:MAX_FILENAME])

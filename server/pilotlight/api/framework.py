"""FastAPI, imported without building what nobody asks it for.

Its module of OpenAPI models builds a validator for each of them: a tenth of the daemon's start, and our
document is our own. Deferred, they are built when first used. Nor does OpenTelemetry, which it imports, load
the plugins that the environment names for other programs, or fail for want of them.
"""

import os

from pydantic import BaseModel

PLUGINS = {"OTEL_PROPAGATORS", "OTEL_PYTHON_CONTEXT"}

_theirs = {name: os.environ.pop(name) for name in PLUGINS & os.environ.keys()}
BaseModel.model_config["defer_build"] = True
try:
    from fastapi import FastAPI
finally:
    del BaseModel.model_config["defer_build"]
    os.environ.update(_theirs)

__all__ = ["FastAPI"]

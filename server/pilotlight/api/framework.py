"""FastAPI, imported without building what nobody asks it for.

Its module of OpenAPI models builds a validator for each of them: a tenth of the daemon's start, and our
document is our own. Deferred, they are built when first used.
"""

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True
try:
    from fastapi import FastAPI
finally:
    del BaseModel.model_config["defer_build"]

__all__ = ["FastAPI"]

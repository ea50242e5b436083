"""Where settings come from: a TOML file, environment variables, flags; and how a wrong one is told.

Works on any pydantic model whose fields are tables of settings, and knows none of them by name.
Every scalar setting has the environment variable `PILOTLIGHT_<KEY>` and the flag `--<key>`, so keys are
unique across tables; `PILOTLIGHT_<TABLE>__<KEY>` is the long form.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pilotlight.errors import ConfigError

PREFIX = "PILOTLIGHT_"
D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment sets: `values` by key, the `--config` file and the `--model` values."""

    values: Mapping[str, str]
    config: Path | None
    models: tuple[str, ...]


def from_environment(environ: Mapping[str, str], document: type[BaseModel]) -> Environment:
    """Read all `PILOTLIGHT_*` variables; an empty one counts as not set. Raises `ConfigError`."""
    known = _variables(document)
    names = {*known, PREFIX + "CONFIG", PREFIX + "MODEL"}
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    for name in ours:
        if name not in names:
            raise ConfigError(f"environment: unknown variable {name}{near(name, names)}")
    config, chosen = ours.get(PREFIX + "CONFIG"), ours.get(PREFIX + "MODEL", "")
    return Environment(
        values={known[name]: value for name, value in ours.items() if name in known},
        config=Path(config) if config else None,
        models=tuple(filter(None, chosen.split(os.pathsep))),
    )


def merge(document: type[D], file: Path, environment: Mapping[str, str], flags: Mapping[str, Any]) -> D:
    """The validated document: flags over environment over file over defaults. Raises `ConfigError`."""
    raw, origins = _read(file), dict[tuple[str, ...], str]()
    for values, spelling in ((environment, _variable), (flags, _flag)):
        for key, value in values.items():
            table = tables(document)[key]
            if isinstance(raw.setdefault(table, {}), dict):
                raw[table][key] = _parsed(document, table, key, value)
            origins[table, key] = spelling(key)
    try:
        return document.model_validate(raw, context=file.parent)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ConfigError(_explain(wrong[0], document, origins, file) + more) from error


def tables(document: type[BaseModel]) -> dict[str, str]:
    """The table each setting is in, by key. Tables that repeat (`[[model]]`) have no such settings."""
    return {key: table for table, section in _sections(document).items() for key in section.model_fields}


def near(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest of the known names, else all of them."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; there is: {', '.join(known) or 'none'}"


def _sections(document: type[BaseModel]) -> dict[str, type[BaseModel]]:
    fields = {table: field.annotation for table, field in document.model_fields.items()}
    return {
        table: kind
        for table, kind in fields.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


def _variables(document: type[BaseModel]) -> dict[str, str]:
    """The setting's key for each environment variable, short and long."""
    short = {_variable(key): key for key in tables(document)}
    long = {_variable(f"{table}__{key}"): key for key, table in tables(document).items()}
    return short | long


def _variable(key: str) -> str:
    return PREFIX + key.upper()


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _parsed(document: type[BaseModel], table: str, key: str, value: Any) -> Any:
    """A flag or variable as TOML would hold it: lists split at commas, paths relative to where we run."""
    kind = _sections(document)[table].model_fields[key].annotation
    if kind is Path:
        return Path(os.path.expanduser(value)).absolute()
    if isinstance(value, str) and getattr(kind, "__origin__", None) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _explain(
    error: ErrorDetails, document: type[BaseModel], origins: Mapping[tuple[str, ...], str], file: Path
) -> str:
    """One wrong setting in a sentence: where it was given, what was given, what would be right."""
    loc = error["loc"]
    where = origins.get(tuple(map(str, loc[:2])), f"{file}: {_dotted(loc)}")
    match error["type"]:
        case "extra_forbidden":
            return f"{file}: unknown key {_dotted(loc)}{_near_key(loc, document)}"
        case "missing":
            return f"{where} is missing"
        case "model_type":
            return f"{where}: must be a table, [{_dotted(loc)}]"
        case "tuple_type" if len(loc) == 1:
            return f"{where}: must be a list of tables, [[{loc[0]}]]"
        case "value_error":
            return f"{where} = {error['input']!r}: {error['ctx']['error']}"
    return f"{where} = {error['input']!r}: {error['msg'].replace('Input should', 'must')}"


def _near_key(loc: tuple[int | str, ...], document: type[BaseModel]) -> str:
    """Names the table a known key belongs in, else the nearest key of the table it stands in."""
    key = str(loc[-1])
    if table := tables(document).get(key):
        return f"; it belongs in [{table}]"
    return near(key, _kind_at(loc[:-1], document).model_fields)


def _kind_at(loc: tuple[int | str, ...], kind: Any) -> type[BaseModel]:
    """The model that describes the table at `loc`: down through fields, and into a list's items."""
    for step in loc:
        kind = kind.__args__[0] if isinstance(step, int) else kind.model_fields[step].annotation
    found: type[BaseModel] = kind
    return found


def _dotted(loc: tuple[int | str, ...]) -> str:
    """`server.port`, `model[0].context`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).lstrip(".")

"""Where settings come from: flags, environment variables, a TOML file; and how a wrong one is told.

Works for any `Layered` settings whose fields are tables, and knows none of them by name. Every setting has
the environment variable `PILOTLIGHT_<NAME>`, and may have the flag `--<name>`. Its name is its key, after
the `prefix` of its table if that has one, and unique across tables; `PILOTLIGHT_<TABLE>__<KEY>` is the long
form of the variable.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from pilotlight.errors import ConfigError

PREFIX = "PILOTLIGHT_"
OTHERS = {PREFIX + "CONFIG", PREFIX + "MODEL"}  # --config and --model, which are no settings
D = TypeVar("D", bound="Layered")


def absolute(path: Path) -> Path:
    """From where we run: paths in a file come here relative to nothing, see `File`."""
    return Path(os.path.expanduser(path)).absolute()


AbsolutePath = Annotated[Path, AfterValidator(absolute)]


class Layered(BaseSettings):
    """Settings from flags over environment over file over defaults, made by `load`."""

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The flags are what `load` gives as values, next to what the other sources read."""
        flags = init_settings.init_kwargs
        return init_settings, Environment(cls, flags.pop("environ")), File(cls, flags.pop("file"))


class Environment(EnvSettingsSource):
    """The variables of `environ`, by short or long name; an empty one counts as not set."""

    def __init__(self, document: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(document)
        known = _variables(document)
        ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
        for name in sorted(ours.keys() - known.keys() - OTHERS):
            raise ConfigError(f"environment: unknown variable {name}{near(name, known.keys() | OTHERS)}")
        self.env_vars = {PREFIX + "__".join(known[name]): ours[name] for name in ours if name in known}

    def decode_complex_value(self, field_name: str, field: Any, value: str) -> list[str]:
        """Lists are separated by commas, and are all there is besides scalars."""
        return [part.strip() for part in value.split(",") if part.strip()]


class File(InitSettingsSource):
    """A TOML file, its relative paths put in the folder it is in."""

    def __init__(self, document: type[BaseSettings], file: Path) -> None:
        values = _read(file)
        for table in _sections(document):
            if not isinstance(values.get(table, {}), dict):  # another source's table would hide it
                raise ConfigError(f"{file}: {table}: must be a table, [{table}]")
        super().__init__(document, _anchored(values, document, file.parent))


def load(document: type[D], file: Path, environ: Mapping[str, str], flags: Mapping[str, Any]) -> D:
    """The validated settings: flags over environment over file over defaults. Raises `ConfigError`."""
    values: dict[str, Any] = {"file": file, "environ": environ}
    known = places(document)
    for name, value in flags.items():
        table, key = known[name]
        values.setdefault(table, {})[key] = value
    try:
        return document(**values)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        origins = {place: name for name, place in _variables(document).items() if environ.get(name)}
        origins |= {place: _flag(name) for name, place in known.items() if name in flags}
        raise ConfigError(_explain(wrong[0], document, origins, file) + more) from error


def places(document: type[BaseModel]) -> dict[str, tuple[str, str]]:
    """Table and key of each setting, by name. Tables that repeat (`[[model]]`) or stand in another one
    (`[classes.batch]`) have no such settings."""
    return {
        getattr(section, "prefix", "") + key: (table, key)
        for table, section in _sections(document).items()
        for key in section.model_fields.keys() - _sections(section).keys()
    }


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


def _variables(document: type[BaseModel]) -> dict[str, tuple[str, str]]:
    """The table and key that each environment variable sets, short names and long ones."""
    short = {PREFIX + name.upper(): place for name, place in places(document).items()}
    return short | {PREFIX + "__".join(place).upper(): place for place in short.values()}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _anchored(value: Any, kind: Any, folder: Path) -> Any:
    """The value with its relative paths, where a setting of this kind has any, put in the folder."""
    if isinstance(value, dict):
        fields = getattr(kind, "model_fields", {})
        kinds = {key: fields[key].annotation for key in value.keys() & fields.keys()}
        return {key: _anchored(inner, kinds.get(key), folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anchored(item, next(iter(get_args(kind)), None), folder) for item in value]
    is_path = Path in (kind, *get_args(kind)) and isinstance(value, str)
    return folder / os.path.expanduser(value) if is_path else value


def _explain(
    error: ErrorDetails, document: type[BaseModel], origins: Mapping[tuple[Any, ...], str], file: Path
) -> str:
    """One wrong setting in a sentence: where it was given, what was given, what would be right."""
    loc = error["loc"]
    where = origins.get(loc[:2], f"{file}: {_dotted(loc)}{_line(loc, file)}")
    given = "" if _is_secret(loc, document) else f" = {error['input']!r}"
    match error["type"]:
        case "extra_forbidden":
            return f"{file}: unknown key {_dotted(loc)}{_line(loc, file)}{_near_key(loc, document)}"
        case "missing":
            return f"{where} is missing"
        case "model_type":
            return f"{where}: must be a table, [{_dotted(loc)}]"
        case "tuple_type" if len(loc) == 1:
            return f"{where}: must be a list of tables, [[{loc[0]}]]"
        case "value_error" if isinstance(error["input"], dict | list | tuple):
            return f"{where}: {error['ctx']['error']}"
        case "value_error":
            return f"{where}{given}: {error['ctx']['error']}"
    return f"{where}{given}: {error['msg'].replace('Input should', 'must')}"


def _is_secret(loc: tuple[int | str, ...], document: type[BaseModel]) -> bool:
    """A value that is never to be seen: neither in a `repr` nor in an error."""
    kind: Any = document
    for step in loc:
        if isinstance(step, int):
            kind = next(iter(get_args(kind)), None)
            continue
        field = getattr(kind, "model_fields", {}).get(step)
        if field is not None and not field.repr:
            return True
        kind = field.annotation if field is not None else None
    return False


def _line(loc: tuple[int | str, ...], file: Path) -> str:
    """Where it stands, for one of several tables of a name: nobody counts those."""
    if len(loc) < 2 or not isinstance(loc[1], int):
        return ""
    header, key = re.compile(rf"\s*\[\[\s*{re.escape(str(loc[0]))}\s*\]\]"), re.escape(str(loc[-1]))
    lines = file.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if header.match(line)]
    if len(starts) <= loc[1]:
        return ""  # written as a list of inline tables
    first, last = [*starts, len(lines)][loc[1] : loc[1] + 2]
    named = [number for number in range(first, last) if re.search(rf"\b{key}\b", lines[number])]
    return f" (line {1 + (named[0] if len(loc) > 2 and named else first)})"


def _near_key(loc: tuple[int | str, ...], document: type[BaseModel]) -> str:
    """Names the table a known key belongs in, else the nearest key of the table it stands in."""
    key = str(loc[-1])
    if (place := places(document).get(key)) and len(loc) < 4:
        table, name = place
        return f"; it belongs in [{table}]{'' if name == key else f' as {name}'}"
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

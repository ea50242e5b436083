"""Settings: defaults < models.toml < environment (`PILOTLIGHT_*`) < flags, resolved once into a `Config`.

The only file that reads `os.environ`. Unknown keys and bad values stop the start, naming file, key and
the nearest valid name. Knows what settings mean, not how anything is done.
"""

import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pilotlight import sources
from pilotlight.core import Model
from pilotlight.errors import ConfigError, Error
from pilotlight.policy.settings import PolicySettings, RuleSettings
from pilotlight.registry import keep_alive
from pilotlight.registry.budget import AUTO, DEFAULT_RESERVE, Amount, Budget
from pilotlight.registry.formats import runtime_of
from pilotlight.registry.stores.found import Found
from pilotlight.registry.stores.names import LONGEST_NAME
from pilotlight.registry.stores.places import Place, places
from pilotlight.registry.stores.weights import weights_of
from pilotlight.runtimes.capabilities import CAPABILITIES, is_installed
from pilotlight.store.store import Store, Stored, short_name

BUILTIN = {"pilot": "pilot.gguf", "pilot-onnx": "pilot-onnx", "pilot-mlx": "pilot-mlx"}
"""The built-in models and their files; those of optional runtimes are there if their library is."""


def _absolute(path: Path) -> Path:
    """From where we run: paths in a file come here relative to nothing, see `sources.File`."""
    return Path(os.path.expanduser(path)).absolute()


def _amount(text: str) -> str:
    Amount.parse(text)
    return text


def _budget(text: str) -> str:
    Budget.parse(text)
    return text


def _duration(text: str) -> str:
    keep_alive.seconds(text)
    return text


def _text(value: Any) -> Any:
    """TOML has numbers where a variable has only text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Text = Annotated[str, BeforeValidator(_text)]
Duration = Annotated[Text, AfterValidator(_duration)]

Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerSettings(_Section):
    """[server]: where it listens and what it takes."""

    host: str = "127.0.0.1"
    port: int = Field(8710, ge=0, le=65535)
    state_dir: AbsolutePath = Field(default_factory=lambda: platformdirs.user_state_path("pilotlight"))
    store_dir: AbsolutePath = Field(default_factory=lambda: platformdirs.user_data_path("pilotlight"))
    download_stall_s: float = Field(30.0, gt=0)
    download_retry_s: float = Field(1.0, ge=0)
    builtin: bool = True
    body_limit: int = Field(8 * 2**20, ge=1024)
    upload_limit: int = Field(200 * 2**20, ge=1024)
    queue: int = Field(64, ge=0)
    unknown_fields: Literal["refuse", "warn"] = "refuse"
    drain_s: float = Field(30.0, ge=0)
    accept_s: float = Field(10.0, ge=0)
    keepalive_s: float = Field(10.0, gt=0)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("host")
    @classmethod
    def _is_loopback(cls, host: str) -> str:
        if host == "localhost" or _is_loopback_address(host):
            return host
        raise ValueError(
            "must be a loopback address (127.0.0.1, ::1 or localhost): "
            "any other needs an API key, which this version does not have yet"
        )


class MemorySettings(_Section):
    """[memory]: what all workers together may hold; see `registry.budget`."""

    prefix: ClassVar[str] = "memory_"

    budget: Annotated[Text, AfterValidator(_budget)] = AUTO
    reserve: Annotated[Text, AfterValidator(_amount)] = DEFAULT_RESERVE


class PowerSettings(_Section):
    """[power]: where the machine is looked at; see `power.machine`."""

    prefix: ClassVar[str] = "power_"

    root: AbsolutePath = Path("/")


class DefaultsSettings(_Section):
    """[defaults]: what a model that says nothing gets. 0 lets the worker choose."""

    context: int = Field(0, ge=0, le=2**24)
    parallel: int = Field(0, ge=0, le=64)
    threads: int = Field(0, ge=0, le=1024)
    load_s: float = Field(300.0, gt=0)
    keep_alive: Duration = "15m"


class CatalogSettings(_Section):
    """[catalog]: where models are found that have no table; see `registry.stores.places`."""

    stores: tuple[Literal["huggingface", "ollama", "lmstudio"], ...] = ("huggingface", "ollama", "lmstudio")
    model_dirs: tuple[Path, ...] = Field(default_factory=lambda: (_absolute(Path("~/models")),))

    @field_validator("model_dirs")
    @classmethod
    def _are_absolute(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(map(_absolute, folders))


class ClassSettings(_Section):
    """[classes.background] and its like: whose requests are of the class; see `api.classes`."""

    agents: tuple[str, ...] = ()
    keys: tuple[str, ...] = Field((), repr=False)


class ClassesSettings(_Section):
    """[classes]: the class of requests that do not say one."""

    interactive: ClassSettings = ClassSettings()
    background: ClassSettings = ClassSettings()
    batch: ClassSettings = ClassSettings()


class SamplingSettings(_Section):
    """[model.sampling]: values for the sampling fields a request leaves out; see `core.Sampling`."""

    temperature: float = Field(0.8, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(40, ge=0)
    min_p: float = Field(0.05, ge=0, le=1)
    typical_p: float = Field(1.0, gt=0, le=1)
    repeat_penalty: float = Field(1.0, gt=0, le=10)


class ModelSettings(_Section):
    """[[model]]: one model to serve; a limit it leaves out comes from [defaults]."""

    name: Name
    aliases: tuple[Name, ...] = ()
    source: str = ""
    path: Path | None = Field(None, validate_default=True)
    runtime: Literal["llamacpp", "onnx", "mlx", "echo"] | None = None
    context: int | None = Field(None, ge=0, le=2**24)
    parallel: int | None = Field(None, ge=0, le=64)
    threads: int | None = Field(None, ge=0, le=1024)
    chat_template: str | None = None
    provider: str = "auto"
    pin: bool = False
    keep_alive: Duration | None = None
    small: Name | None = None
    sampling: SamplingSettings = SamplingSettings()

    @field_validator("source")
    @classmethod
    def _is_reference(cls, source: str) -> str:
        from pilotlight.store import reference  # not for those who have no source

        try:
            return str(reference.parse(source)) if source else ""
        except Error as exc:
            raise ValueError(exc.message) from exc

    @field_validator("path")
    @classmethod
    def _is_path_or_source(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None and info.data.get("source") == "":
            raise PydanticCustomError("missing", "Field required")
        if path is not None and info.data.get("source"):
            raise ValueError("there is a source already, and a model has one of the two")
        return None if path is None else _absolute(path)


class Document(sources.Layered):
    """What models.toml may hold. Settings outside [[model]] have unique names (see `sources`)."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    memory: MemorySettings = MemorySettings()
    power: PowerSettings = PowerSettings()
    defaults: DefaultsSettings = DefaultsSettings()
    catalog: CatalogSettings = Field(default_factory=CatalogSettings)
    classes: ClassesSettings = ClassesSettings()
    policy: PolicySettings = PolicySettings()
    rule: tuple[RuleSettings, ...] = ()
    model: tuple[ModelSettings, ...] = ()

    @field_validator("rule")
    @classmethod
    def _have_own_names(cls, rules: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        names = [rule.name for rule in rules]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two rules are named {twice[0]!r}")
        return rules


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, resolved; nobody else looks at files, the environment or flags.

    `models` are the built-in one, those of models.toml and the paths given by `--model`; `preload` names
    the ones `--model` chose, to be loaded at start; `file` is the configuration file that was read. More
    models may be in `places`.
    """

    server: ServerSettings = field(default_factory=ServerSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    power: PowerSettings = field(default_factory=PowerSettings)
    defaults: DefaultsSettings = field(default_factory=DefaultsSettings)
    classes: ClassesSettings = field(default_factory=ClassesSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    rules: tuple[RuleSettings, ...] = ()
    models: tuple[ModelSettings, ...] = ()
    preload: tuple[str, ...] = ()
    file: Path | None = None
    places: tuple[Place, ...] = ()
    read_again: Callable[[], "Config"] | None = field(default=None, compare=False, repr=False)
    """The same flags and variables over the file as it is now. Raises `ConfigError`."""

    @property
    def state_dir(self) -> Path:
        return self.server.state_dir

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        config_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "Config":
        """Read every source once. `flags` are settings by key (None: not given), and `model`, a sequence.

        Raises `ConfigError` for anything unknown or wrong.
        """
        environ = os.environ if environ is None else environ
        given = {key: value for key, value in (flags or {}).items() if value not in (None, ())}
        chosen = given.pop("model", None) or environ.get("PILOTLIGHT_MODEL", "").split(os.pathsep)
        file = _find_file(config_file or environ.get("PILOTLIGHT_CONFIG"))
        document = sources.load(Document, file, environ, given)
        found_in = places(document.catalog.stores, document.catalog.model_dirs, environ, Path.home())
        known = _with_builtin(document)
        pulled = _pulled(known, Store(document.server.store_dir).models())
        picked = [_pick(value, [*known, *pulled], found_in) for value in chosen if value]
        config = cls(
            server=document.server,
            memory=document.memory,
            power=document.power,
            defaults=document.defaults,
            classes=document.classes,
            policy=document.policy,
            rules=document.rule,
            # What was pulled may change while the daemon runs: `models` looks again.
            models=_unique([*known, *(entry for entry in picked if entry not in pulled)]),
            preload=tuple(entry.name for entry in _unique(picked)),
            file=file,
            places=found_in,
            read_again=partial(cls.resolve, flags, config_file=config_file, environ=environ),
        )
        _check_small(config, [*known, *pulled])
        for name in sorted(set(config.preload) & set(unpulled(config))):
            raise ConfigError(f"--model {name}: it is not pulled yet; `pilotlight pull {name}` gets it")
        return config


def models(config: Config) -> list[Model]:
    """The models to serve, also those pulled by now, with the limits of [defaults] they did not set.

    Raises `ConfigError` for a setting that a model's runtime cannot honour.
    """
    stored = Store(config.server.store_dir).models()
    paths = {one.name: one.path for one in stored}
    entries = [*config.models, *_pulled(config.models, stored)]
    found = [(entry, entry.path or paths.get(entry.name)) for entry in entries]
    return [_model(entry, path, config.defaults) for entry, path in found if path is not None]


def unpulled(config: Config) -> list[str]:
    """The names and aliases of models whose source is configured, and which were never pulled."""
    there = {one.name for one in Store(config.server.store_dir).models()}
    missing = [entry for entry in config.models if entry.path is None and entry.name not in there]
    return [name for entry in missing for name in (entry.name, *entry.aliases)]


def model_at(config: Config, name: str, path: Path) -> Model:
    """A model that lies at this path, with the settings that the configuration has for its name."""
    entry = next((entry for entry in config.models if entry.name == name), None)
    return _model(entry or ModelSettings(name=name, path=path), path, config.defaults)


def found_model(found: Found, name: str, defaults: DefaultsSettings) -> Model:
    """A model that a store has, as if it had a table with this name."""
    return replace(_model(_table(found, name), found.path, defaults), store=found.store)


def reference() -> Path:
    """The commented reference models.toml: inside the package, or above it in a source checkout."""
    packaged = Path(__file__).with_name("models.toml")
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "models.toml"


def user_file() -> Path:
    """Where the user's own models.toml is looked for."""
    return platformdirs.user_config_path("pilotlight") / "models.toml"


def _find_file(chosen: Path | str | None) -> Path:
    if chosen:
        return _absolute(Path(chosen))
    return user_file() if user_file().is_file() else reference()


def _with_builtin(document: Document) -> list[ModelSettings]:
    if not document.server.builtin:
        return list(document.model)
    folder = Path(str(resources.files("pilotlight"))) / "builtin"
    greedy = SamplingSettings(temperature=0)
    files = {name: folder / file for name, file in BUILTIN.items() if is_installed(runtime_of(folder / file))}
    builtin = [ModelSettings(name=name, path=path, sampling=greedy) for name, path in files.items()]
    return [*builtin, *document.model]


def _pulled(known: Iterable[ModelSettings], stored: Iterable[Stored]) -> list[ModelSettings]:
    """Entries for what was pulled and has none, with its short name as an alias if nobody else has it."""
    taken = {name for entry in known for name in (entry.name, *entry.aliases)}
    new = [one for one in stored if one.name not in taken]
    taken |= {one.name for one in new}
    entries = []
    for one in new:
        aliases = {short_name(one.name)} - taken
        taken |= aliases
        entries.append(ModelSettings(name=one.name, aliases=tuple(aliases), path=one.path))
    return entries


def _pick(value: str, entries: list[ModelSettings], found_in: tuple[Place, ...]) -> ModelSettings:
    """The entry a `--model` value means: a known name, a path, or a name that a store has.

    A path is served under its file name. What the file holds is the worker's business: a damaged one must not
    stop the other models.
    """
    named = {name: entry for entry in entries for name in (entry.name, *entry.aliases)}
    if value in named:
        return named[value]
    path = _absolute(Path(value))
    if path.exists():
        entry = ModelSettings(name=path.name.removesuffix(".gguf"), path=path)
        known = named.get(entry.name)
        return known if known is not None and known.path == path else entry
    if (found := _look(value, found_in)) is not None:
        return found
    raise ConfigError(
        f"--model {value}: no such file, and no model has that name{sources.near(value, named)}"
    )


def _check_small(config: Config, entries: list[ModelSettings]) -> None:
    """Every `small` is a model's name: it must not be missing when the policy needs it."""
    names = {name for entry in entries for name in (entry.name, *entry.aliases)}
    for entry in entries:
        if entry.small is not None and entry.small not in names and not _look(entry.small, config.places):
            raise ConfigError(
                f"{config.file}: model {entry.name!r}: small = {entry.small!r}: no model has that name"
                + sources.near(entry.small, names - {entry.name, *entry.aliases})
            )


def _look(name: str, found_in: tuple[Place, ...]) -> ModelSettings | None:
    """What a store has under this name. Costs a look into all of them."""
    from pilotlight.registry.stores.scan import scan  # which needs what is defined here

    found = next((one for one in scan(found_in).found if name in one.names), None)
    return None if found is None else _table(found, name)


def _table(found: Found, name: str) -> ModelSettings:
    sampling = SamplingSettings.model_validate(found.sampling)
    return ModelSettings(name=name, path=found.path, sampling=sampling)


def _unique(entries: list[ModelSettings]) -> tuple[ModelSettings, ...]:
    """The entries without repetitions. Two different ones of one name, or alias, are a `ConfigError`."""
    by_name: dict[str, ModelSettings] = {}
    for entry in entries:
        for name in (entry.name, *entry.aliases):
            if by_name.setdefault(name, entry) != entry:
                raise ConfigError(
                    f"two models are named {name!r}: {by_name[name].path} and {entry.path}; "
                    "give one of them another name in a [[model]] table"
                )
    return tuple({entry.name: entry for entry in by_name.values()}.values())


def _model(entry: ModelSettings, path: Path, defaults: DefaultsSettings) -> Model:
    runtime = entry.runtime or runtime_of(path)
    capabilities = CAPABILITIES[runtime]
    for name in sorted(entry.sampling.model_fields_set.difference(capabilities.sampling)):
        raise ConfigError(f"model {entry.name!r}: sampling.{name} is not supported by {runtime}")
    if entry.threads and not capabilities.threads:
        raise ConfigError(f"model {entry.name!r}: threads is not supported by {runtime}")
    providers = ("auto", *capabilities.providers)
    if entry.provider not in providers:
        raise ConfigError(
            f"model {entry.name!r}: provider {entry.provider!r} is not supported by {runtime}; "
            f"there is: {', '.join(providers)}"
        )
    threads = defaults.threads if entry.threads is None else entry.threads
    return Model(
        name=entry.name,
        path=path,
        runtime=runtime,
        aliases=entry.aliases,
        context=defaults.context if entry.context is None else entry.context,
        parallel=defaults.parallel if entry.parallel is None else entry.parallel,
        threads=threads if capabilities.threads else 0,
        chat_template=entry.chat_template,
        provider=entry.provider,
        pin=entry.pin,
        small=entry.small,
        keep_alive_s=keep_alive.seconds(entry.keep_alive or defaults.keep_alive),
        sampling=entry.sampling.model_dump(include=set(capabilities.sampling)),
        created=int(path.stat().st_mtime) if path.exists() else 0,
        capabilities=capabilities,
        bytes_disk=sum(file.stat().st_size for file in weights_of(path)),
    )


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

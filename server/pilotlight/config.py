"""Settings: defaults < models.toml < environment (`PILOTLIGHT_*`) < flags, resolved once into a `Config`.

The only file that reads settings from `os.environ`. Unknown keys and bad values stop the start, naming
file, key and the nearest valid name. Knows what settings mean, not how anything is done.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pydantic import ValidationError

from pilotlight import sources
from pilotlight.core import Model, RequestClass
from pilotlight.errors import ConfigError
from pilotlight.loading import loading
from pilotlight.policy.settings import PolicySettings, RuleSettings
from pilotlight.registry import keep_alive, memory
from pilotlight.registry.budget import Amount
from pilotlight.registry.description import EFFICIENT, written
from pilotlight.registry.formats import DEFAULT, MARKS, runtime_of
from pilotlight.registry.stores.found import Found
from pilotlight.registry.stores.places import Place, places
from pilotlight.registry.stores.weights import bytes_of, changed, is_whole
from pilotlight.runtimes.capabilities import CAPABILITIES, is_installed
from pilotlight.runtimes.kv_types import AUTO
from pilotlight.settings import (
    NO_CAP,
    PLACES,
    ClassesSettings,
    DefaultsSettings,
    Document,
    MemorySettings,
    ModelSettings,
    PowerSettings,
    SamplingSettings,
    ServerSettings,
)
from pilotlight.sources import absolute
from pilotlight.store.store import Store, Stored, short_name

BUILTIN = {"pilot": "pilot.gguf", "pilot-onnx": "pilot-onnx", "pilot-mlx": "pilot-mlx"}
"""The built-in models and their files; those of optional runtimes are there if their library is."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, resolved; nobody else looks at files, the environment or flags.

    `models` are the built-in one, those of models.toml and the paths given by `--model`; `preload` names
    the ones `--model` chose, to be loaded at start, and `missing` tells of those it chose and nobody has;
    `file` is the configuration file that was read. More models may be in `places`.
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
    missing: tuple[str, ...] = ()
    file: Path | None = None
    places: tuple[Place, ...] = ()
    read_again: Callable[[], "Config"] | None = field(default=None, compare=False, repr=False)
    """The same flags and variables over the file as it is now. Raises `ConfigError`."""

    @property
    def state_dir(self) -> Path:
        return self.server.state_dir

    def environ(self) -> dict[str, str]:
        """For another process of ours: our variables, with what flags said of models, folders and memory."""
        given = {
            "STATE_DIR": self.server.state_dir,
            "STORE_DIR": self.server.store_dir,
            "CONFIG": self.file,
            "MEMORY_BUDGET": self.memory.budget,
            "MEMORY_RESERVE": self.memory.reserve,
        }
        ours = {f"PILOTLIGHT_{key}": str(value) for key, value in given.items() if value is not None}
        chosen = [str(one.path or one.name) for one in self.models if one.name in self.preload]
        chosen = [one for one in chosen if "," not in one]  # it could not be told from two
        return os.environ | ours | {"PILOTLIGHT_MODEL": ",".join(chosen)}

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        config_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "Config":
        """Read every source once. `flags` are settings by key (None: not given), and `model`, a sequence.

        Raises `ConfigError` for anything unknown, wrong or out of reach, but not for a model that is not
        there: the command may be the one that gets it, see `check_preload`.
        """
        environ = os.environ if environ is None else environ
        given = {key: value for key, value in (flags or {}).items() if value not in (None, ())}
        chosen = given.pop("model", None) or map(str.strip, environ.get("PILOTLIGHT_MODEL", "").split(","))
        file = _find_file(config_file or environ.get("PILOTLIGHT_CONFIG"))
        document = sources.load(Document, file, environ, given)
        found_in = places(document.catalog.stores, document.catalog.model_dirs, environ, Path.home())
        known = _with_builtin(document)
        pulled = _pulled(known, _stored(document.server.store_dir))
        named = {name: entry for entry in (*known, *pulled) for name in (entry.name, *entry.aliases)}
        known_picks = {value: _pick(value, named) for value in chosen if value}
        picks = {value: entry or _look(value, found_in) for value, entry in known_picks.items()}
        picked = [entry for entry in picks.values() if entry is not None]
        config = cls(
            server=document.server,
            memory=document.memory,
            power=document.power,
            defaults=document.defaults,
            classes=document.classes,
            policy=document.policy,
            rules=document.rule,
            # What was pulled, or is in a store, may change while the daemon runs: others look again.
            models=_unique([*known, *(one for one in known_picks.values() if one and one not in pulled)]),
            preload=tuple(entry.name for entry in _unique(picked)),
            missing=tuple(
                f"--model {value}: no such file, and no model has that name{sources.near(value, named)}"
                for value, entry in picks.items()
                if entry is None
            ),
            file=file,
            places=found_in,
            read_again=partial(cls.resolve, flags, config_file=config_file, environ=environ),
        )
        _check_small(config, [*known, *pulled])
        return config


def models(config: Config, known: Iterable[Model] = ()) -> list[Model]:
    """The models to serve, also those pulled by now, with the limits they did not set themselves.

    Files that are away, with their disk perhaps, are taken for what they are in `known`, the models before.
    Raises `ConfigError` for a setting that a model's runtime cannot honour, and for a store out of reach.
    """
    stored = _stored(config.server.store_dir)
    paths = {one.name: one.path for one in stored}
    entries = [*config.models, *_pulled(config.models, stored)]
    found = [(entry, entry.path or paths.get(entry.name)) for entry in entries]
    before = {(model.name, model.path): model for model in known}
    return [
        _model(entry, path, config, before.get((entry.name, path)))
        for entry, path in found
        if path is not None
    ]


def unpulled(config: Config) -> list[str]:
    """The names and aliases of models whose source is configured, and which were never pulled.

    Raises `ConfigError` for a store out of reach.
    """
    there = {one.name for one in _stored(config.server.store_dir)}
    missing = [entry for entry in config.models if entry.path is None and entry.name not in there]
    return [name for entry in missing for name in (entry.name, *entry.aliases)]


def check_preload(config: Config) -> None:
    """Whether what is to be loaded at start is there. Raises `ConfigError` if it is not."""
    if config.missing:
        raise ConfigError(config.missing[0])
    for name in sorted(set(config.preload) & set(unpulled(config))):
        raise ConfigError(f"--model {name}: it is not pulled yet; `pilotlight pull {name}` gets it")


def model_at(config: Config, name: str, path: Path) -> Model:
    """A model that lies at this path, with the settings that the configuration has for its name."""
    entry = next((entry for entry in config.models if entry.name == name), None)
    return _model(entry or _unlisted(name, path), path, config)


def found_model(found: Found, name: str, config: Config) -> Model:
    """A model that a store has, as if it had a table with this name."""
    return replace(_model(_table(found, name), found.path, config), store=found.store)


def reference() -> Path:
    """The commented reference models.toml: inside the package, or above it in a source checkout."""
    packaged = Path(__file__).with_name("models.toml")
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "models.toml"


def user_file() -> Path:
    """Where the user's own models.toml is looked for."""
    return PLACES.user_config_path / "models.toml"


def _find_file(chosen: Path | str | None) -> Path:
    if chosen:
        return absolute(Path(chosen))
    file = user_file()
    with _in_reach(file), suppress(FileNotFoundError, NotADirectoryError):
        file.stat()  # `is_file` would say of some errors, in later Pythons of all, that there is none
        return file
    return reference()


def _stored(store_dir: Path) -> list[Stored]:
    """What was pulled."""
    with _in_reach(store_dir):
        return Store(store_dir).models()


@contextmanager
def _in_reach(path: Path) -> Iterator[None]:
    """Raises `ConfigError` for whatever the system does not let us see there."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"{written(path)} cannot be used: {exc.strerror or exc}") from exc


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


def _pick(value: str, named: Mapping[str, ModelSettings]) -> ModelSettings | None:
    """The entry a `--model` value means: a known name, or a path; None: neither.

    A path is served under its file name. What the file holds is the worker's business: a damaged one must not
    stop the other models.
    """
    if value in named:
        return named[value]
    path = absolute(Path(value))
    if os.path.exists(path):
        entry = _unlisted(path.name.removesuffix(".gguf"), path)
        known = named.get(entry.name)
        return known if known is not None and known.path == path else entry
    return None


def _unlisted(name: str, path: Path) -> ModelSettings:
    """The entry of a file or folder that has no table. Raises `ConfigError` if no model can have its name."""
    try:
        return ModelSettings(name=name, path=path)
    except ValidationError as exc:
        raise ConfigError(
            f"{written(path)} has no name that a model can have; give it one in a [[model]] table, "
            "or by a link to it"
        ) from exc


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
    from pilotlight.registry.stores.scan import scan  # only for names that nothing else has

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


def _bytes_of(cap: str) -> int | None:
    """None: there is none."""
    return None if cap == NO_CAP else Amount.parse(cap).of(memory.read().bytes_total)


def _runtime(entry: ModelSettings, path: Path) -> str:
    """Of what is away. If it may be a folder nobody knows it: until it comes, the first that can what its
    table wants."""
    runtime = entry.runtime or runtime_of(path)
    if entry.runtime or runtime != DEFAULT or path.suffix.casefold() == ".gguf":
        return runtime
    return next((one for one in (DEFAULT, *MARKS) if _suits(entry, one)), DEFAULT)


def _suits(entry: ModelSettings, runtime: str) -> bool:
    try:
        _check(entry, runtime)
        loading(entry.name, entry, runtime, AUTO)
    except ConfigError:
        return False
    return True


def _check(entry: ModelSettings, runtime: str) -> None:
    """Raises `ConfigError` for what the table of the model wants and the runtime cannot."""
    capabilities = CAPABILITIES[runtime]
    for name in sorted(entry.sampling.model_fields_set.difference(capabilities.sampling)):
        raise ConfigError(f"model {entry.name!r}: sampling.{name} is not supported by {runtime}")
    if entry.threads and not capabilities.threads:
        raise ConfigError(f"model {entry.name!r}: threads is not supported by {runtime}")
    if entry.threads == EFFICIENT and not capabilities.live_threads:
        raise ConfigError(
            f"model {entry.name!r}: threads = {EFFICIENT!r} is not supported by {runtime}, which cannot "
            "change their number to find out how many are enough; a number is"
        )
    providers = ("auto", *capabilities.providers)
    if entry.provider not in providers:
        raise ConfigError(
            f"model {entry.name!r}: provider {entry.provider!r} is not supported by {runtime}; "
            f"there is: {', '.join(providers)}"
        )


def _model(entry: ModelSettings, path: Path, config: Config, before: Model | None = None) -> Model:
    """`before` is the model that this entry was, if it was one."""
    if is_whole(path):
        runtime, created, bytes_disk = entry.runtime or runtime_of(path), changed(path), bytes_of(path)
    elif before is None or not before.bytes_disk:
        runtime, created, bytes_disk = _runtime(entry, path), 0, 0
    else:
        runtime, created, bytes_disk = entry.runtime or before.runtime, before.created, before.bytes_disk
    _check(entry, runtime)
    defaults, capabilities = config.defaults, CAPABILITIES[runtime]
    threads = defaults.threads if entry.threads is None else entry.threads
    return Model(
        name=entry.name,
        path=path,
        runtime=runtime,
        aliases=entry.aliases,
        context=defaults.context if entry.context is None else entry.context,
        parallel=defaults.parallel if entry.parallel is None else entry.parallel,
        threads=threads if capabilities.threads and isinstance(threads, int) else 0,
        is_efficient=threads == EFFICIENT and capabilities.live_threads,
        chat_template=entry.chat_template,
        provider=entry.provider,
        loading=loading(
            entry.name, entry, runtime, defaults.kv_cache_type, before.loading if before else None
        ),
        memory=_bytes_of(entry.memory or config.memory.per_model),
        pin=entry.pin,
        small=entry.small,
        concurrency={RequestClass(one): most for one, most in entry.concurrency if most is not None},
        keep_alive_s=keep_alive.seconds(entry.keep_alive or defaults.keep_alive),
        sampling=entry.sampling.model_dump(include=set(capabilities.sampling)),
        created=created,
        capabilities=capabilities,
        bytes_disk=bytes_disk,
    )

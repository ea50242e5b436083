"""What may be written in models.toml, section by section, and in variables and flags by the same names.

Says which values are taken, with their defaults; `config` resolves where they come from, and what they mean
together.
"""

import ipaddress
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from platformdirs import PlatformDirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pilotlight import sources
from pilotlight.errors import Error
from pilotlight.loading import KvCacheType, LoadingSettings
from pilotlight.policy.settings import PolicySettings, RuleSettings
from pilotlight.registry import archive, keep_alive, keys
from pilotlight.registry.budget import AUTO, DEFAULT_RESERVE, Amount, Budget
from pilotlight.registry.description import EFFICIENT
from pilotlight.registry.stores.names import LONGEST_NAME
from pilotlight.sources import AbsolutePath, absolute

NO_CAP = "none"

PLACES = PlatformDirs("pilotlight", appauthor=False)
"""Where the user's settings, state and models are by default. With an author Windows has a folder more."""


def _amount(text: str) -> str:
    Amount.parse(text)
    return text


def _cap(text: str) -> str:
    return text if text == NO_CAP else _amount(text)


def _budget(text: str) -> str:
    Budget.parse(text)
    return text


def _duration(text: str) -> str:
    keep_alive.seconds(text)
    return text


def _disk_bytes(text: str) -> str:
    archive.parse_bytes(text)
    return text


def _limited(text: str) -> str:
    wrong = 'must be seconds or a duration ("7d", "12h") of more than 0'
    if not 0 < keep_alive.seconds(text, wrong) < math.inf:
        raise ValueError(wrong)
    return text


def _key(text: str) -> str:
    if not keys.is_key(text):
        raise ValueError(
            f"must have {keys.SHORTEST} to {keys.LONGEST} letters, digits or signs, no spaces and commas"
        )
    return text


def _text(value: Any) -> Any:
    """TOML has numbers where a variable has only text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


MOST_THREADS = 1024


def _threads(value: Any) -> Any:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    is_number = isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MOST_THREADS
    if not (is_number or value == EFFICIENT):
        raise ValueError(
            f"must be a number of threads up to {MOST_THREADS} (0: the worker chooses), or {EFFICIENT!r}"
        )
    return number


Text = Annotated[str, BeforeValidator(_text)]
ThreadCount = Annotated[int | Literal["efficient"], PlainValidator(_threads)]
Key = Annotated[str, AfterValidator(_key)]
Duration = Annotated[Text, AfterValidator(_duration)]

Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class ServerSettings(_Section):
    """[server]: where it listens and what it takes."""

    api_keys: tuple[Key, ...] = Field((), repr=False)
    host: str = "127.0.0.1"
    port: int = Field(8710, ge=0, le=65535)
    state_dir: AbsolutePath = Field(default_factory=lambda: PLACES.user_state_path)
    store_dir: AbsolutePath = Field(default_factory=lambda: PLACES.user_data_path)
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
    def _is_guarded(cls, host: str, info: ValidationInfo) -> str:
        if is_loopback(host):
            return host
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError("must be an address of this machine, or its name") from None
        if info.data.get("api_keys"):
            return host
        raise ValueError(
            "must be a loopback address (127.0.0.1, ::1 or localhost): any other needs an API key, "
            "in server.api_keys or PILOTLIGHT_API_KEYS"
        )


class MemorySettings(_Section):
    """[memory]: what all workers together may hold; see `registry.budget`."""

    prefix: ClassVar[str] = "memory_"

    budget: Annotated[Text, AfterValidator(_budget)] = AUTO
    reserve: Annotated[Text, AfterValidator(_amount)] = DEFAULT_RESERVE
    per_model: Annotated[Text, AfterValidator(_cap)] = NO_CAP
    conversations: Annotated[Text, AfterValidator(_disk_bytes)] = "2GiB"
    conversations_for: Annotated[Text, AfterValidator(_limited)] = "7d"


class PowerSettings(_Section):
    """[power]: where the machine is looked at; see `power.machine`."""

    prefix: ClassVar[str] = "power_"

    root: AbsolutePath = Path("/")
    watts_per_core: float = Field(0.0, ge=0, le=1000)


class DefaultsSettings(_Section):
    """[defaults]: what a model that says nothing gets. 0 lets the worker choose."""

    context: int = Field(0, ge=0, le=2**24)
    parallel: int = Field(0, ge=0, le=64)
    threads: ThreadCount = 0
    kv_cache_type: KvCacheType = "auto"
    load_s: float = Field(300.0, gt=0)
    keep_alive: Duration = "15m"


class CatalogSettings(_Section):
    """[catalog]: where models are found that have no table; see `registry.stores.places`."""

    stores: tuple[Literal["huggingface", "ollama", "lmstudio"], ...] = ("huggingface", "ollama", "lmstudio")
    model_dirs: tuple[Path, ...] = Field(default_factory=lambda: (absolute(Path("~/models")),))

    @field_validator("model_dirs")
    @classmethod
    def _are_absolute(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(map(absolute, folders))


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


class ConcurrencySettings(_Section):
    """[model.concurrency]: answers of a class that a model generates side by side; see `core.Model`."""

    interactive: int | None = Field(None, ge=1, le=64)
    background: int | None = Field(None, ge=1, le=64)
    batch: int | None = Field(None, ge=1, le=64)


class ModelSettings(_Section, LoadingSettings):
    """[[model]]: one model to serve; a limit it leaves out comes from [defaults]."""

    name: Name
    aliases: tuple[Name, ...] = ()
    source: str = Field("", repr=False)  # a URL may have a password or a signature in it
    path: Path | None = Field(None, validate_default=True)
    runtime: Literal["llamacpp", "onnx", "mlx", "echo"] | None = None
    context: int | None = Field(None, ge=0, le=2**24)
    parallel: int | None = Field(None, ge=0, le=64)
    threads: ThreadCount | None = None
    chat_template: str | None = None
    provider: str = "auto"
    memory: Annotated[Text, AfterValidator(_cap)] | None = None
    pin: bool = False
    keep_alive: Duration | None = None
    small: Name | None = None
    sampling: SamplingSettings = SamplingSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()

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
        return None if path is None else absolute(path)


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


def is_loopback(host: str) -> bool:
    """It means this machine, by name or by address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The values every part speaks in: requests, chunks, models, notices.

Frozen and free of behaviour beyond what follows from their own fields. Knows nothing of HTTP,
processes, clocks or runtimes; everything else may import it.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

LULL_S = 0.05
"""Without a request for so long: a program's next one mostly comes sooner, a person's never does."""


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """The model ended its turn, or a stop string matched."""
    LENGTH = "length"
    """`max_tokens` or the end of the context was reached."""


class Sampling(Struct, frozen=True):
    """How the next token is chosen; defaults leave the model's distribution as it is.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and `typical_p` 1 switch that filter
    off. `repeat_penalty` divides the logits of the last `repeat_last_n` prompt and answer tokens;
    `presence_penalty` and `frequency_penalty` count answer tokens only, as OpenAI defines them.
    `seed` None draws a fresh one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


class Prompt(Struct, frozen=True):
    """What the model is asked: exactly one of chat `messages`, plain `text` or `tokens`.

    `template_kwargs` are extra variables for the model's chat template (`enable_thinking`, ...).
    """

    messages: tuple[Mapping[str, Any], ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


class RequestClass(StrEnum):
    """How urgent a request is, the most urgent first."""

    INTERACTIVE = "interactive"
    """Somebody waits for it: it goes first everywhere."""
    BACKGROUND = "background"
    """It runs while nothing interactive does."""
    BATCH = "batch"
    """The same, behind what is in the background."""

    @property
    def yields(self) -> bool:
        """It is paused while an interactive request wants the machine."""
        return self is not RequestClass.INTERACTIVE


RANKS = {request_class: rank for rank, request_class in enumerate(RequestClass)}
"""Of the classes; smaller goes first."""


class Request(Struct, frozen=True):
    """One validated request of a client; `n` answers (sequences) share its prompt.

    One for no answers (`n` = 0) only wants the model loaded. `keep_alive_s` is how long the model stays
    loaded afterwards; None leaves that as it is. `client` tells who asks apart, and
    nothing else of them.
    """

    id: str
    model: str
    prompt: Prompt
    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    ignore_eos: bool = False
    cache_prompt: bool = True
    keep_alive_s: float | None = None
    context: int | None = None
    """Tokens of prompt and answer together, if they are to be fewer than the model's context holds."""
    request_class: RequestClass = RequestClass.INTERACTIVE
    client: str = ""
    is_overridden: bool = False
    """Its client wants it done whatever the policy says, short of what is critical."""
    app: str = ""
    """The program that asks, by the name it gives itself."""
    side_by_side: int | None = None
    """Answers of its class that its model generates side by side, at most; None for any number."""

    @property
    def rank(self) -> int:
        """Of its class: smaller goes first."""
        return RANKS[self.request_class]

    @property
    def yields(self) -> bool:
        """See `RequestClass.yields`."""
        return self.request_class.yields


class Accepted(Struct, frozen=True):
    """First thing a request hears: it passed the worker's checks and has `prompt_tokens` tokens."""

    prompt_tokens: int


class Chunk(Struct, frozen=True):
    """A piece of answer number `index`: `text` made of `tokens` new tokens (text may lag behind tokens). The
    first one has `cached_tokens` as `Finished` has them."""

    index: int
    text: str
    tokens: int
    cached_tokens: int = 0


class Finished(Struct, frozen=True):
    """Answer number `index` ended. `cached_tokens` of the prompt were reused instead of computed."""

    index: int
    reason: FinishReason
    completion_tokens: int
    cached_tokens: int


class Capabilities(Struct, frozen=True):
    """What a runtime does beyond generating text; declared by each runtime, once."""

    sampling: tuple[str, ...] = ()
    """The fields of `Sampling` that it honours."""
    threads: bool = False
    """Its number of threads can be chosen."""
    live_threads: bool = False
    """It can be changed while a model is loaded."""
    providers: tuple[str, ...] = ()
    """What may compute a model, besides `auto`; each machine has some of them."""
    kv_cache_types: tuple[str, ...] = ()
    """What keys and values may be kept in, besides `auto`."""
    mmap: bool = False
    """Whether the file is mapped can be chosen."""
    gpu_layers: bool = False
    """How many layers a GPU gets can be chosen."""
    lora: bool = False
    """It can add LoRA adapters."""


class Lora(Struct, frozen=True):
    """An adapter: small matrices that are added to a model's own, `scale` times."""

    path: str
    scale: float = 1.0
    created: int = 0
    """Unix seconds; the file's modification time."""


class Loading(Struct, frozen=True):
    """How a model is loaded where its runtime leaves a choice, as its `Capabilities` say."""

    kv_cache_type: str = "auto"
    """See `runtimes.kv_types`."""
    mmap: bool | None = None
    """The file is mapped instead of read; None: as the mode of the crash ladder and the weights want it."""
    gpu_layers: int = -1
    """Layers that a GPU computes, if the library's build knows one; -1 for all."""
    lora: tuple[Lora, ...] = ()


class Model(Struct, frozen=True):
    """Something the daemon can serve: a name, a file, a runtime and limits (0: chosen by the worker)."""

    name: str
    path: Path
    runtime: str = "llamacpp"
    aliases: tuple[str, ...] = ()
    """Other names that requests may use; answers carry `name`."""
    context: int = 0
    parallel: int = 0
    threads: int = 0
    is_efficient: bool = False
    """Of the threads no more compute than are enough, see `policy.limits.Threads`."""
    chat_template: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Values for `Sampling` fields that a request leaves out."""
    provider: str = "auto"
    """One of `Capabilities.providers`, or `auto`."""
    loading: Loading = Loading()
    memory: int | None = None
    """Bytes that its worker may come to hold, beside what the budget allows; None: no cap of its own."""
    pin: bool = False
    """Once loaded it stays, whoever else needs room."""
    keep_alive_s: float = math.inf
    """Seconds it stays loaded after its last request, if none asks for others."""
    small: str | None = None
    """The model that the policy may let answer instead of it."""
    concurrency: Mapping[RequestClass, int] = field(default_factory=dict)
    """Answers of a class that it generates side by side, at most, where the class has a limit."""
    created: int = 0
    """Unix seconds; the file's modification time."""
    store: str = "config"
    """Where it is known from: the configuration, or one of `registry.stores.places.Store`."""
    bytes_disk: int = 0
    """Size of its weights; 0 if they are not there."""

    def is_loaded_as(self, other: "Model") -> bool:
        """A worker that holds the other serves this one as well: they differ in what it is not told."""
        untold: dict[str, Any] = {
            "aliases": (),
            "sampling": {},
            "small": None,
            "concurrency": {},
            "is_efficient": False,
        }
        return replace(self, **untold) == replace(other, **untold)

    capabilities: Capabilities = Capabilities()


class Archive(Struct, frozen=True):
    """Where a worker's conversations go when it ends, for its model's next one; see `runtimes.archive`."""

    folder: str
    max_bytes: int
    """Of all files in it, whatever their models."""
    max_age_s: float
    """Since a conversation was last used."""
    digest: str = ""
    """Of the model's files: what was computed with others is of no use."""


class WorkerState(StrEnum):
    """The life of a model's worker; the scheduler moves it."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class WorkerInfo(Struct, frozen=True):
    """What a worker that finished loading says of itself.
    `context` is in tokens, `bytes_model` of the file."""

    pid: int
    runtime: str
    version: str
    mode: str
    context: int
    context_trained: int
    parallel: int
    threads: int
    vocab: int
    description: str
    bytes_model: int
    num_parameters: int
    has_chat_template: bool
    load_s: float
    capabilities: Capabilities
    enough_threads: int = 0
    """That compute one answer nearly as fast as the best number of them; 0: not measured, or not told."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Notice(Struct, frozen=True):
    """A health remark that one part raised; `since` is Unix seconds. `code` names it, one notice per code."""

    code: str
    severity: Severity
    text: str
    since: float


class Size(Struct, frozen=True):
    """Bytes of a process: `private` ones end with it; `shared` ones are pages of files, which other processes
    may use too and the system may drop."""

    private: int
    shared: int

    @property
    def total(self) -> int:
        return self.private + self.shared


class Cost(Struct, frozen=True):
    """What a model's worker holds: right after its load, and at most, with the whole context in use.

    `estimated` is the arithmetic's word on the load; `at_load` is the same, or what was measured on this
    machine, if it ever was (`is_measured`).
    """

    at_load: Size
    at_most: Size
    estimated: Size
    is_measured: bool
    device: int = 0
    """At most, in a GPU's own memory: estimated, and beside all the rest."""
    context: int = 0
    """The one it was reckoned with and is loaded with; 0: the worker chooses."""
    refusal: str | None = None
    """Why its own cap does not let it be loaded."""


class ClassStatus(Struct, frozen=True):
    """Of one model and class: sequences `active`, and requests `queued` in the daemon."""

    active: int
    queued: int


class ModelStatus(Struct, frozen=True):
    """A snapshot of one model for people and metrics; it informs and never gates."""

    model: Model
    state: WorkerState
    info: WorkerInfo | None
    progress: float
    """Of the load, 0 to 1."""
    active: int
    """Sequences running."""
    queued: int
    """Requests waiting in the daemon."""
    bytes_resident: int | None
    restarts: int
    error: str | None
    """Why the last load or worker failed."""
    bytes_charged: int = 0
    """Of the budget: all that its worker may come to hold."""
    unload_in_s: float | None = None
    """Seconds until it is unloaded if nobody asks for it; None if it is not loaded or stays."""
    loads: int = 0
    load_s: float = 0.0
    """All its loads took together."""
    evictions: Mapping[str, int] = field(default_factory=dict)
    """How often it was unloaded, by reason."""
    classes: Mapping[RequestClass, "ClassStatus"] = field(default_factory=dict)
    priority: str = "normal"
    """Of its worker beside other programs; see `worker.priority`."""
    paused: int = 0
    """Sequences that wait in the worker because interactive requests want the machine."""
    pauses: int = 0
    """How often some were."""
    paused_s: float = 0.0
    """For how long, in all."""
    saved: int = 0
    """Conversations that went to the archive when it was unloaded."""
    restored: int = 0
    """Requests whose conversation came from there."""
    cost: Cost | None = None
    """Known once the model was to be loaded."""
    threads: int = 0
    """That compute an answer alone in its worker now; 0 without one."""
    enough_threads: int = 0
    """See `WorkerInfo`; also if they were measured before."""
    is_measuring: bool = False
    """It is loaded, and finds that out before it is ready."""


class MemoryStatus(Struct, frozen=True):
    """A snapshot of the budget, in bytes: what it is now, and what of it is charged to loaded models."""

    budget: int
    charged: int
    archived: int = 0
    """Of the disk: what the conversations of unloaded models take."""

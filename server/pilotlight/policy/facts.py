"""What the policy knows of a request: nothing of its text."""

from msgspec import Struct

from pilotlight.core import RequestClass


class Facts(Struct, frozen=True):
    """What the policy knows of a request. `small` is the model that may answer instead of `model`."""

    request_class: RequestClass = RequestClass.INTERACTIVE
    model: str = ""
    small: str | None = None
    max_tokens: int | None = None
    is_strict: bool = False
    """Its client wants what it asked for, or nothing."""
    is_overridden: bool = False
    """Somebody wants it done whatever the machine's state, short of critical."""
    has_live_threads: bool = True
    """The model's runtime can be told how many threads compute."""
    small_has_live_threads: bool = True
    """The runtime of `small` can."""
    is_chat: bool = True
    """It goes through the model's chat template; plain text does not."""

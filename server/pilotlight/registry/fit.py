"""Whether a model fits this machine: at which context, what would make it fit, and how fast it may be.

Pure arithmetic over an estimate: what the machine has comes in as values. Knows neither files nor terminals.
"""

import math
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from pilotlight.registry.caps import largest_context
from pilotlight.registry.cost import Estimate
from pilotlight.runtimes.limits import DEFAULT_CONTEXT, default_context
from pilotlight.runtimes.offload import Device

CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)

QUANTIZATIONS = (
    ("Q8_0", 8.5),
    ("Q6_K", 6.6),
    ("Q5_K_M", 5.7),
    ("Q4_K_M", 4.9),
    ("Q3_K_M", 3.9),
    ("Q2_K", 3.0),
)
"""Common ones with the bits that a weight takes in the files that are published, from fine to coarse."""

GB = 10**9


class Subject(Struct, frozen=True):
    """A model to be judged."""

    name: str
    kind: str
    """Its architecture, and the type of most weights."""
    num_weights: int
    """0: not known."""
    bytes_weights: int
    bytes_active: int
    """Weights that one token passes through."""
    context_trained: int
    at: Callable[[int], Estimate]
    """What it takes with a context of so many tokens."""
    at_8_bits: Callable[[int], Estimate] | None = None
    """The same with keys and values in 8 bits, where that takes less and can be chosen."""
    context: int = 0
    """That its own table gives it; 0: none."""
    memory: int | None = None
    """Bytes that its own table allows it."""
    gpus: tuple[Device, ...] = ()
    """What computes it besides the CPU."""
    refusal: str | None = None
    """Why it cannot be loaded with its settings, whatever there is room for."""
    projector: Path | None = None
    """A file beside it that makes tokens of images; nothing loads it yet."""


class Machine(Struct, frozen=True):
    """What there is to fit into."""

    bytes_total: int
    bytes_available: int
    """That the model may take."""
    bytes_per_s: float
    """Read from memory."""
    is_limited: bool = False
    """Somebody has said that the model may have no more than is available."""
    bytes_reserved: int = 0
    """Of what is free that stays free, or as much as is available where that is less."""

    def bytes_free(self, num_bytes: int) -> int:
        """That have to be free so that the model may take so many."""
        return num_bytes + min(num_bytes, self.bytes_reserved)


class Row(Struct, frozen=True):
    """One context and what it costs in bytes; `at_most_8_bits` with keys and values in 8 bits, if it can.
    `device` are in a GPU's own memory, the others in the machine's."""

    context: int
    at_load: int
    at_most: int
    at_most_8_bits: int | None
    device: int
    fits: bool


class Verdict(Struct, frozen=True):
    """The answer: a table, what would help, and the speed to expect."""

    subject: Subject
    machine: Machine
    rows: tuple[Row, ...]
    context: int
    """The one that was asked for."""
    fits: bool
    largest_context: int
    """That fits; 0 for none."""
    tokens_per_s: float
    """At most, of one answer with a short context: each token passes through all active weights. 0 where a
    GPU computes: not estimated."""
    advice: tuple[str, ...]


def judge(subject: Subject, machine: Machine, context: int = 0) -> Verdict:
    """Does it fit with this context (0: the one it is loaded with)?"""
    trained = subject.context_trained or DEFAULT_CONTEXT
    wanted = context or subject.context or default_context(trained)
    contexts = sorted({wanted, trained, *(one for one in CONTEXTS if one < trained)})
    rows = tuple(_row(subject, machine, one) for one in contexts)
    (asked,) = (row for row in rows if row.context == wanted)
    largest = largest_context(lambda one: _row(subject, machine, one).fits, max(wanted, trained))
    return Verdict(
        subject=subject,
        machine=machine,
        rows=rows,
        context=wanted,
        fits=asked.fits,
        largest_context=largest,
        tokens_per_s=0.0 if subject.gpus else machine.bytes_per_s / max(1, subject.bytes_active),
        advice=() if asked.fits else tuple(_advice(subject, machine, asked, largest)),
    )


def _row(subject: Subject, machine: Machine, context: int) -> Row:
    found = subject.at(context)
    at_most = found.most
    in_8_bits = subject.at_8_bits(context).at_most.total if subject.at_8_bits else None
    device = max(found.at_load.device, found.at_most.device)
    # What is free on a GPU may be less: that it says itself, at the load.
    fits = at_most <= machine.bytes_available and device <= own_bytes(subject.gpus)
    return Row(context, found.at_load.total, at_most, in_8_bits, device, fits and subject.refusal is None)


def _advice(subject: Subject, machine: Machine, asked: Row, largest: int) -> list[str]:
    """What would make it fit, the cheapest first."""
    if subject.refusal is not None:
        return [subject.refusal]
    if asked.device > own_bytes(subject.gpus):
        lacking = asked.device - own_bytes(subject.gpus)
        return [f"fewer gpu_layers, or a shorter context: the GPU lacks {lacking / GB:.1f} GB"]
    lacking = asked.at_most - machine.bytes_available
    found = [f"context = {largest} in its [[model]] table: that fits"] if largest else []
    if asked.at_most_8_bits is not None and asked.at_most_8_bits <= machine.bytes_available:
        found.append('kv_cache_type = "q8_0" there: that fits with this context; prompts take longer')
    if machine.is_limited:
        found.append(f"a limit that is {lacking / GB:.1f} GB higher: it was given one")
    elif asked.at_most <= machine.bytes_total - machine.bytes_reserved:
        to_free = machine.bytes_free(asked.at_most) - machine.bytes_free(machine.bytes_available)
        found.append(f"free {to_free / GB:.1f} GB of memory: close what holds it")
    if smaller := _smaller(subject, subject.bytes_weights - lacking):
        found.append(smaller)
    return found or ["nothing here: the machine has too little memory for this model"]


def _smaller(subject: Subject, room: int) -> str | None:
    """The finest common quantization whose weights fit into the room."""
    if not subject.num_weights:
        return None
    for name, bits in QUANTIZATIONS:
        size = subject.num_weights * bits / 8
        if size <= room and size < subject.bytes_weights:
            return f"a coarser quantization: {name} ({size / GB:.1f} GB of weights) fits with this context"
    return None


def own_bytes(devices: tuple[Device, ...]) -> float:
    """Of memory that is not the machine's; without limit where a GPU does not say."""
    sizes = [device.bytes_total for device in devices if not device.is_integrated]
    return sum(sizes) if all(sizes) else math.inf

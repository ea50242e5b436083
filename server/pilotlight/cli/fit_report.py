"""What `pilotlight fit` says, as lines for a person and as figures for a program."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import to_builtins
from msgspec.structs import asdict

from pilotlight.registry.fit import Subject, Verdict

MB, GB = 10**6, 10**9


def figures(verdict: Verdict) -> dict[str, Any]:
    """All numbers, in bytes and tokens; what is a function is left out."""
    subject = asdict(verdict.subject)
    del subject["at"], subject["at_8_bits"]
    subject["projector"] = subject["projector"] and str(subject["projector"])
    told: dict[str, Any] = to_builtins({**asdict(verdict), "subject": subject})
    return told


def lines(verdict: Verdict) -> Iterator[str]:
    subject, machine = verdict.subject, verdict.machine
    count = f"{_count(subject.num_weights)} weights, " if subject.num_weights else ""
    yield f"{subject.name}: {subject.kind}, {count}{_size(subject.bytes_weights)}"
    yield f"trained context: {subject.context_trained or 'not given'}"
    yield f"memory it may take: {_size(machine.bytes_available)} of {_size(machine.bytes_total)}"
    yield ""
    has_device = any(row.device for row in verdict.rows)
    on_gpu = f"  {'ON GPU':>8}" if has_device else ""
    yield f"{'CONTEXT':>8}  {'LOADED':>8}  {'AT MOST':>8}  {'8-BIT KV':>8}{on_gpu}  FITS"
    for row in verdict.rows:
        cells = [row.at_load, row.at_most, row.at_most_8_bits, *([row.device] if has_device else [])]
        mark = "  <- asked" if row.context == verdict.context else ""
        sizes = "  ".join(f"{'-' if one is None else _size(one):>8}" for one in cells)
        yield f"{row.context:>8}  {sizes}  {'yes' if row.fits else 'no'}{mark}"
    yield ""
    yield f"with a context of {verdict.context} it {'fits' if verdict.fits else 'does not fit'}" + (
        f"; the largest that does is {verdict.largest_context}" if verdict.largest_context else ""
    )
    yield from (f"  - {line}" for line in verdict.advice)
    yield from _gpu(subject)
    if subject.projector:
        name = subject.projector.name
        yield f"images are not supported yet: {name} beside it is not loaded and costs nothing"
    yield _speed_line(verdict)


def choice(repo: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Files of a repository, the smallest first."""
    machine = verdicts[0].machine
    best = max((one for one in verdicts if one.fits), key=lambda one: one.subject.bytes_weights, default=None)
    width = max(len(verdict.subject.name) for verdict in verdicts)
    yield f"{repo}: {verdicts[0].subject.kind}; by the header of its smallest file, and sizes"
    yield f"memory it may take: {_size(machine.bytes_available)} of {_size(machine.bytes_total)}"
    yield ""
    yield f"{'FILE':{width}}  {'WEIGHTS':>8}  {'AT MOST':>8}  {'CONTEXT':>8}  {'TOKENS/S':>8}  FITS"
    for verdict in verdicts:
        (row,) = (row for row in verdict.rows if row.context == verdict.context)
        sizes = f"{_size(verdict.subject.bytes_weights):>8}  {_size(row.at_most):>8}"
        speed = f"{verdict.largest_context:>8}  {_speed(verdict.tokens_per_s):>8}"
        mark = "  <- best" if verdict is best else ""
        yield f"{verdict.subject.name:{width}}  {sizes}  {speed}  {'yes' if verdict.fits else 'no'}{mark}"
    yield ""
    yield f"AT MOST is for a context of {verdicts[0].context}; CONTEXT is the largest that fits"
    yield from _gpu(verdicts[0].subject)
    yield "none fits" if best is None else f"the best that fits: {best.subject.name}"


def _gpu(subject: Subject) -> Iterator[str]:
    if not subject.gpus:
        return
    names = ", ".join(f"{device.name} ({device.description})" for device in subject.gpus)
    if subject.gpus[0].is_integrated:
        yield f"{names} computes it, too, and has no memory of its own: all is counted as the machine's"
        return
    free, total = (
        _size(sum(sizes))
        for sizes in zip(*((one.bytes_free, one.bytes_total) for one in subject.gpus), strict=True)
    )
    yield f"{names} computes it, too: {free} of {total} are free there now; no such figure was ever measured"


def _speed_line(verdict: Verdict) -> str:
    subject = verdict.subject
    if not verdict.tokens_per_s:
        return "speed: not estimated where a GPU computes"
    return (
        f"speed: at most {_speed(verdict.tokens_per_s)} tokens/s for one answer: each token reads "
        f"{_size(subject.bytes_active)}, and memory gives {_size(verdict.machine.bytes_per_s)}/s "
        "(measured now)"
    )


def _size(num_bytes: float) -> str:
    """Three digits."""
    if num_bytes < GB / 10:
        return f"{num_bytes / MB:.0f} MB"
    return f"{num_bytes / GB:.2f} GB" if num_bytes < 10 * GB else f"{num_bytes / GB:.1f} GB"


def _count(number: int) -> str:
    return f"{number / 1e9:.1f} billion" if number >= 1e9 else f"{number / 1e6:.0f} million"


def _speed(tokens_per_s: float) -> str:
    if not tokens_per_s:
        return "-"
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.1f}"

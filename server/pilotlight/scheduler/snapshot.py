"""One model's state, for people and metrics."""

import math

from pilotlight.core import Cost, Model, ModelStatus
from pilotlight.scheduler.books import Residence
from pilotlight.scheduler.line import Line
from pilotlight.scheduler.residency import Resident


def status_of(
    model: Model, line: Line, resident: Resident | None, at: Residence, cost: Cost | None, now: float
) -> ModelStatus:
    """What its line, its charge and its worker are at this time. Looks at the worker's memory."""
    expires_at = resident.expires_at if resident else math.inf
    return ModelStatus(
        model=model,
        state=line.state,
        info=at.info if at.worker else None,
        progress=at.progress.fraction,
        is_measuring=at.progress.is_measuring,
        active=line.active,
        queued=len(line.queue),
        bytes_resident=at.bytes_resident,
        restarts=at.restarts,
        error=at.error,
        bytes_charged=resident.num_bytes if resident else 0,
        unload_in_s=max(0.0, expires_at - now) if math.isfinite(expires_at) else None,
        loads=at.loads,
        load_s=at.load_s,
        evictions=dict(at.evictions),
        classes=line.classes,
        priority=at.priority,
        paused=at.pauses.num_sequences,
        pauses=at.pauses.count,
        paused_s=at.pauses.seconds(now),
        saved=at.saved,
        restored=at.restored,
        cost=cost,
        threads=at.threads if at.worker else 0,
    )

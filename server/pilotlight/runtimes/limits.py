"""What a model gets when nobody says: the same for every runtime."""

import os

import psutil

DEFAULT_CONTEXT = 8192
"""Tokens when neither the request nor the model's training asks
for less: memory is taken for all of them at once."""

DEFAULT_PARALLEL = 8


def default_context(trained: int) -> int:
    """Of a model that was trained for so many tokens (0: not known), when nobody asks for a context."""
    return min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)


STEP_S = 0.75
"""Aimed-at length of a step while only prompts are computed: how late a cancel or a shorter prompt may be."""

BUSY_STEP_S = 0.5
"""The same while streams run: the inter-token time that a long prompt of somebody else may cause."""

CROWD_STEP_S = 3.0
"""The same, at most, while all streams have only just begun: who came together goes on together."""

YIELDING_STEP_S = 0.2
"""The same for prompts that yield: what is lost, or waited for, when an interactive request comes."""

BRIEF_S = 0.003
"""A step of so many seconds is brief: what is said with it might as well have been said before it."""

BUNDLE_S = 0.008
"""Text may wait this long for more of it; half of what one frame of a 60 Hz screen takes."""

HEADROOM = 64
"""Tokens of answer that must fit beside the running sequences before one more starts."""


def num_cores() -> int:
    """Physical cores this process may use: a second thread on the same core only heats it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))

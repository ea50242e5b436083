"""Bursts: how work that is to run a part of the time is divided into runs and rests.

Between single tokens a rest costs more than it saves: threads that spin for the next one, cold caches, clocks
that come up late. Runs are whole bursts, and a rest is as long as the run before it asks for. Pure.
"""

FEWEST_TOKENS = 16
"""Of a run. Measured with llama.cpp on two cores: a rest after each token took 3.2 times the processor time
per token, one after 16 tokens 1.5 times."""

SHORTEST_RUN_S = 0.5


def is_run(num_tokens: float, seconds: float) -> bool:
    """So much work in a row is enough for a rest."""
    return num_tokens >= FEWEST_TOKENS and seconds >= SHORTEST_RUN_S


def rest_s(ran_s: float, duty: float) -> float:
    """How long to rest after a run, to work `duty` of the time (more than 0, up to 1)."""
    return ran_s * (1 / duty - 1)

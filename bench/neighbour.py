"""Another program that uses a processor in bursts of all lengths, until it is ended."""

import random
import time

BURST_S = (0.02, 3.0)
REST_S = (0.05, 6.0)
BYTES = 32 * 2**20
"""More than the caches hold: it takes memory bandwidth, too."""


def main() -> None:
    dice = random.Random(0)
    data = bytes(BYTES)
    while True:
        until = time.monotonic() + _between(dice, *BURST_S)
        while time.monotonic() < until:
            data.count(b"x")
        time.sleep(_between(dice, *REST_S))


def _between(dice: random.Random, least: float, most: float) -> float:
    """As often from 1 to 2 as from 2 to 4."""
    return float(least * (most / least) ** dice.random())


if __name__ == "__main__":
    main()

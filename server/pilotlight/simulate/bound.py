"""The most background work that a machine can do beside answers at cold speed, by arithmetic.

In the long run it gets rid of `(edge - air) / outer` watts, where its chassis must not be warmer than `edge`.
In a die that is watched an answer adds its own power times `inner` within seconds, and who does not know when
it comes keeps that free. What idling and answers leave of these watts is for background work. A controller
whose sensor is late and noisy does with a little less, and a chassis that was cold takes in a little more.
"""

from pilotlight.simulate.chip import Setting
from pilotlight.simulate.platforms import Platform

FULL = Setting()


def most_background(platform: Platform, edge: float, answering: float, setting: Setting) -> float:
    """Tokens per second of background work run with this setting; answers take the part `answering` of the
    time, and from `edge` degrees on they are throttled."""
    chip = platform.chip
    while_answering = chip.watts(FULL)
    sustained = (edge - while_answering * platform.inner - platform.body.air) / platform.body.outer
    left = sustained - chip.idle - answering * (while_answering - chip.idle)
    part = left / (chip.watts(setting) - chip.idle)
    return chip.rate(setting) * max(0.0, min(1 - answering, part))

"""What each runtime can do, for the daemon, which imports no native library. The workers say the same."""

from dataclasses import fields

from pilotlight.core import Capabilities, Sampling

ALL_SAMPLING = tuple(field.name for field in fields(Sampling))

CAPABILITIES = {
    "llamacpp": Capabilities(sampling=ALL_SAMPLING, live_threads=True),
    "echo": Capabilities(live_threads=True),
}
"""By runtime."""

"""`pilotlight` and `python -m pilotlight`."""

import io
import sys

from pilotlight.cli import cli


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not have every character of an answer
    cli(prog_name="pilotlight")


if __name__ == "__main__":
    main()

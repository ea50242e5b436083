"""`pilotlight` and `python -m pilotlight`."""

from pilotlight.cli import cli


def main() -> None:
    """Run the command line and exit with its code."""
    cli(prog_name="pilotlight")


if __name__ == "__main__":
    main()

"""What to do about what `doctor` found. Pure."""

import shlex
from collections.abc import Iterable, Iterator

from pilotlight.cli.machine import Cpu, Library
from pilotlight.registry.ladder import COSTS, Outcome

NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def advise(cpu: Cpu, libraries: Iterable[Library], outcomes: Iterable[Outcome], python: str) -> Iterator[str]:
    """One text per thing that is wrong, with the exact command that mends it.

    `outcomes` are those that hold now: for this machine and the installed builds.
    """
    by_runtime = {library.runtime: library for library in libraries}
    llamacpp = by_runtime["llamacpp"]
    if llamacpp.version is None:
        install = f"{shlex.quote(python)} -m pip install {llamacpp.install}"
        yield f"llama.cpp is missing, so no GGUF model can be served:\n{install}"
    else:
        for outcome in outcomes:
            yield _on_outcome(outcome, cpu, llamacpp.version, python)
    for library in by_runtime.values():
        if library.fault:
            yield _on_fault(library, python)


def _on_fault(library: Library, python: str) -> str:
    """The same versions anew. Not by the extra's name: that would install Pilotlight anew, too."""
    exact = " ".join(f"{name}=={version}" for name, version in library.distributions)
    pip = f"{shlex.quote(python)} -m pip install --force-reinstall --no-cache-dir --no-deps"
    return (
        f"Importing the library of {library.runtime} fails ({library.fault}), so none of its models can be "
        f"served; install it anew, or another version:\n{pip} {exact}"
    )


def _on_outcome(outcome: Outcome, cpu: Cpu, version: str, python: str) -> str:
    cost = COSTS.get(outcome.mode, "slower than it could be")
    what = (
        f"{outcome.runtime} runs in the mode {outcome.mode} ({cost}). Faster ones crashed: {outcome.reason}."
    )
    if cpu.has_amx and outcome.runtime == "llamacpp":
        return (
            f"{what} The processor advertises AMX, which fails on some virtual machines; "
            f"build llama.cpp without it (5 minutes) and restart:\n{_rebuild(version, python)}"
        )
    return f"{what} Once the cause is gone, let it try them again:\npilotlight doctor --reset"


def _rebuild(version: str, python: str) -> str:
    """The same version without AMX code. It is another build, so the ladder starts from the top by itself."""
    flags = f"-DCMAKE_C_FLAGS='{NO_AMX}' -DCMAKE_CXX_FLAGS='{NO_AMX}'"
    pip = f"{shlex.quote(python)} -m pip install --force-reinstall --no-cache-dir --no-deps"
    return f'CMAKE_ARGS="{flags}" {pip} llama-cpp-python=={version}'

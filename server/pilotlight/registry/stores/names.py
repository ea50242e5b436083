"""What a found model is called. Pure: the same files have the same names wherever they are looked at."""

import re
from pathlib import PurePath

LONGEST_NAME = 256
"""Characters in the name of any model."""

QUANTIZATION = r"(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4\w*|BF16|FP?16|FP?32)"
"""What a quantization is called, in letters of any size."""

QUANT = re.compile(rf"[-._](?P<quant>{QUANTIZATION})", re.IGNORECASE)
"""How files are named after their quantization, at the end of the name."""


def gguf_names(repository: str, folder: PurePath, stem: str) -> tuple[str, ...]:
    """`owner/name:Q4_K_M` where the file is named after its repository, else `owner/name:folder/file`.

    `folder` is where the file is in the repository; `stem` its name without suffix and part number.
    """
    long = f"{repository}:{(folder / stem).as_posix()}"
    base = re.sub(r"[-_.]gguf$", "", repository.rpartition("/")[2], flags=re.IGNORECASE)
    quant = QUANT.fullmatch(stem[len(base) :])
    if quant is None or stem[: len(base)].casefold() != base.casefold():
        return (long,)
    return f"{repository}:{quant['quant'].upper()}", long


def folder_names(repository: str, folder: PurePath) -> tuple[str, ...]:
    """`owner/name`, or `owner/name:folder` for one inside it."""
    inner = folder.as_posix()
    return (repository if inner == "." else f"{repository}:{inner}",)

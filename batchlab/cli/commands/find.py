"""`batchlab find`: the largest micro-batch that fits."""

import math
import re
from collections.abc import Mapping

from batchlab.config.commands import COMMANDS
from batchlab.errors import BadRequest

UNITS = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def main(arguments: list[str]) -> int:
    """Takes out its own settings; everything else goes to `hydra_app`."""
    settings, others = own_settings(arguments)
    from batchlab.hydra_app import launch

    return launch("find", others, settings)


def own_settings(arguments: list[str]) -> tuple[Mapping[str, int], list[str]]:
    """`memory_limit` in bytes and `at_most` in examples, where they are given, and the arguments without them."""
    settings: dict[str, int] = {}
    others: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in COMMANDS["find"].settings:
            others.append(argument)
            continue
        if name in settings:
            raise BadRequest(f"{argument}: {name} is given twice, but a search has one value")
        settings[name] = parse_bytes(value) if name == "memory_limit" else _parse_count(value)
    return settings, others


def parse_bytes(text: str) -> int:
    """`600MiB` in bytes; BadRequest for a text that is not a size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    factor = UNITS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise BadRequest(
            f"memory_limit={text} is invalid: give one number with its unit, such as memory_limit=600MiB or "
            "memory_limit=8GiB"
        )
    size = math.floor(float(found[1]) * factor)
    if size < 2**20:
        raise BadRequest(f"memory_limit={text} is invalid: nothing trains in less than 1MiB")
    if size > 2**50:
        raise BadRequest(f"memory_limit={text} is invalid: no machine has that much; give at most 1024TiB")
    return size


def _parse_count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise BadRequest(f"at_most={text} is invalid: give an integer of at least 1, such as at_most=4096")
    return int(text)

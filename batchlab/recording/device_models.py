"""Which runs have numbers of the clock and of memory that compare: those on one model of GPU, or of processor."""

from collections.abc import Iterable, Mapping

from batchlab.printable import counted, printable


def main_model(runs: Iterable[tuple[str | None, int]]) -> str | None:
    """Of (model, batch size) of each run the model with the most batch sizes, then the most runs; None: none is known.

    Where runs that are equal otherwise were made on several models, only its seconds and bytes are compared.
    """
    sizes: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for model, batch_size in runs:
        if model is not None:
            sizes.setdefault(model, set()).add(batch_size)
            counts[model] = counts.get(model, 0) + 1
    return min(sizes, key=lambda model: (-len(sizes[model]), -counts[model], model), default=None)


def measured_on(counts: Mapping[str, int], what: str) -> str:
    """`Measured on NVIDIA H200.`; of several models with how many of each; nothing where none is known.

    `counts` are of `what`: runs, points.
    """
    if not counts:
        return ""
    if len(counts) == 1:
        return f"Measured on {printable(next(iter(counts)))}."
    order = sorted(counts, key=lambda model: (-counts[model], model))
    listed = ", ".join(f"{printable(model)} ({counted(counts[model], what)})" for model in order)
    return f"Measured on {listed}: speeds and peaks of one are not compared with another's."

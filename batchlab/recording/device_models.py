"""Times and memory are compared only between runs on the same model of GPU or processor."""

from collections.abc import Iterable, Mapping

from batchlab.printable import counted, printable


def main_model(runs: Iterable[tuple[str | None, int]]) -> str | None:
    """The model with the most batch sizes, then the most runs, of each run's (model, batch size); None: not known.

    If otherwise equal runs were made on several models, only the seconds and bytes of this model are compared.
    """
    sizes: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for model, batch_size in runs:
        if model is not None:
            sizes.setdefault(model, set()).add(batch_size)
            counts[model] = counts.get(model, 0) + 1
    return min(sizes, key=lambda model: (-len(sizes[model]), -counts[model], model), default=None)


def measured_on(counts: Mapping[str, int], what: str) -> str:
    """`Measured on NVIDIA H200.`; several models are listed with their counts; empty if none is known.

    `counts` is the number of `what` (run, point) for each model.
    """
    if not counts:
        return ""
    if len(counts) == 1:
        return f"Measured on {printable(next(iter(counts)))}."
    order = sorted(counts, key=lambda model: (-counts[model], model))
    listed = ", ".join(f"{printable(model)} ({counted(counts[model], what)})" for model in order)
    return f"Measured on {listed}: speeds and memory peaks of different models are not compared."

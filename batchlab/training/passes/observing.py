"""Records the inputs and outputs of each module, and finds the first one whose result depends on other examples."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten


@dataclass(frozen=True)
class Call:
    """One call of a module (or of the task's `forward` or `loss`): its input and output tensors, on the CPU.

    `path` is the module's; a module that is called several times in one pass has several calls.
    """

    path: str
    module: nn.Module | None
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


@contextlib.contextmanager
def observed(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of the modules of `model`, in the order in which they end: inner modules before outer ones."""
    calls: list[Call] = []
    paths = {module: path for path, module in model.named_modules()}
    entered: list[list[Tensor]] = []

    # Inputs are copied before the call: an in-place module changes its input.
    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(copies((args, kwargs)))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append(Call(paths[module], module, entered.pop(), copies(output)))

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in paths]
    handles += [module.register_forward_hook(after, with_kwargs=True) for module in paths]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def copies(values: Any) -> list[Tensor]:
    """The tensors anywhere in `values`, copied to the CPU: all activations of two passes may not fit on a GPU.

    Sparse ones become dense, so that they can be compared.
    """
    found = [t.detach() for t in tree_leaves(values) if isinstance(t, Tensor)]
    return [t.to("cpu", copy=True) if t.layout is torch.strided else t.cpu().to_dense() for t in found]


def first_difference(
    whole: Sequence[Call], parts: Sequence[Sequence[Call]], tolerance: float
) -> tuple[Call, list[Call]] | None:
    """The first call that gives other outputs for the same inputs, with its calls in the `parts`; or None.

    `whole` are the calls of one pass, `parts` those of passes of its pieces. `tolerance` is relative to the largest
    value of a tensor. Calls whose tensors cannot be compared are skipped.
    """
    in_parts = [_numbered(calls) for calls in parts]
    for key, call in _numbered(whole).items():
        others = [calls[key] for calls in in_parts if key in calls]
        if len(others) < len(parts):
            continue
        same_inputs = _agree(call.inputs, [other.inputs for other in others], tolerance)
        same_outputs = _agree(call.outputs, [other.outputs for other in others], tolerance)
        if same_inputs and same_outputs is False:
            return call, others
    return None


def by_micro_batch(function: Callable[..., Any], whole: Call, parts: Sequence[Call]) -> Callable[..., Any]:
    """`function`, changed to process its inputs piece by piece, sequentially, and to join the outputs.

    How to split is inferred from calls of it: `whole` of all, `parts` of the pieces.
    """
    cuts = [_cut(tensor.shape, [part.inputs[i].shape for part in parts]) for i, tensor in enumerate(whole.inputs)]
    joins = [_cut(tensor.shape, [part.outputs[i].shape for part in parts]) for i, tensor in enumerate(whole.outputs)]

    def in_pieces(*args: Any, **kwargs: Any) -> Any:
        flat, layout = tree_flatten((args, kwargs))
        pending = iter(cuts)
        columns = []
        for leaf in flat:
            cut = next(pending) if isinstance(leaf, Tensor) else None
            columns.append([leaf] * len(parts) if cut is None else list(leaf.split(cut.sizes, dim=cut.axis)))
        results = []
        for pieces in zip(*columns, strict=True):
            piece_args, piece_kwargs = tree_unflatten(list(pieces), layout)
            results.append(tree_flatten(function(*piece_args, **piece_kwargs)))
        pending = iter(joins)
        joined = []
        for leaves in zip(*(leaves for leaves, _ in results), strict=True):
            cut = next(pending) if isinstance(leaves[0], Tensor) else None
            joined.append(leaves[-1] if cut is None else torch.cat(leaves, dim=cut.axis))
        return tree_unflatten(joined, results[0][1])

    return in_pieces


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors agree within `tolerance` times the largest finite value of the first; nan equals nan."""
    wide = torch.complex128 if one.is_complex() else torch.float64
    a, b = one.to(wide), other.to(wide)
    finite = a[torch.isfinite(a)].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=tolerance * scale, equal_nan=True)


@dataclass(frozen=True)
class Cut:
    """How a tensor is split: `sizes` along `axis`."""

    axis: int
    sizes: list[int]


def _numbered(calls: Sequence[Call]) -> Mapping[tuple[str, int], Call]:
    """Each call by its path and its number among the calls of that path."""
    seen: Counter[str] = Counter()
    numbered = {}
    for call in calls:
        numbered[call.path, seen[call.path]] = call
        seen[call.path] += 1
    return numbered


def _agree(whole: Sequence[Tensor], parts: Sequence[Sequence[Tensor]], tolerance: float) -> bool | None:
    """Whether the tensors of the whole equal those of its parts joined; None if they cannot be compared."""
    if any(len(part) != len(whole) for part in parts):
        return None
    results = [_agrees(tensor, pieces, tolerance) for tensor, *pieces in zip(whole, *parts, strict=True)]
    return False if False in results else None if None in results else True


def _agrees(whole: Tensor, pieces: Sequence[Tensor], tolerance: float) -> bool | None:
    if all(piece.shape == whole.shape for piece in pieces):  # it does not depend on the batch: a mask, a weight
        return all(close(whole, piece, tolerance) for piece in pieces)
    cut = _cut(whole.shape, [piece.shape for piece in pieces])
    return None if cut is None else close(whole, torch.cat(list(pieces), dim=cut.axis), tolerance)


def _cut(whole: Size, pieces: Sequence[Size]) -> Cut | None:
    """The axis along which `pieces` join to `whole`: the first, or the second if time comes first, ..."""
    if all(piece == whole for piece in pieces):
        return None
    for axis in range(len(whole)):
        around = (whole[:axis], whole[axis + 1 :])
        fitting = all(len(p) == len(whole) and (p[:axis], p[axis + 1 :]) == around for p in pieces)
        if fitting and sum(piece[axis] for piece in pieces) == whole[axis]:
            return Cut(axis, [piece[axis] for piece in pieces])
    return None

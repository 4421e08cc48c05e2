"""Trees of tensors: tuples, lists, dicts, named tuples and dataclasses, nested as the user has them."""

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

STACKED = (Tensor, np.ndarray, np.generic, bool, int, float, complex)  # what `default_collate` makes a tensor of
RIDES_ALONG = (str, bytes, PurePath, type(None))  # what a batch has in a `Column`


class Column(list[Any]):
    """A value of each example that is no tensor, such as the name of its file: it is cut and joined like a tensor."""


def is_plain(tree: Any) -> bool:
    """Whether it is a tuple or a dict of tensors, for which there are shorter ways."""
    kind = type(tree)
    if kind is tuple:
        return all(type(part) is Tensor for part in tree)
    return kind is dict and all(type(part) is Tensor for part in tree.values())


def is_container(tree: Any) -> bool:
    """Whether it is a tuple, list, dict, named tuple or dataclass."""
    return _branches(tree) is not None


def leaves(tree: Any) -> list[Any]:
    """All leaves in order: tensors, columns, and any other values. What has a `to` method and is no dict is one leaf,
    such as a packed sequence or a graph library's batch."""
    return list(_walk(tree))


def with_leaves(tree: Any, changed: Sequence[Any]) -> Any:
    """A tree like `tree`, whose containers keep their type, with other leaves."""
    coming = iter(changed)
    return mapped(tree, lambda _: next(coming))


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A tree like `tree`, whose containers keep their type, with `change(leaf)` instead of each leaf."""
    branches = _branches(tree)
    if branches is None:
        return change(tree)
    return _like(tree, [mapped(branch, change) for branch in branches])


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    if is_plain(tree):
        return list(tree.values()) if type(tree) is dict else list(tree)
    return [leaf for leaf in _walk(tree) if isinstance(leaf, Tensor)]


def bytes_of(example: Any) -> int:
    """Bytes of an example: of its tensors, or of all it has if it is no tree, as a graph library's; at least 1."""
    if seen := sum(t.nbytes for t in tensors(example)):
        return seen
    try:
        return len(pickle.dumps(example))
    except Exception:  # it cannot be pickled
        return 1


def rebuilt(tree: Any, changed: Sequence[Any]) -> Any:
    """A tree like `tree` with its tensors replaced, in order."""
    if is_plain(tree):
        return dict(zip(tree, changed, strict=True)) if type(tree) is dict else tuple(changed)
    coming = iter(changed)
    return mapped(tree, lambda leaf: next(coming) if isinstance(leaf, Tensor) else leaf)


def stacked(examples: Sequence[Any]) -> Any:
    """A batch of `examples`: `default_collate`, but containers keep their type, and strings, paths and None become
    a `Column`. An error if the examples do not fit together."""
    first = examples[0]
    if all(isinstance(example, RIDES_ALONG) for example in examples):
        return Column(examples)
    if isinstance(first, STACKED):
        return default_collate(list(examples))
    kinds = sorted({type(example).__name__ for example in examples})
    if any(type(example) is not type(first) for example in examples):
        raise TypeError(f"examples have values of different types at one place ({', '.join(kinds)})")
    columns = [_branches(example) for example in examples]
    if columns[0] is None:
        raise TypeError(f"values of type {kinds[0]} cannot be stacked")
    if isinstance(first, Mapping):
        if odd := next((example for example in examples if set(example) != set(first)), None):
            raise KeyError(f"examples have the different keys {', '.join(map(str, set(odd) ^ set(first)))}")
        return _like(first, [stacked([example[key] for example in examples]) for key in first])
    sizes = sorted({len(column or ()) for column in columns})
    if len(sizes) > 1:
        raise ValueError(f"examples have a {type(first).__name__} of {' or '.join(map(str, sizes))} values")
    return _like(first, [stacked(column) for column in zip(*(column or () for column in columns), strict=True)])


def with_columns(tree: Any) -> Any:
    """A whole set in memory, with a list of n values, for n examples, as the n values of a Dataset would be: numbers
    stacked as a tensor, strings as a `Column`. What is no value for each example is part of every batch."""
    sizes = {len(leaf) for leaf in _walk(tree) if isinstance(leaf, Tensor) and leaf.dim() > 0}
    return tree if len(sizes) != 1 or is_plain(tree) else _columns_made(tree, *sizes)


def _columns_made(tree: Any, n: int) -> Any:
    branches = _branches(tree)
    if branches is None:
        return tree
    if type(tree) is list and len(tree) == n and not any(isinstance(leaf, Tensor) for leaf in _walk(tree)):
        return stacked(tree)
    return _like(tree, [_columns_made(branch, n) for branch in branches])


def moved(tree: Any, device: torch.device) -> Any:
    """The tree with every leaf on `device` that has a `to` method; the tensors among them, if they are not there."""
    return mapped(tree, lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf)


def _walk(tree: Any) -> Iterator[Any]:
    branches = _branches(tree)
    if branches is None:
        yield tree
        return
    for branch in branches:
        yield from _walk(branch)


def _branches(tree: Any) -> Sequence[Any] | None:
    """What a container contains, in order; None for a leaf."""
    if isinstance(tree, Tensor | Column | str | bytes):
        return None
    if isinstance(tree, Mapping):
        return list(tree.values())
    if hasattr(tree, "to"):
        return None
    if isinstance(tree, tuple | list):
        return tree
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    return None


def _like(tree: Any, branches: Sequence[Any]) -> Any:
    if type(tree) is dict:
        return dict(zip(tree, branches, strict=True))
    if isinstance(tree, tuple | list):
        # A named tuple takes its values one by one.
        return tree._make(branches) if hasattr(tree, "_make") else type(tree)(branches)
    if isinstance(tree, Mapping):
        if not isinstance(tree, MutableMapping):
            return dict(zip(tree, branches, strict=True))
        twin: Any = copy.copy(tree)  # with whatever else it has
        for key, branch in zip(list(tree), branches, strict=True):
            twin[key] = branch
        return twin
    twin = copy.copy(tree)  # a dataclass: its __init__ may check or change what it is given
    for field, branch in zip(dataclasses.fields(tree), branches, strict=True):
        object.__setattr__(twin, field.name, branch)
    return twin

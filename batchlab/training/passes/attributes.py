"""Restores what a forward pass changes in the modules themselves: their attributes, buffers and parameters."""

import functools
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.training.losses import WithLoss

LARGE_BYTES = 2**20  # attributes of up to this size are copied for each pass, larger ones like parameters
OF_A_MODULE = frozenset(vars(nn.Module()))  # the attributes that PyTorch has in every module
TABLES = ("_parameters", "_buffers", "_modules")
PLAIN = (bool, int, float, complex, str, bytes, type(None))
FIXED = frozenset((*PLAIN, type, torch.Size, torch.dtype, torch.device, type(len), type(lambda: None)))
MISSING = object()

# Whether a pass of a model changes its parameters; no entry: unknown. Models are compared by identity.
_moving: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def known_to_move(model: nn.Module) -> bool | None:
    """Whether a pass of the model has been seen to change a parameter; None: not examined yet."""
    return _moving.get(_itself(model))


def settle_whether_it_moves(model: nn.Module) -> None:
    """After passes in both modes that were compared: from now on parameters are copied only if one has changed."""
    _moving.setdefault(_itself(model), False)


def _itself(model: nn.Module) -> nn.Module:
    """The model without its loss, which are joined anew for each measurement."""
    return model["model"] if isinstance(model, WithLoss) else model


def kept(model: nn.Module, *, weights: bool = True, attributes: bool = True) -> Callable[[], None]:
    """Remembers what a forward pass can change in the model; the returned function restores it.

    That is: buffers and parameters, also where a pass reassigns them; numbers, tensors, arrays and random generators
    that are attributes of a module, also in lists, dicts and sets. Modes and gradients are not included.

    Parameters are copied as long as it is unknown whether a pass changes them, and if one does. Otherwise only their
    version counters are compared, and BadRequest is raised if a pass has changed one after all. Without `weights` the
    caller changes parameters, and restores them. Without `attributes` only buffers and parameters are restored.
    """
    registered = {id(t) for t in (*model.parameters(), *model.buffers())}
    keeper = _Keeper(registered)
    for module in model.modules():
        keeper.keep_tables(module)
        if attributes:
            keeper.keep_attributes(module)
    small = [(buffer, buffer.detach().clone()) for buffer in model.buffers()] + keeper.small
    restore_weights = _watched(model, [*model.parameters(), *keeper.large]) if weights else _nothing

    def put_back() -> None:
        for restore in keeper.restores:
            restore()
        for tensor, before in small:
            tensor.data.copy_(before)  # .data, because a tensor may require a gradient
        restore_weights()

    return put_back


class _Keeper:
    """Walks through the attributes of modules; remembers each container and each tensor once."""

    def __init__(self, seen: set[int]) -> None:
        self.restores: list[Callable[[], object]] = []
        self.small: list[tuple[Tensor, Tensor]] = []
        self.large: list[Tensor] = []
        self._seen = seen  # ids, of objects that are kept alive by the modules or by `restores`

    def keep_tables(self, module: nn.Module) -> None:
        """Which parameters, buffers and modules it has."""
        tables = [(table, dict(table)) for table in map(vars(module).get, TABLES) if table and isinstance(table, dict)]
        self.restores += [functools.partial(_refill, table, before) for table, before in tables]

    def keep_attributes(self, module: nn.Module) -> None:
        own = {name: value for name, value in vars(module).items() if name not in OF_A_MODULE}
        self.restores.append(lambda: _restore_attributes(vars(module), own))
        self._keep_all(own.values())

    def _keep_all(self, values: Iterable[Any]) -> None:
        for value in values:
            if type(value) not in FIXED and id(value) not in self._seen:
                self._seen.add(id(value))
                self._keep(value)

    def _keep(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._keep_tensor(value)
        elif isinstance(value, dict):
            before = dict(value)
            self.restores.append(lambda: _refill(value, before))
            self._keep_all(before.values())
        elif isinstance(value, list | deque):
            entries = list(value)
            self.restores.append(lambda: _refill_list(value, entries))
            self._keep_all(entries)
        elif isinstance(value, set):
            members = set(value)
            self.restores.append(lambda: _refill_set(value, members))
        elif isinstance(value, tuple):
            self._keep_all(value)
        elif isinstance(value, np.ndarray):
            array = value.copy()
            self.restores.append(lambda: np.copyto(value, array))
        elif isinstance(value, torch.Generator):
            drawn = value.get_state()
            self.restores.append(lambda: value.set_state(drawn))
        elif isinstance(value, random.Random):
            numbers = value.getstate()
            self.restores.append(lambda: value.setstate(numbers))
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator.state
            self.restores.append(lambda: setattr(value.bit_generator, "state", bits))
        elif isinstance(value, np.random.RandomState):
            legacy = value.get_state()
            self.restores.append(lambda: value.set_state(legacy))

    def _keep_tensor(self, tensor: Tensor) -> None:
        # A tensor with a graph is the result of an earlier pass: the next one replaces it.
        if tensor.grad_fn is not None or tensor.layout is not torch.strided or tensor.is_meta:
            return
        if tensor.nbytes > LARGE_BYTES:
            self.large.append(tensor)
        else:
            self.small.append((tensor, tensor.detach().clone()))


def _restore_attributes(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in attributes if name not in OF_A_MODULE and name not in before]:
        if not callable(attributes[name]):  # a function that was compiled at its first use is kept
            del attributes[name]
    for name, value in before.items():
        now = attributes.get(name, MISSING)
        if now is not value and not (value is None and callable(now)):
            attributes[name] = value


def _refill(table: dict[Any, Any], before: dict[Any, Any]) -> None:
    same = len(table) == len(before) and all(a is b for a, b in zip(table, before, strict=True))
    if same and all(table[name] is value for name, value in before.items()):
        return
    dict.clear(table)
    dict.update(table, before)


def _refill_list(entries: Any, before: list[Any]) -> None:
    if len(entries) != len(before) or any(now is not then for now, then in zip(entries, before, strict=True)):
        entries.clear()
        entries.extend(before)


def _refill_set(members: set[Any], before: set[Any]) -> None:
    members.clear()
    members.update(before)


def _nothing() -> None:
    """Restores nothing."""


def _watched(model: nn.Module, tensors: list[Tensor]) -> Callable[[], None]:
    if known_to_move(model) is False:
        marks = [(tensor, tensor._version, _storage(tensor)) for tensor in tensors]
        return lambda: _refuse_changes(model, marks)
    # On the host: on a GPU there may be no memory for the weights a second time.
    copies = [(t, t.data, t.detach().to("cpu", copy=True)) for t in tensors if not t.is_meta]  # those have no values

    def put_back() -> None:
        for tensor, own, before in copies:
            if _storage(tensor) == _storage(own) and equal(tensor, before):
                continue
            _moving[_itself(model)] = True
            tensor.data = own  # a pass may have assigned other memory
            own.copy_(before)

    return put_back


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def equal(tensor: Tensor, before: Tensor) -> bool:
    """Whether the tensor is as it was before, in a copy on the host; nan equals nan."""
    one, other = tensor.detach(), before.to(tensor.device)
    return torch.equal(one, other) or torch.equal(*(t.contiguous().flatten().view(torch.uint8) for t in (one, other)))


def _refuse_changes(model: nn.Module, marks: list[tuple[Tensor, int, int]]) -> None:
    for tensor, version, storage in marks:
        if tensor._version != version or _storage(tensor) != storage:
            names = [name for name, p in model.named_parameters() if p is tensor]
            what = f"the parameter '{printable(names[0])}'" if names else "a large tensor that the model keeps"
            raise BadRequest(
                f"the model's forward has changed {what} while it was measured, though the first passes of the run did "
                "not, so an evaluation more or less would change the training: change it in every pass from the first "
                "one on, or not in forward"
            )

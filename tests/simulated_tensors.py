"""Tracks which tensors are on a simulated GPU, their memory, and the values that the host waited for."""

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from simulated_device import SimulatedCuda, SimulatedGpu

aten = torch.ops.aten
WAITS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.nonzero_static, aten.masked_select, aten.equal, aten.is_nonzero),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.allclose, aten.bincount),
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # with a boolean index: a wait


class Tensors(TorchDispatchMode):
    """Tracks which storages are on a device, and allocates their memory."""

    def __init__(self, cuda: "SimulatedCuda") -> None:
        super().__init__()
        self.cuda = cuda
        self._homes: dict[int, tuple[Any, SimulatedGpu, Any, int]] = {}  # by storage: a weak reference, GPU, block, ...
        self._gone: list[int] = []
        self._pinned: dict[int, Any] = {}

    def home(self, tensor: Tensor) -> "SimulatedGpu | None":
        self.bury()
        storage = _storage(tensor)
        found = self._homes.get(storage._cdata) if storage is not None else None
        return found[1] if found else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        gpu = next((home for home in map(self.home, given) if home is not None), None)
        requested = kwargs.get("device")
        if isinstance(requested, torch.device) and requested.type == "cpu" and requested.index is not None:
            gpu = self.cuda.gpus[requested.index]
            if packet is aten._to_copy and self.home(args[0]) is gpu and _changes_nothing(args[0], kwargs):
                return aten.alias(args[0])  # it is already there
        if packet is aten.is_pinned:  # tensors on the device need not be pinned: CUDA's code checks their device
            return _is_in(self._pinned, args[0]) or gpu is not None
        if packet is aten._pin_memory:
            return self._pin(args[0].clone())
        pins = kwargs.get("pin_memory") is True
        if pins:
            kwargs = {**kwargs, "pin_memory": False}
        if gpu is not None:
            gpu.must_work()
            if gpu.before_kernel is not None:
                gpu.before_kernel(func)
        known = {storage._cdata for storage in map(_storage, given) if storage is not None}
        result = func(*args, **kwargs)
        if pins:
            return self._pin(result)
        if gpu is not None:
            torch.cuda.init()  # as the first kernel does
            gpu.open_context()
            self._settle(gpu, result, known)
            if packet is not aten.copy_:  # CUDA does not write to host tensors: it was made with `device=tensor.device`
                self._settle(gpu, _written_to(func, args, kwargs), set())
            if packet is not aten._local_scalar_dense and not _is_view(func, result, known):
                self.cuda.launch(gpu, func, result)
            if packet in WAITS or (packet in INDEXED and _by_bools(args[1])) or self._reads_back(packet, args):
                self.cuda.wait_for(gpu, func)
        return result

    def _settle(self, gpu: "SimulatedGpu", result: Any, known: set[int]) -> None:
        """Allocates the bytes of every new storage of `result` on the device."""
        for leaf in tree_leaves(result):
            storage = _storage(leaf) if isinstance(leaf, Tensor) else None
            if storage is None:
                continue
            key, size = storage._cdata, storage.nbytes()
            held = self._homes.get(key)
            if held is not None and held[3] != size:  # resized in place
                del self._homes[key]
                if held[2] is not None:
                    held[1].memory.release(held[2])
                held = None
            elif held is not None or key in known:
                continue
            block = gpu.memory.allocate(size) if size else None
            self._homes[key] = (weakref.ref(storage, lambda _, key=key: self._gone.append(key)), gpu, block, size)

    def bury(self) -> None:
        while self._gone:
            held = self._homes.get(self._gone[-1])
            key = self._gone.pop()
            if held is not None and held[0]() is None:
                del self._homes[key]
                if held[2] is not None:
                    held[1].memory.release(held[2])

    def _pin(self, tensor: Tensor) -> Tensor:
        self.cuda.pinned += 1
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._pinned[key] = weakref.ref(storage, lambda _: self._pinned.pop(key, None))
        return tensor

    def _reads_back(self, packet: Any, args: Any) -> bool:
        """A copy from the device to the host."""
        return packet is aten.copy_ and self.home(args[0]) is None and self.home(args[1]) is not None


def _written_to(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that the operator changes in place."""
    named = [(argument, args[place]) for place, argument in enumerate(func._schema.arguments[: len(args)])]
    named += [(argument, kwargs[argument.name]) for argument in func._schema.arguments if argument.name in kwargs]
    return [value for argument, value in named if argument.alias_info is not None and argument.alias_info.is_write]


def _storage(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage() if tensor.device.type == "cpu" else None
    except (NotImplementedError, RuntimeError):  # sparse ones, and wrappers of torch.func, have none
        return None


def _is_in(pinned: dict[int, Any], tensor: Tensor) -> bool:
    storage = _storage(tensor)
    return storage is not None and storage._cdata in pinned


def _changes_nothing(tensor: Tensor, kwargs: dict[str, Any]) -> bool:
    return kwargs.get("dtype") in (None, tensor.dtype) and kwargs.get("memory_format") in (None, torch.preserve_format)


def _by_bools(index: Any) -> bool:
    masks = (torch.bool, torch.uint8)
    return any(isinstance(part, Tensor) and part.dtype in masks for part in index)


def _is_view(func: Any, result: Any, known: set[int]) -> bool:
    if func._schema.is_mutable:
        return False
    storages = [_storage(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return bool(storages) and all(storage is not None and storage._cdata in known for storage in storages)

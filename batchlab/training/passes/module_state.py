"""What a model keeps outside of its state_dict, for checkpoints: buffers, modes, and attributes that passes change."""

import hashlib
import random
from collections import deque
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batchlab.training.passes.attributes import MISSING, OF_A_MODULE

CPU = torch.device("cpu")
PLAIN = (bool, int, float, str, bytes, type(None))
BUILT = {"list": list, "tuple": tuple, "set": set}  # containers that can be made again from their entries
LEFT = ("left",)  # in place of a value that cannot be saved, or that is saved elsewhere

Digests = Mapping[str, Mapping[str, bytes]]  # by module and attribute


def digests(model: nn.Module) -> Digests:
    """Of all attributes that can be saved; taken when a model was built, they show later which have changed."""
    return {path: {name: _digest(v) for name, v in own.items()} for path, own in _attributes(model).items()}


def captured(model: nn.Module, in_state_dict: Container[str], built: Digests) -> dict[str, Any]:
    """What `restored` needs, as plain values. Of attributes those that have changed since `built`."""
    changed = {
        path: {name: value for name, value in own.items() if built.get(path, {}).get(name) != _digest(value)}
        for path, own in _attributes(model).items()
    }
    return {
        # Buffers that are excluded from the model's state_dict (`persistent=False`) still belong to the run's state.
        "buffers": {name: buffer for name, buffer in model.named_buffers() if name not in in_state_dict},
        "buffer_names": [name for name, _ in model.named_buffers()],
        "empty_buffers": [name for name, _, _, buffer in _buffers(model) if buffer is None],
        "evaluating": [path for path, module in model.named_modules() if not module.training],
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "attributes": {path: own for path, own in changed.items() if own},
    }


def make_buffers_fit(model: nn.Module, content: Mapping[str, Any], device: torch.device) -> None:
    """Before `load_state_dict`: passes may have added buffers, or replaced them by others of another shape, or None by
    a tensor."""
    saved = {**content["model"], **content["buffers"]}
    here = {name for name, *_ in _buffers(model)}
    modules = dict(model.named_modules())
    for name in content.get("buffer_names", ()):
        path, _, own_name = name.rpartition(".")
        if name in saved and name not in here and path in modules:
            modules[path].register_buffer(own_name, None, persistent=name in content["model"])
    for name, module, own_name, buffer in _buffers(model):
        wanted = saved.get(name)
        if name in content.get("empty_buffers", ()):
            module._buffers[own_name] = None
        elif isinstance(wanted, Tensor) and not (_alike(buffer, wanted) or _is_lazy(buffer)):
            where = device if buffer is None else buffer.device
            module._buffers[own_name] = torch.empty_like(wanted, device=where)


def restored(model: nn.Module, content: Mapping[str, Any], device: torch.device) -> None:
    """After `load_state_dict`: restores the rest of what `captured` returned."""
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, buffer in content["buffers"].items():
            buffers[name].copy_(buffer)
    if "attributes" not in content:  # an older checkpoint
        return
    modules = dict(model.named_modules())
    for path, module in modules.items():
        module.training = path not in content["evaluating"]
    for name, p in model.named_parameters():
        p.requires_grad_(name not in content["frozen"])
    unchanged = _Encoder(set())  # an object that was in two attributes may be in one of them by now
    for path, module in modules.items():
        left = vars(module).keys() - OF_A_MODULE - content["attributes"].get(path, {}).keys()
        unchanged.kept([vars(module)[name] for name in left])
    decoder = _Decoder(device, unchanged.met())
    for path, own in content["attributes"].items():
        for name, kept in own.items():
            attributes = modules[path].__dict__
            if (value := decoder.value(attributes.get(name, MISSING), kept)) is not MISSING:
                attributes[name] = value


def _buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor | None]]:
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            yield f"{path}.{name}" if path else name, module, name, buffer


def _is_lazy(buffer: Tensor | None) -> bool:
    return buffer is not None and nn.parameter.is_lazy(buffer)


def _alike(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.shape == other.shape and one.dtype == other.dtype


def _attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Of each module, its attributes that can be saved, as `_Encoder` makes them plain."""
    encoder = _Encoder({id(t) for t in (*model.parameters(), *model.buffers())})
    found = {}
    for path, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in OF_A_MODULE}
        found[path] = {name: kept for name, value in own.items() if (kept := encoder.kept(value)) is not LEFT}
    return found


def _digest(kept: Any) -> bytes:
    """Equal for equal values, bit by bit."""
    found = hashlib.blake2b(digest_size=16)

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(value, tuple | list):
            found.update(f"{len(value)}".encode())
            for entry in value:
                add(entry)
        else:
            found.update(repr(value).encode())

    add(kept)
    return found.digest()


class _Encoder:
    """Makes values plain: numbers and texts stay, everything else becomes a tuple (kind, ...).

    An object that is met again becomes the same tuple, which `torch.save` keeps.
    """

    def __init__(self, elsewhere: set[int]) -> None:
        self._elsewhere = elsewhere  # ids of parameters and buffers
        self._known: dict[int, tuple[Any, Any]] = {}  # the second keeps the object alive, so that its id stays its own

    def kept(self, value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if id(value) not in self._known:
            self._known[id(value)] = LEFT, value  # a container may hold itself
            self._known[id(value)] = self._made(value), value
        return self._known[id(value)][0]

    def met(self) -> set[int]:
        """The ids of all objects so far."""
        return {*self._known}

    def _made(self, value: Any) -> Any:
        name = type(value).__name__
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic | complex):
            return self._array(np.asarray(value), name)
        if isinstance(value, dict):
            entries = [(key, self.kept(entry)) for key, entry in value.items() if type(key) in PLAIN]
            return ("dict", name, entries) if any(entry is not LEFT for _, entry in entries) or not value else LEFT
        if isinstance(value, list | tuple | set | deque):
            kept = [self.kept(entry) for entry in value]
            if isinstance(value, set):
                if not all(type(entry) in PLAIN for entry in value):
                    return LEFT
                kept = sorted(kept, key=repr)  # their order varies from process to process
            anything = any(entry is not LEFT for entry in kept) or not kept
            return ("entries", name, kept, getattr(value, "maxlen", None)) if anything else LEFT
        if isinstance(value, torch.Generator):
            return ("generator", value.get_state())
        if isinstance(value, random.Random) and type(value) is not random.SystemRandom:
            return ("random", self.kept(value.getstate()))
        if isinstance(value, np.random.Generator):
            return ("bits", self.kept(value.bit_generator.state))
        if isinstance(value, np.random.RandomState):
            return ("bits", self.kept(value.get_state(legacy=False)))
        return LEFT

    def _tensor(self, value: Tensor) -> Any:
        # A tensor with a graph is the result of an earlier pass: the next one replaces it.
        if id(value) in self._elsewhere or value.grad_fn is not None:
            return LEFT
        if value.layout is not torch.strided or value.is_meta or value.is_nested:
            return LEFT
        own = value.detach()
        whole = own.untyped_storage().nbytes() == own.nbytes
        return (
            "tensor",
            own.device == CPU,
            own if whole else own.clone(),
        )  # or it would save all of a large one

    def _array(self, array: Any, name: str) -> Any:
        try:
            return ("array", name, torch.from_numpy(array.copy()))
        except TypeError:  # of objects, or of texts
            return LEFT


class _Decoder:
    """The inverse of `_Encoder`. Objects that exist already are filled in place, because others may refer to them."""

    def __init__(self, device: torch.device, taken: set[int]) -> None:
        """Objects with the ids `taken` are not filled."""
        self._device = device
        self._made: dict[int, Any] = {}  # by the id of what was kept
        self._taken = taken  # and those that were filled: two attributes may have been one object at first

    def value(self, now: Any, kept: Any) -> Any:
        """What was `kept`, where there is `now`; MISSING if there is neither."""
        if type(kept) in PLAIN:
            return kept
        if kept[0] == LEFT[0]:
            return now
        if id(kept) not in self._made:
            if id(now) in self._taken:
                now = MISSING
            self._taken.add(id(now))
            self._made[id(kept)] = getattr(self, f"_{kept[0]}")(now, *kept[1:])
        return self._made[id(kept)]

    def _tensor(self, now: Any, on_cpu: bool, tensor: Tensor) -> Any:
        if _alike(now, tensor) and now.grad_fn is None:
            now.data.copy_(tensor)
            return now
        return tensor.to(CPU if on_cpu else self._device)

    def _array(self, now: Any, name: str, tensor: Tensor) -> Any:
        array = tensor.numpy()
        if isinstance(now, np.ndarray) and now.shape == array.shape and now.dtype == array.dtype:
            now[...] = array
            return now
        if name == "complex":
            return complex(array)
        return array if name == "ndarray" else array[()]

    def _dict(self, now: Any, name: str, entries: list[tuple[Any, Any]]) -> Any:
        here = now if type(now).__name__ == name else {} if name == "dict" else None
        if here is None:
            return now
        values = {key: self.value(here.get(key, MISSING), entry) for key, entry in entries}
        values = {key: value for key, value in values.items() if value is not MISSING}
        values |= {key: entry for key, entry in here.items() if type(key) not in PLAIN}
        here.clear()
        here.update(values)
        return here

    def _entries(self, now: Any, name: str, entries: list[Any], longest: int | None) -> Any:
        alike = type(now).__name__ == name
        if not alike and name not in (*BUILT, "deque"):
            return now
        before = list(now) if alike else []
        before += [MISSING] * (len(entries) - len(before))
        values = [self.value(old, entry) for old, entry in zip(before, entries, strict=False)]
        values = [None if value is MISSING else value for value in values]
        if not alike:
            return deque(values, longest) if name == "deque" else BUILT[name](values)
        if isinstance(now, tuple):
            return type(now)(*values) if hasattr(now, "_fields") else type(now)(values)
        now.clear()
        (now.update if isinstance(now, set) else now.extend)(values)
        return now

    def _generator(self, now: Any, state: Tensor) -> Any:
        here = now if isinstance(now, torch.Generator) else torch.Generator()
        here.set_state(state)
        return here

    def _random(self, now: Any, state: Any) -> Any:
        here = now if isinstance(now, random.Random) else random.Random()
        here.setstate(self.value(None, state))
        return here

    def _bits(self, now: Any, state: Any) -> Any:
        values = self.value(None, state)
        if isinstance(now, np.random.RandomState):
            now.set_state(values)
        elif isinstance(now, np.random.Generator):
            now.bit_generator.state = values
        return now

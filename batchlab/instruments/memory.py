"""The memory that training takes."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks

from batchlab.host.nvml import full_uuid, used_bytes
from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.task import Batch
from batchlab.training.data.batches import gather, held
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.passes.halving import give_back
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.state import RunState


class Memory(Instrument):
    """Peak bytes while training, and the bytes that one forward pass saves for its backward pass.

    `memory/peak_growth_bytes`, on every device: the most memory that training used beyond what was in use when it
    began, without the sets in memory and the weights.
    On CUDA `memory/peak_allocated_bytes` and `memory/peak_reserved_bytes` of PyTorch's allocator, and
    `memory/device_used_bytes`, all memory in use on the device at the end by NVML's count (including other processes).
    On the CPU `memory/peak_resident_bytes`, the growth of the process since the start of training. Everywhere
    `memory/saved_for_backward_bytes` of one micro-batch: exact, and the same on every device of one kind. Also what was
    in memory before training, counted from the tensors: `memory/resident_data_bytes` of the sets on the device,
    `memory/resident_model_bytes` of weights and buffers.
    """

    quantities = table.MEMORY

    def __init__(self, *, micro_batch_size: int) -> None:
        self.micro_batch_size = micro_batch_size

    def measure(self, state: RunState) -> Iterator[Measurement]:
        if state.step == 0:
            saved = self._saved(state)
            if saved is not None:
                yield state.measurement("memory/saved_for_backward_bytes", saved)

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        for name, peak in state.meter.peak_bytes.items():
            yield state.measurement(name, peak)
        sets, model = [*held(state.train), *held(state.val)], [*state.trained.parameters(), *state.trained.buffers()]
        yield state.measurement("memory/resident_data_bytes", storage_bytes(sets))
        yield state.measurement("memory/resident_model_bytes", storage_bytes(model))
        uuid = state.device.uuid()
        used = None if uuid is None else used_bytes(full_uuid(uuid))
        if used is not None:
            yield state.measurement("memory/device_used_bytes", used)

    def _saved(self, state: RunState) -> int | None:
        """None if the forward pass does not fit; the run's peaks are measured nevertheless."""
        try:
            # Gathered, not sliced: a slice would count as the storage of the whole set.
            return saved_for_backward_bytes(state, gather(state.train, torch.arange(self.micro_batch_size)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        give_back(state.device)  # after the except block, whose frames held the memory
        state.note("memory/saved_for_backward_bytes is not measured: its forward pass does not fit in memory")
        return None


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of each storage once, whole, because a view keeps all of it."""
    return sum({s.data_ptr(): s.nbytes() for t in tensors for s in _storages(t)}.values())


def _storages(tensor: Tensor) -> list[UntypedStorage]:
    """One, or two of a sparse tensor: where its values are, and the values."""
    parts = (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)
    return [part.untyped_storage() for part in parts]


def saved_for_backward_bytes(state: RunState, batch: Batch) -> int:
    """Bytes of the tensors that autograd keeps between forward and backward, each storage once, without weights."""
    own = {t.untyped_storage().data_ptr() for t in (*state.trained.parameters(), *state.trained.buffers())}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages.update({s.data_ptr(): s.nbytes() for s in _storages(tensor) if s.data_ptr() not in own})
        return tensor

    with leaving_no_trace(state.trained, state.device):
        set_mode(state.model, training=True)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = state.losses(batch)
            total = terms.sum()
        del terms, total
    return sum(storages.values())

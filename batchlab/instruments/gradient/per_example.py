"""The gradient of each example of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from batchlab.errors import BadRequest
from batchlab.instruments.gradient.unit_gradients import Scale, UnitGradients, summed_gradient
from batchlab.instruments.memory import saved_for_backward_bytes
from batchlab.task import Batch
from batchlab.training.data.batches import length, slices
from batchlab.training.data.collated import Collated
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.gradients import as_real
from batchlab.training.losses import Losses
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.state import RunState

CHUNK_BYTES = 64 * 2**20  # the minimum limit for gradients and activations in memory at once
FREE_SHARE = 1 / 8  # of a GPU's free memory; vmap takes as much again as is counted
ADVICE = "use instruments.noise_scale.method=micro_batches"


class NotPerExample(BadRequest):
    """The gradients of single examples cannot be computed, or are not defined."""


def per_example_norms(
    losses: Losses, batch: Batch, parameters: Sequence[Tensor], scales: Sequence[Scale], *, chunk: int
) -> Tensor:
    """`UnitGradients.squared_norms` with the examples as units, `chunk` of them in memory at once."""
    units = UnitGradients(scales)
    for piece in slices(batch, chunk):
        units.add(*per_example_gradients(losses, piece, parameters))
    return units.squared_norms()


def per_example_gradients(losses: Losses, batch: Batch, parameters: Sequence[Tensor]) -> tuple[Sequence[Tensor], int]:
    """The gradient of each example's summed loss, (examples, *the parameter's shape) for each parameter, and the terms
    of one example.

    By `torch.func`: each example is processed alone, as a batch of one, with its own dropout. NotPerExample if the
    model or the loss does not allow that.
    """
    if losses.is_scalar:
        raise NotPerExample(f"the task's loss is a scalar, so its gradients per example are not known: {ADVICE}")
    if isinstance(batch, Collated):
        raise NotPerExample(
            f"the task's collate makes a batch as a whole, so its gradients per example are not computed: {ADVICE}"
        )
    names = {id(p): name for name, p in losses.trained.named_parameters()}
    trained = {names[id(p)]: p.detach() for p in parameters}
    terms: list[int] = []

    def summed(trained: dict[str, Tensor], example: Batch) -> Tensor:
        one = rebuilt(example, [t.unsqueeze(0) for t in tensors(example)])
        own = losses.at(trained, one)
        terms.append(own.numel())
        return own.sum()

    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no vmap rule
            gradients = vmap(grad(summed), in_dims=(None, 0), randomness="different")(trained, batch)
    except Exception as error:  # of many kinds: control flow on values, a missing rule, fixed batch shapes
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
        raise NotPerExample(
            f"torch.func cannot compute this model's gradients per example ({reason}): {ADVICE}"
        ) from error
    if losses.count(batch) != length(batch) * terms[0]:
        raise NotPerExample(
            f"the examples of this task differ in their number of terms, so they cannot be processed singly: {ADVICE}"
        )
    return [as_real(gradients[names[id(p)]]) for p in parameters], terms[0]


def freeze_statistics(model: nn.Module) -> None:
    """Makes BatchNorm and similar layers use their running statistics, because with those of the batch single examples
    have no gradient. `leaving_no_trace` undoes it."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def refuse_company(losses: Losses, batch: Batch, parameters: Sequence[Tensor]) -> None:
    """NotPerExample if an example's gradient depends on the other examples of the batch, as with a contrastive loss or
    a BatchNorm without running statistics: computed alone it would differ, and the noise scale would be wrong.
    Dropout is switched off for the comparison; a model that is random without it cannot be compared and is accepted.
    """
    model = losses.model
    with leaving_no_trace(losses.trained, losses.precision.device):
        set_mode(model, training=True)
        freeze_statistics(model)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        together, again = (_flat(summed_gradient(losses, copied(batch), parameters)[0]) for _ in range(2))
        each = per_example_gradients(losses, copied(batch), parameters)[0]
        alone = _flat([g.sum(0) for g in each])
        # Relative to the examples' norms, not the batch's: if they cancel, the latter is only rounding.
        tolerance = 1e-3 * torch.cat([g.reshape(len(g), -1).double() for g in each], dim=1).norm(dim=1).sum()
        is_random = (together - again).norm() > tolerance
        if not is_random and (together - alone).norm() > tolerance:
            raise NotPerExample(
                "an example's gradient depends on the other examples of its batch (is there a loss or a layer that "
                f"uses all of them?), so per-example gradients are not defined: {ADVICE}"
            )


def examples_at_once(state: RunState, two: Batch) -> int:
    """How many examples' gradients and activations fit in the memory for them, at least 1; `two` is a trial batch.

    That memory is `CHUNK_BYTES`, or on a GPU a share of what is free: with a large model, one example at a time would
    leave it idle between the launches of thousands of passes. A power of two, so that slightly different free
    memory, as in a resumed run, does not change how the batch is split: dropout would draw other numbers.
    """
    weights = sum(p.nbytes for p in state.trained.parameters() if p.requires_grad)
    with sdpa_kernel(SDPBackend.MATH):
        activations = saved_for_backward_bytes(state, two) // length(two)
    share = int((state.device.free_bytes() or 0) * FREE_SHARE)
    available: int = max(CHUNK_BYTES, 2 ** share.bit_length() // 2)
    return max(1, available // (weights + activations))


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten().double() for g in gradients])

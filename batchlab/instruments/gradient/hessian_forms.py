"""g'Hg of a batch's gradient and of its parts' gradients: the full noise scale uses it instead of squared norms."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.instruments.curvature.hessian import LossSurface, loss_surface
from batchlab.instruments.gradient.unit_gradients import summed_gradient
from batchlab.task import Batch
from batchlab.training.data.batches import slices
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.losses import Count, Losses
from batchlab.training.state import RunState

HESSIAN_CHUNK = 128  # examples processed together, halved if they do not fit


def hessian_forms(
    state: RunState, losses: Losses, units: Sequence[Batch], others: Batch, *, micro_batch_size: int
) -> Tensor:
    """Mean over `units` of g_j'Hg_j, and g'Hg of the gradient g of all together: (2,), float64, on the device.

    H is the Hessian of the mean loss over `others`, an independent draw, so that its noise is independent of the
    gradients'; the loss is without dropout and with BatchNorm's running statistics. The gradients are those of
    `losses` in the model's current mode, with `micro_batch_size` examples at a time, and all are kept in memory.
    BadRequest if the model cannot be differentiated twice.
    """
    parameters = [p for p in state.trained.parameters() if p.requires_grad]
    summed, counts = zip(*(_summed(losses, unit, parameters, micro_batch_size) for unit in units), strict=True)
    whole = torch.stack(summed).sum(0) / sum(counts)
    # As in UnitGradients: the deviation of a unit, if they have different numbers of terms.
    mean_count = sum(counts) / len(counts)
    deviations = [(g - count * whole) / mean_count for g, count in zip(summed, counts, strict=True)]
    with loss_surface(state, others, chunk=HESSIAN_CHUNK, double=False) as surface:
        own, *deviating = (_form(surface, vector) for vector in (whole, *deviations))
    return torch.stack([own + torch.stack(deviating).mean(), own])


def _form(surface: LossSurface, vector: Tensor) -> Tensor:
    try:
        product = surface.hessian_product(vector.to(surface.dtype))
    except (RuntimeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        raise BadRequest(
            "instruments.noise_scale.full=true differentiates the loss twice, which this model does not support: "
            f"{str(error).strip().splitlines()[0]}; use instruments.noise_scale.full=false"
        ) from error
    return (vector.double() * product.double()).sum()


def _summed(losses: Losses, unit: Batch, parameters: Sequence[Tensor], micro_batch_size: int) -> tuple[Tensor, Count]:
    """The gradient of a unit's summed loss, concatenated, and its number of terms."""
    gradient, count = torch.zeros((), device=losses.precision.device.torch_device), cast("Count", 0)
    for batch in slices(unit, micro_batch_size):
        more, terms = summed_gradient(losses, batch, parameters)
        gradient, count = gradient + torch.cat([g.flatten() for g in more]), count + terms
    return gradient, count

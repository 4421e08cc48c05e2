"""The loss over fixed examples as a function of a model's weights: values, gradients, Hessian-vector products."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.data.batches import length, slices
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.losses import AVERAGED, Losses
from batchlab.training.passes.halving import halved
from batchlab.training.passes.inputs import repeatable
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.training.state import RunState


class LossSurface:
    """L(w): the mean loss over all terms of fixed examples at the trainable parameters w, concatenated, shape (n,).

    Examples are processed in chunks of `chunk`, weighted by their terms; a chunk that does not fit in memory is
    halved. The model's own weights are not changed. Use it inside `loss_surface`.
    """

    def __init__(self, losses: Losses, data: Batch, *, chunk: int, double: bool) -> None:
        model = losses.trained
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if any(p.is_complex() for p in trainable.values()):
            raise BadRequest("the Hessian of a loss is not computed where weights are complex: remove the instrument")
        wide = [torch.float64] if double else [torch.float32, *(p.dtype for p in trainable.values())]
        self.dtype = functools.reduce(torch.promote_types, wide)
        self.weights = torch.cat([p.detach().flatten().to(self.dtype) for p in trainable.values()])
        self._names = list(trainable)
        self._shapes = [p.shape for p in trainable.values()]
        self._sizes = [p.numel() for p in trainable.values()]
        others = {name: t for name, t in (*model.named_parameters(), *model.named_buffers()) if name not in trainable}
        self._fixed = {name: t.detach().to(self.dtype) for name, t in others.items() if t.is_floating_point()}
        self._losses = losses
        self._device = losses.precision.device
        self._data = data
        self._count = sum(map(losses.count, slices(data, chunk)))
        self.chunk = chunk

    def value(self, at: Tensor) -> float:
        """L(`at`)."""

        def one(batch: Batch) -> tuple[Tensor]:
            with torch.no_grad():
                return (self._loss(at, batch),)

        (loss,) = self._summed(one)
        return float(loss)

    def gradient(self, at: Tensor) -> tuple[float, Tensor]:
        """L(`at`) and its gradient, shape (n,)."""

        def one(batch: Batch) -> tuple[Tensor, Tensor]:
            here = at.detach().requires_grad_()
            loss = self._loss(here, batch)
            return loss.detach(), torch.autograd.grad(loss, here)[0]

        loss, gradient = self._summed(one)
        return float(loss), gradient

    def hessian_product(self, vector: Tensor) -> Tensor:
        """The Hessian at the model's own weights times `vector`, both (n,), by differentiating twice.

        RuntimeError or NotImplementedError if a part of the model cannot be differentiated twice.
        """

        def one(batch: Batch) -> tuple[Tensor]:
            here = self.weights.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._loss(here, batch), here, create_graph=True)
            if not gradient.requires_grad:  # a loss that is linear in its weights
                return (torch.zeros_like(here),)
            _refuse_dead_ends(gradient)
            return (torch.autograd.grad(gradient, here, vector)[0],)

        (product,) = self._summed(one)
        return product

    def _loss(self, at: Tensor, batch: Batch) -> Tensor:
        """The contribution of `batch` to L(`at`), 0-d."""
        if self._losses.task.reduction in AVERAGED and not self._losses.count(batch):  # the mean of no terms is nan
            return (at * 0.0).sum(dtype=torch.float64)
        self._device.seed(0)  # so that L is a function even if the model draws random numbers in eval mode
        pieces = [piece.view(shape) for piece, shape in zip(torch.split(at, self._sizes), self._shapes, strict=True)]
        weights = dict(zip(self._names, pieces, strict=True))
        return self._losses.at(weights | self._fixed, batch).sum(dtype=torch.float64) / self._count

    def _summed(self, one: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The sums of the results of `one` over all chunks."""

        def summed(chunk: int) -> tuple[Tensor, ...]:
            # Widened in chunks: a collated batch is collated anew.
            chunks = (rebuilt(batch, [self._widened(t) for t in tensors(batch)]) for batch in slices(self._data, chunk))
            parts = map(one, chunks)
            return functools.reduce(lambda total, part: tuple(map(torch.add, total, part)), parts)

        total, self.chunk = halved(summed, self.chunk, of=length(self._data), device=self._device)
        return total

    def _widened(self, tensor: Tensor) -> Tensor:
        wider = tensor.is_floating_point()
        return tensor.to(torch.promote_types(tensor.dtype, self.dtype)) if wider else tensor


def _refuse_dead_ends(gradient: Tensor) -> None:
    """RuntimeError if `gradient` passes through a function marked `once_differentiable`: autograd cannot follow it to
    the weights, and would silently take that part of the Hessian as 0."""
    seen, waiting = set(), [gradient.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("autograd::Error"):
            raise RuntimeError("one of its torch.autograd.Function is marked once_differentiable")
        seen.add(node)
        waiting.extend(before for before, _ in node.next_functions)


@contextlib.contextmanager
def loss_surface(state: RunState, data: Batch, *, chunk: int, double: bool) -> Iterator[LossSurface]:
    """The loss over `data` around the run's weights, in eval mode (no dropout, BatchNorm's running statistics), in
    float32 without TF32, or float64 if requested or if the weights are; leaves no trace, and on CUDA its memory is
    released, or it would count in training's reserved bytes.
    Kernels that cannot be differentiated twice are replaced: fused attention, and cuDNN's recurrent layers, whose
    backward pass also requires training mode.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in state.model.modules())
    with (
        leaving_no_trace(state.trained, state.device),
        state.precision.full() as fp32,
        sdpa_kernel(SDPBackend.MATH),
        _without_cudnn() if recurrent else contextlib.nullcontext(),
    ):
        state.trained.eval()
        yield LossSurface(repeatable(state, fp32), data, chunk=chunk, double=double)


@contextlib.contextmanager
def _without_cudnn() -> Iterator[None]:
    # Not cudnn.flags(), which sets all the other flags as well.
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before

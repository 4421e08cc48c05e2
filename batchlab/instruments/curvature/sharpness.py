"""The sharpness of the minimum: at the end, and where the training loss first reaches given levels."""

import math
from collections.abc import Iterator, Sequence

import torch

from batchlab.config.values import is_finite
from batchlab.errors import BadRequest
from batchlab.instruments.curvature.hessian import loss_surface
from batchlab.instruments.instrument import Instrument, check, is_count
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.science.curvature.sharpness import asam, keskar, sam
from batchlab.science.curvature.spectrum import extreme_eigenvalues, trace
from batchlab.task import Batch
from batchlab.training.data.batches import gather, length, slices
from batchlab.training.data.order import stream_seed
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.state import RunState

BASIS_BYTES = 2**30  # memory limit of the Krylov basis
KESKAR_EPSILON, KESKAR_ITERATIONS = 1e-3, 10  # of the paper


class Sharpness(Instrument):
    """Curvature and sharpness of the training loss around the weights, at the end and at matched training loss.

    All for the mean loss over the same `examples` of the training set for every batch size and seed, in eval mode and
    without augmentation. At the end, in the group `sharpness`:
    - `loss`: that loss itself, on which everything below depends.
    - `lambda_max`, `lambda_min`: the ends of the Hessian's spectrum by Lanczos; low and high are -+ the residual.
    - `trace`: of the Hessian by Hutchinson's estimator, with the 95% interval over its `probes`.
    - `sam`: the increase of the loss in a step of length `rho` uphill; `asam`: the same with the step relative to each
      weight, length `asam_rho`, which is invariant to rescaling layers.
    - `keskar`: Keskar's metric in percent, a lower bound of it.
    And the same in the group `sharpness_at_loss_<level>` at the first check at which the loss is at or below one of
    the `levels`. Checks are `every` examples apart (default: a window of the training loss) and at least a step, the
    same for all batch sizes; the group's `loss` shows how far below the level it was. A level that the run starts
    below, never reaches, or skips on the way to a lower one has no measurement.

    A measurement takes at most `products` + 2 + `probes` products with the Hessian, each as long as two to four
    gradients of `examples`, fewer if both eigenvalues reach `tolerance` x the larger |one| sooner, and 25 to 100
    gradients for Keskar's metric. A check costs a forward pass of `examples`, and nothing after the last level.
    `double` computes in float64. Examples are processed in chunks of `chunk`, halved if they do not fit.
    """

    quantities = table.SHARPNESS

    def __init__(
        self,
        *,
        log_every: int,
        seed: int,
        levels: Sequence[float] = (0.5, 0.2, 0.1),
        every: int | None = None,
        examples: int = 512,
        chunk: int = 256,
        double: bool = False,
        products: int = 60,
        tolerance: float = 1e-3,
        probes: int = 32,
        rho: float = 0.05,
        asam_rho: float = 0.5,
    ) -> None:
        self.every: int | None = log_every if every is None else every
        counts = {"every": (self.every, 1), "examples": (examples, 1), "chunk": (chunk, 1)}
        for name, (count, least) in (counts | {"products": (products, 3), "probes": (probes, 2)}).items():
            check(f"sharpness.{name}", count, is_count(count, least), f"an integer of at least {least}")
        for name, size in {"tolerance": tolerance, "rho": rho, "asam_rho": asam_rho}.items():
            check(f"sharpness.{name}", size, is_finite(size) and size > 0, "a number above 0")
        are_losses = isinstance(levels, Sequence) and all(is_finite(level) and level > 0 for level in levels)
        check("sharpness.levels", levels, are_losses, "losses above 0, such as [0.5,0.2,0.1], or [] for none")
        check("sharpness.double", double, isinstance(double, bool), "true or false")
        self.seed = seed
        self.examples, self.chunk, self.double = examples, chunk, double
        self.products, self.tolerance, self.probes = products, tolerance, probes
        self.rho, self.asam_rho = rho, asam_rho
        self._levels = sorted({float(level) for level in levels})  # not reached yet

    def measure(self, state: RunState) -> Iterator[Measurement]:
        if state.step == 0:
            self._refuse_unless_able(state)
        if not self._levels:
            return
        data = self._data(state)
        loss = self._loss(state, data)
        reached = [level for level in self._levels if loss <= level]
        self._levels = [level for level in self._levels if loss > level]
        if reached and state.step > 0:
            yield from self._measured(state, data, f"sharpness_at_loss_{reached[0]:g}", loss)

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        data = self._data(state)
        yield from self._measured(state, data, "sharpness", self._loss(state, data))

    def state_dict(self) -> StateDict:
        return {"levels": list(self._levels)}

    def load_state_dict(self, state: StateDict) -> None:
        self._levels = list(state["levels"])

    def _data(self, state: RunState) -> Batch:
        """The examples: a fixed draw that does not depend on the run's seed."""
        generator = torch.Generator().manual_seed(stream_seed("sharpness", "examples"))
        return gather(state.train, torch.randperm(length(state.train), generator=generator)[: self.examples])

    def _loss(self, state: RunState, data: Batch) -> float:
        with loss_surface(state, data, chunk=self.chunk, double=self.double) as surface:
            return surface.value(surface.weights)

    def _measured(self, state: RunState, data: Batch, group: str, loss: float) -> Iterator[Measurement]:
        n = length(data)
        yield state.measurement(f"{group}/loss", loss, n=n)
        if not math.isfinite(loss):
            return  # no sharpness is defined
        # From the run's seed and the group: no state is needed for resuming, and batch sizes are paired.
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "sharpness", group))
        with loss_surface(state, data, chunk=self.chunk, double=self.double) as surface:
            weights = surface.weights
            ends = extreme_eigenvalues(
                surface.hessian_product,
                torch.randn(len(weights), generator=generator).to(weights),
                tolerance=self.tolerance,
                most_products=self.products,
                most_vectors=min(40, max(12, BASIS_BYTES // weights.nbytes)),
            )
            traced = trace(surface.hessian_product, weights, probes=self.probes, generator=generator)
            _, gradient = surface.gradient(weights)
            rises = {
                "sam": sam(surface.value, weights, gradient, rho=self.rho),
                "asam": asam(surface.value, weights, gradient, scale=weights.abs(), rho=self.asam_rho),
                "keskar": keskar(
                    surface.gradient,
                    weights,
                    epsilon=KESKAR_EPSILON,
                    iterations=KESKAR_ITERATIONS,
                    generator=generator,
                ),
            }
        for name, end in (("lambda_max", ends.largest), ("lambda_min", ends.smallest)):
            low, high = end.value - end.residual, end.value + end.residual
            yield state.measurement(f"{group}/{name}", end.value, low=low, high=high, n=n)
        yield state.measurement(f"{group}/trace", traced.value, low=traced.low, high=traced.high, n=traced.n)
        for name, rise in rises.items():
            yield state.measurement(f"{group}/{name}", rise, n=n)

    def _refuse_unless_able(self, state: RunState) -> None:
        """BadRequest, before the first step, if the model cannot be differentiated twice."""
        data = next(slices(self._data(state), self.chunk))
        with loss_surface(state, data, chunk=self.chunk, double=self.double) as surface:
            _, gradient = surface.gradient(surface.weights)  # an error here does not come from the second derivative
            try:
                surface.hessian_product(gradient)
            except (RuntimeError, NotImplementedError) as error:
                if is_out_of_memory(error):
                    raise
                raise BadRequest(
                    "instruments.sharpness differentiates the loss twice, which this model does not support: "
                    f"{str(error).strip().splitlines()[0]}; remove the instrument with ~instruments.sharpness"
                ) from error

"""How much the gradient varies between batches and between steps, and the relative size of an update."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from batchlab.instruments.gradient.gradient_norm import batch_gradient
from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.science.statistics.samples import positive_mean, sample_mean
from batchlab.science.statistics.uncertainty import Interval
from batchlab.training.data.batches import length
from batchlab.training.data.order import stream_seed
from batchlab.training.gradients import clip, inner_product, norm
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.training.state import RunState
from batchlab.training.updates.closures import Closure
from batchlab.training.updates.modes import to_training
from batchlab.training.updates.rehearsal import rehearse_update
from batchlab.training.updates.twin import twin

LEAST_PAIRS, MOST_PAIRS = 10, 100
PAIRED_EXAMPLES = 512  # examples, twice: small batches are cheap, and their gradients have heavy tails

Gradients = Mapping[nn.Parameter, Tensor]


class GradientStatistics(Instrument):
    """Statistics of the gradient of a batch of the run's size, as in training, at the current weights.

    `gradient/variance`: the trace of its covariance, over batches drawn without replacement: half the squared distance
    of two independent ones, averaged over `pairs` of them (unbiased; interval on the log scale). If the loss is a mean
    over examples it is tr(Sigma) (1/B - 1/N), and 0 at B = N; it includes dropout's noise, but not a task's `augment`.
    From the first step on, over `steps` trial steps, each undone afterwards: the run's optimizer with its state, the
    learning rate of the last step and clipping, on the first two batches of a new data order.
    `gradient/cosine_successive`: between the gradient of the first batch at these weights and that of the second at
    the weights after the step. `gradient/update_to_weight_ratio`: |w' - w| / |w|, over all weights together. Neither
    with an optimizer that computes the loss itself (LBFGS).
    `every` is in examples, default: an eighth of the budget. It costs 2 `pairs` + 2 `steps` passes of a batch.
    """

    quantities = table.GRADIENT_STATISTICS

    def __init__(
        self,
        *,
        batch_size: int,
        micro_batch_size: int,
        budget: int,
        clip_norm: float | None,
        seed: int,
        every: int | None = None,
        pairs: int | None = None,
        steps: int = 5,
    ) -> None:
        for key, value in {"every": every, "pairs": pairs, "steps": steps}.items():
            check_count(f"gradient_statistics.{key}", value)
        self.every: int | None = every or max(1, budget // 8)
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.clip_norm = clip_norm
        self.pairs = pairs or min(max(PAIRED_EXAMPLES // batch_size, LEAST_PAIRS), MOST_PAIRS)
        self.steps = steps
        self._said = False  # what is left out
        self._generator = torch.Generator().manual_seed(stream_seed(seed, "gradient statistics"))

    def measure(self, state: RunState) -> Iterator[Measurement]:
        with leaving_no_trace(state.trained, state.device, weights=False):  # `stepped` restores them
            variance = positive_mean([self._half_squared_distance(state) for _ in range(self.pairs)])
            # Before the first step only the loop knows its learning rate: a warm-up may begin at 0.
            trial_steps = self.steps if state.step and not self._needs_closure(state) else 0
            successive = [self._step(state) for _ in range(trial_steps)]
        found = {"gradient/variance": variance}
        if successive:
            cosines, ratios = zip(*successive, strict=True)
            found["gradient/cosine_successive"] = _within_one(sample_mean(cosines))
            found["gradient/update_to_weight_ratio"] = sample_mean(ratios)
        for name, seen in found.items():
            yield state.measurement(name, seen.value, low=seen.low, high=seen.high, n=seen.n)

    def state_dict(self) -> StateDict:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: StateDict) -> None:
        self._generator.set_state(state["generator"])

    def _needs_closure(self, state: RunState) -> bool:
        """Whether the optimizer computes the loss itself (LBFGS), so that it makes no step with a given gradient."""
        if rehearse_update(state.optimizer, state.precision, None).closure is Closure.NONE:
            return False
        if not self._said:
            self._said = True
            state.note(
                f"instruments.{self.instrument_name} leaves out trial steps (gradient/cosine_successive, "
                f"gradient/update_to_weight_ratio): {type(state.optimizer).__name__} computes the loss itself"
            )
        return True

    def _half_squared_distance(self, state: RunState) -> float:
        first, second = (self._gradient(state, self._order(state)[: self.batch_size]) for _ in range(2))
        return squared_distance(first, second) / 2

    def _step(self, state: RunState) -> tuple[float, float]:
        """The cosine of two successive gradients, and the norm of the update between them over that of the weights."""
        order = torch.cat([self._order(state), self._order(state)])  # across epochs, as in training
        gradient = self._gradient(state, order[: self.batch_size])
        with stepped(state, gradient, self.clip_norm) as ratio:
            following = self._gradient(state, order[self.batch_size : 2 * self.batch_size])
        return cosine(gradient, following), ratio

    def _gradient(self, state: RunState, index: Tensor) -> Gradients:
        # Seed dropout, or every draw would use the same mask; the caller restores the streams.
        state.device.seed(int(torch.randint(2**62, (), generator=self._generator)))
        return batch_gradient(state, index, self.micro_batch_size)

    def _order(self, state: RunState) -> Tensor:
        n = length(state.train)
        # The whole set is the same batch in any order: with a fixed order rounding is the same too, and the variance 0.
        return torch.arange(n) if self.batch_size == n else torch.randperm(n, generator=self._generator)


@contextlib.contextmanager
def stepped(state: RunState, gradient: Gradients, clip_norm: float | None) -> Iterator[float]:
    """Updates the weights with the run's optimizer and `gradient`, and restores them afterwards.

    Yields the norm of the update over that of the weights, |w' - w| / |w|. Use it inside `leaving_no_trace`, which
    restores the gradients.
    """
    parameters = [p for p in state.trained.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = twin(state.optimizer, {p: p for p in state.trained.parameters()})
    try:
        start = [p.detach().clone() for p in parameters] if to_training(optimizer) else before
        for p in parameters:
            # A clone, because clipping and SGD with Nesterov momentum write into it.
            p.grad = gradient[p].clone() if p in gradient else None
        if clip_norm is not None:
            clip(parameters, clip_norm)
        optimizer.step()
        with torch.no_grad():
            change = norm([p - b for p, b in zip(parameters, start, strict=True)]).item()
        size = norm(start).item()
        yield change / size if size else math.inf
    finally:
        with torch.no_grad():
            for p, weights in zip(parameters, before, strict=True):
                p.copy_(weights)


def _within_one(cosine: Interval) -> Interval:
    """Clips the interval of a mean cosine to [-1, 1], which a t interval of a few values may exceed."""
    if cosine.low is None or cosine.high is None:
        return cosine
    return replace(cosine, low=max(cosine.low, -1.0), high=min(cosine.high, 1.0))


def squared_distance(first: Gradients, second: Gradients) -> float:
    """|first - second|^2; a missing gradient counts as 0."""
    both = dict.fromkeys([*first, *second])
    apart = [first[p] - second[p] if p in first and p in second else first.get(p, second.get(p)) for p in both]
    return norm([t for t in apart if t is not None]).item() ** 2


def cosine(first: Gradients, second: Gradients) -> float:
    """The cosine of the angle between two gradients; nan if one is 0 or not finite."""
    products = [inner_product(first[p], second[p]) for p in first if p in second]
    size = (norm(list(first.values())) * norm(list(second.values()))).item()
    return torch.stack(products).sum().item() / size if size else math.nan

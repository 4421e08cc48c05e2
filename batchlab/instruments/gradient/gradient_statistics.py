"""How much the gradient differs from batch to batch and from step to step, and how far a step goes."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from batchlab.instruments.gradient.gradient_norm import batch_gradient, norm
from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.science.statistics.samples import positive_mean, sample_mean
from batchlab.science.statistics.uncertainty import Interval
from batchlab.training.data.batches import length, stream_seed
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.training.state import RunState
from batchlab.training.updates.twin import twin

LEAST_PAIRS, MOST_PAIRS = 10, 100
PAIRED_EXAMPLES = 512  # small batches are cheap, and their gradients have heavy tails: so many examples, twice

Gradients = Mapping[nn.Parameter, Tensor]


class GradientStatistics(Instrument):
    """Of the gradient of a batch of the run's own size, as training computes it, at the present weights.

    `gradient/variance`: the trace of its covariance, over draws of batches without replacement: half the squared
    distance of two independent ones, averaged over `pairs` of them (unbiased; interval on the scale of logarithms).
    Where the loss is a mean over examples it is tr(Sigma) (1/B - 1/N), and 0 at B = N; dropout's noise is part of it,
    a task's `augment` is not.

    From the first step on, over `steps` steps that training could make from here, each taken back: the run's optimizer
    with its state, the rate of the last step and clipping, on the first two batches of a fresh order of the examples.
    `gradient/cosine_successive`: between the gradient of the first at these weights and of the second at those that
    the step leads to. `gradient/update_to_weight_ratio`: |w' - w| / |w|, over all weights together.

    `every` is in examples, by default an eighth of the budget: it costs 2 `pairs` + 2 `steps` passes of a batch.
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
        self._generator = torch.Generator().manual_seed(stream_seed(seed, "gradient statistics"))

    def measure(self, state: RunState) -> Iterator[Measurement]:
        with leaving_no_trace(state.model, state.device):
            variance = positive_mean([self._half_squared_distance(state) for _ in range(self.pairs)])
            # Before the first step nobody but the loop knows its rate: a warm-up may begin at none.
            successive = [self._step(state) for _ in range(self.steps)] if state.step else []
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

    def _half_squared_distance(self, state: RunState) -> float:
        first, second = (self._gradient(state, self._order(state)[: self.batch_size]) for _ in range(2))
        return squared_distance(first, second) / 2

    def _step(self, state: RunState) -> tuple[float, float]:
        """The cosine of two successive gradients, and the size of the update between them over that of the weights."""
        row = torch.cat([self._order(state), self._order(state)])  # straddling epochs, as training's own does
        gradient = self._gradient(state, row[: self.batch_size])
        with stepped(state, gradient, self.clip_norm) as ratio:
            following = self._gradient(state, row[self.batch_size : 2 * self.batch_size])
        return cosine(gradient, following), ratio

    def _gradient(self, state: RunState, index: Tensor) -> Gradients:
        # Dropout's streams, or every draw would fall under the same mask; the caller sets them back.
        state.device.seed(int(torch.randint(2**62, (), generator=self._generator)))
        return batch_gradient(state, index, self.micro_batch_size)

    def _order(self, state: RunState) -> Tensor:
        n = length(state.train)
        # The whole set is one batch however it is drawn: in one order its rounding is one too, and the variance 0.
        return torch.arange(n) if self.batch_size == n else torch.randperm(n, generator=self._generator)


@contextlib.contextmanager
def stepped(state: RunState, gradient: Gradients, clip_norm: float | None) -> Iterator[float]:
    """Inside, the weights are those after an update of the run's optimizer with `gradient`; then they are as before.

    Yields the size of the update over that of the weights, |w' - w| / |w|. To be used inside `leaving_no_trace`, which
    sets back the gradients.
    """
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = twin(state.optimizer, {p: p for p in state.model.parameters()})
    try:
        for p in parameters:
            # A clone: clipping, and SGD with Nesterov's momentum, write into it.
            p.grad = gradient[p].clone() if p in gradient else None
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        with torch.no_grad():
            change = norm([p - b for p, b in zip(parameters, before, strict=True)]).item()
        size = norm(before).item()
        yield change / size if size else math.inf
    finally:
        with torch.no_grad():
            for p, weights in zip(parameters, before, strict=True):
                p.copy_(weights)


def _within_one(cosine: Interval) -> Interval:
    """A mean of cosines: t's interval of a few of them would reach beyond what a cosine can be."""
    if cosine.low is None or cosine.high is None:
        return cosine
    return replace(cosine, low=max(cosine.low, -1.0), high=min(cosine.high, 1.0))


def squared_distance(first: Gradients, second: Gradients) -> float:
    """|first - second|^2, where a parameter that has no gradient has one of 0."""
    both = dict.fromkeys([*first, *second])
    apart = [first[p] - second[p] if p in first and p in second else first.get(p, second.get(p)) for p in both]
    return norm([t for t in apart if t is not None]).item() ** 2


def cosine(first: Gradients, second: Gradients) -> float:
    """The cosine of the angle between two gradients; nan where one is 0 or not finite."""
    products = [(first[p].double() * second[p]).sum() for p in first if p in second]
    size = (norm(list(first.values())) * norm(list(second.values()))).item()
    return torch.stack(products).sum().item() / size if size else math.nan

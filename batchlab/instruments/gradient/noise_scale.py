"""The gradient noise scale."""

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.instruments.gradient.hessian_forms import hessian_forms
from batchlab.instruments.gradient.per_example import (
    ADVICE,
    NotPerExample,
    examples_at_once,
    freeze_statistics,
    per_example_norms,
    refuse_company,
)
from batchlab.instruments.gradient.unit_gradients import Scale, adam_scale, micro_batch_norms
from batchlab.instruments.instrument import Instrument, check, check_count, is_count
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.science.scaling.noise_scale import NoiseScale, noise_scale
from batchlab.task import Batch, Task
from batchlab.training.data.batches import gather, gathered, length, slices
from batchlab.training.data.order import stream_seed
from batchlab.training.losses import Losses
from batchlab.training.passes.halving import halved
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.state import RunState

METHODS = ("auto", "micro_batches", "per_example")
DRAW = 256  # examples, if there are as many: with 10 draws it resolves noise scales up to about 1,000
PARTS = 8  # micro-batches of a draw, at least
INTERVALS = 4.5  # per run, between measurements: so the fourth is not just before the end


class GradientNoiseScale(Instrument):
    """`noise/scale_examples`: the batch size at which the gradient's noise equals its signal (B_simple of McCandlish et
    al. 2018, arXiv:1812.06162), with its 95% interval.

    Also its parts, `noise/squared_gradient_norm` (|G|^2 of the training set) and `noise/gradient_variance` (tr Sigma of
    one example), which may be averaged, unlike their ratio. If the signal is lost in the noise the scale is not
    resolved: its value and its upper end are then infinite, and its lower end is a lower bound.
    Each measurement takes `draws` batches of `examples`, without replacement and corrected for it, with its own
    generator, at the current weights, in training mode and fp32 (or the model's dtype if it is wider), before clipping
    and weight decay. Dropout is part of the noise, a task's `augment` is not. With draws of the whole training set
    dropout is the only noise. The `method`:
    - `micro_batches` compares batches of `examples` with their micro-batches (the run's own, smaller if a draw would
      have fewer than 8 of them). BatchNorm uses the statistics of each micro-batch, as in training.
    - `per_example` compares them with single examples. BatchNorm uses its running statistics, because with those of the
      batch single examples have no gradient: in the first steps, before they have settled, the model differs.
    - `auto` is `micro_batches` in a run that accumulates, or where the task's loss is a scalar, else `per_example`;
      where single examples have no gradient of their own it changes to `micro_batches`, with a note.
    If Adam's second moments exist, also `noise/adam_scale_examples`, of the gradient as Adam rescales it (`adam: false`
    switches it off). With `full` also `noise/full_scale_examples`, tr(H Sigma)/(G'HG), at 9 Hessian products a draw.
    With `per_layer` also `noise/scale_examples.<layer>` of the parameters of each module. Names begin with `group`, to
    distinguish a second instrument. `every` is in examples; by default it measures at the start, four times during the
    run and at its end.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        micro_batch_size: int,
        eval_every: int,
        budget: int,
        seed: int,
        task: Task | None = None,
        method: str = "auto",
        draws: int = 10,
        examples: int | None = None,
        adam: str | bool = "auto",
        full: bool = False,
        per_layer: bool = False,
        group: str = "noise",
        every: int | None = None,
        instrument_name: str = "noise_scale",
    ) -> None:
        for key, value, fits, allowed in (
            ("method", method, method in METHODS, f"one of {', '.join(METHODS)}"),
            ("draws", draws, is_count(draws, 10), "an integer of at least 10: fewer rarely resolve the noise scale"),
            ("examples", examples, examples is None or is_count(examples, PARTS), f"null, or at least {PARTS}"),
            ("adam", adam, adam in ("auto", False), "auto or false"),
            ("full", full, isinstance(full, bool), "true or false"),
            ("per_layer", per_layer, isinstance(per_layer, bool), "true or false"),
        ):
            check(f"{instrument_name}.{key}", value, fits, allowed)
        check_count(f"{instrument_name}.every", every)
        # Distances between validations are equal for all batch sizes, budgets only nearly so.
        self.every: int | None = every or eval_every * max(1, round(budget / eval_every / INTERVALS))
        scalar = task is not None and task.reduction not in (None, "none")
        fitting = "micro_batches" if scalar or micro_batch_size < batch_size else "per_example"
        self.method = fitting if method == "auto" else method
        self._may_change = method == "auto"
        self.micro_batch_size = micro_batch_size
        self.draws, self.examples = draws, examples
        self.adam, self.full, self.per_layer = adam is not False, full, per_layer
        self.group, self.name = group, instrument_name
        self.quantities = table.noise_scale(group)
        self._generator = torch.Generator().manual_seed(stream_seed(seed, "noise_scale", group, self.method))
        self._chunk = 0  # examples whose gradients are in memory at once; set when measuring

    def measure(self, state: RunState) -> Iterator[Measurement]:
        try:
            yield from self._measured(state)
        except NotPerExample as error:  # in a later draw: other examples differ in their number of terms
            self._change_method(state, error)
            yield from self._measured(state)

    def _measured(self, state: RunState) -> Iterator[Measurement]:
        named = {name: p for name, p in state.trained.named_parameters() if p.requires_grad}
        parameters = list(named.values())
        adam = adam_scale(state.optimizer, parameters) if self.adam else None
        scales: list[Scale] = [None] if adam is None else [None, adam]
        self._sizes(length(state.train))  # before anything is drawn
        with leaving_no_trace(state.trained, state.device), state.precision.full() as fp32:
            losses = Losses(state.model, state.task, fp32)
            torch.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))  # for dropout
            self._prepare(state, losses, parameters)
            examples, unit = self._sizes(length(state.train))
            norms_of = self._norms_of(state, losses, unit, parameters, scales)
            set_mode(state.model, training=True)
            forms = [self._forms(state, losses, examples) for _ in range(self.draws)] if self.full else []
            if self.method == "per_example":
                freeze_statistics(state.model)
            norms = [norms_of(self._draw(state, examples)) for _ in range(self.draws)]

        population = length(state.train)
        small, big = torch.stack(norms).cpu().numpy().transpose(1, 2, 0, 3)  # each (scales, draws, parameters)
        seen = functools.partial(noise_scale, b_small=unit, b_big=examples, population=population)
        whole = seen(small[0].sum(-1), big[0].sum(-1))
        yield self._measurement(state, "scale_examples", whole)
        for name, part in (("squared_gradient_norm", whole.signal), ("gradient_variance", whole.noise)):
            yield state.measurement(f"{self.group}/{name}", part.value, low=part.low, high=part.high, n=part.n)
        if adam is not None:
            yield self._measurement(state, "adam_scale_examples", seen(small[1].sum(-1), big[1].sum(-1)))
        if self.full:
            eighth = self._eighth(examples)
            curved = noise_scale(
                *torch.stack(forms).cpu().numpy().T, b_small=eighth, b_big=PARTS * eighth, population=population
            )
            yield self._measurement(state, "full_scale_examples", curved)
        if self.per_layer:
            for layer, columns in _layers(list(named)).items():
                scale = seen(small[0][:, columns].sum(-1), big[0][:, columns].sum(-1))
                yield self._measurement(state, f"scale_examples.{layer}", scale)

    def state_dict(self) -> StateDict:
        return {"generator": self._generator.get_state(), "method": self.method}

    def load_state_dict(self, state: StateDict) -> None:
        self._generator.set_state(state["generator"])
        self.method = state.get("method", self.method)  # checkpoints of before had none

    def _sizes(self, population: int) -> tuple[int, int]:
        """The examples of a draw, and of each of its equal parts."""
        examples = self.examples or min(DRAW, population)
        if population < PARTS:
            raise BadRequest(
                f"a noise scale needs at least {PARTS} training examples, and there are {population}: "
                f"use ~instruments.{self.name}"
            )
        if examples > population:
            raise BadRequest(
                f"instruments.{self.name}.examples={examples} is more than the training set of {population} examples: "
                f"use at most {population}, or null"
            )
        unit = 1 if self.method == "per_example" else min(self.micro_batch_size, max(2, examples // PARTS))
        return examples - examples % unit, unit

    def _eighth(self, examples: int) -> int:
        """Examples of each gradient of the full noise scale: an eighth of the draw, and whole micro-batches."""
        return examples // PARTS - examples // PARTS % min(self.micro_batch_size, examples // PARTS)

    def _norms_of(
        self, state: RunState, losses: Losses, unit: int, parameters: Sequence[Tensor], scales: Sequence[Scale]
    ) -> Callable[[Tensor], Tensor]:
        """The function that computes the squared norms of the batch with these indices, for the method."""
        if self.method == "micro_batches":

            def of_units(index: Tensor) -> Tensor:
                units = gathered(state.train, index, [unit] * (len(index) // unit))
                return micro_batch_norms(losses, units, parameters, scales)

            return of_units

        def of_examples(index: Tensor) -> Tensor:
            batch = gather(state.train, index)

            def in_chunks(chunk: int) -> Tensor:
                return per_example_norms(losses, batch, parameters, scales, chunk=chunk)

            norms, self._chunk = halved(in_chunks, self._chunk, of=length(batch), device=state.device)
            return norms

        return of_examples

    def _prepare(self, state: RunState, losses: Losses, parameters: Sequence[Tensor]) -> None:
        """Before the first measurement: how many examples are in memory at once; or if single examples have no
        gradient, a change to micro-batches. BadRequest if the other method is requested."""
        if self.method == "micro_batches" or self._chunk:
            return
        try:
            # The first examples, not drawn ones: a resumed run repeats this, and its later draws would change.
            refuse_company(losses, gather(state.train, torch.arange(PARTS)), parameters)
            self._chunk = examples_at_once(state, gather(state.train, torch.arange(2)))
        except NotPerExample as error:
            self._change_method(state, error)

    def _change_method(self, state: RunState, error: NotPerExample) -> None:
        """To micro-batches, if the method is `auto`; otherwise raises `error`, the reason."""
        if not self._may_change or self.method == "micro_batches":
            raise error
        self.method = "micro_batches"
        reason = str(error).removesuffix(f": {ADVICE}")
        state.note(f"instruments.{self.name} compares micro-batches instead of single examples: {reason}")

    def _forms(self, state: RunState, losses: Losses, examples: int) -> Tensor:
        eighth = self._eighth(examples)
        units, others = self._drawn(state, PARTS * eighth), self._drawn(state, PARTS * eighth)
        together = min(self.micro_batch_size, eighth)
        return hessian_forms(state, losses, [*slices(units, eighth)], others, micro_batch_size=together)

    def _drawn(self, state: RunState, examples: int) -> Batch:
        return gather(state.train, self._draw(state, examples))

    def _draw(self, state: RunState, examples: int) -> Tensor:
        return torch.randperm(length(state.train), generator=self._generator)[:examples]

    def _measurement(self, state: RunState, name: str, scale: NoiseScale) -> Measurement:
        return state.measurement(f"{self.group}/{name}", scale.examples, low=scale.low, high=scale.high, n=scale.draws)


def _layers(names: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each module's own parameters; a parameter outside modules is listed by its own name."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name.rpartition(".")[0] or name, []).append(position)
    return found

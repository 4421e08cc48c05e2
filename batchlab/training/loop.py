"""The training loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.records import Measurement
from batchlab.training.clock.meter import nothing
from batchlab.training.data.batches import Batches, MicroBatches
from batchlab.training.passes.leaving_out import unless_it_fails
from batchlab.training.passes.no_trace import examine
from batchlab.training.phase import BATCH
from batchlab.training.state import Plug, RunState
from batchlab.training.updates.costly_batch import costly_batch
from batchlab.training.updates.modes import with_evaluation_weights
from batchlab.training.updates.update import Update

UNEQUAL = (
    "memory may vary from batch to batch, because the training examples differ in size or cost: the peak includes a "
    "batch of the costliest ones, which was rehearsed"
)


def train(
    state: RunState,
    batches: Batches,
    update: Update,
    instruments: Sequence[Plug],
    *,
    learning_rate: Callable[[int], float],  # of the step that starts after this many examples
    stopping: Callable[[], bool],  # called between steps: a signal stops the run after a whole step
    enough: Callable[[], bool] = lambda: False,  # called between steps: ends the run before its budget
) -> Iterator[Measurement]:
    """Trains from where `state` is to the end of `state.budget`, yielding measurements; the caller has control at
    every yield. A run that was stopped makes no final measurements, because it is to be resumed."""
    with state.precision.training():
        agenda = Agenda(instruments, state.examples, sum(batches.micro_batch_sizes))
        state.phase.name = BATCH
        state.phase.announce(BATCH)
        few = batches.few()
        examine(state.losses, few)
        next_batch, after_step = iter(batches), state.task.after_step
        yield from _measured(state, agenda, agenda.due)
        update.rehearse_update(state.device)
        settle = partial(update.settle, few, state.device) if state.device.settles() else nothing
        costly = costly_batch(state, batches)  # before memory is counted
        if costly is not None and state.step == 0:
            state.note(UNEQUAL)
        state.meter.start(partial(_rehearse, state, batches, update, costly), settle)
        while state.examples < state.budget and not enough():
            if stopping():
                state.meter.stop()
                return
            _set_learning_rate(state, learning_rate(state.examples))
            if state.epoch_hook is not None:
                state.epoch_hook.before_step(state.examples)
            outcome = update(next(next_batch))
            state.step += 1
            if after_step is not None:
                after_step(state.model, state.step)
            state.examples += outcome.examples
            if not outcome.has_terms:
                _count_empty(state)
            for watch in agenda.watchers:
                watch(outcome)
            if state.examples >= agenda.next:
                yield from _measured(state, agenda, agenda.due)
        state.meter.stop()
        yield from _measured(state, agenda, agenda.not_yet_measured_at)
        with with_evaluation_weights(state.optimizer, state.trained):
            for instrument in agenda.instruments:
                yield from unless_it_fails(state, instrument, instrument.conclude)


def _set_learning_rate(state: RunState, learning_rate: float) -> None:
    """Sets the learning rate of each parameter group; reads the groups at each step, as user code may replace them.

    BadRequest if their number has changed since the start: a resumed run would create the optimizer without them.
    """
    state.learning_rate = learning_rate
    groups, multiples = state.optimizer.param_groups, state.group_multiples
    if len(groups) != len(multiples):
        raise BadRequest(
            f"the optimizer has {counted(len(groups), 'parameter group')} after step {state.step:,}, but was created "
            f"with {len(multiples):,}: a run that adds or removes groups during training cannot be resumed; create "
            "them all with the optimizer"
        )
    for position, group in enumerate(groups):  # a strict zip would take 0.8 us more, of a step of 150
        group["lr"] = multiples[position] * learning_rate


def _count_empty(state: RunState) -> None:
    state.steps_without_terms += 1
    if state.steps_without_terms == 1:
        state.note(
            f"step {state.step:,} has no terms (count is 0), so it has no gradient and changes no weights; the record "
            "counts such steps in steps_without_terms"
        )


def _rehearse(state: RunState, batches: Batches, update: Update, costly: Callable[[], MicroBatches] | None) -> None:
    state.meter.pause_seconds = update.rehearse(batches.first, state.device, costly)


def _measured(state: RunState, agenda: "Agenda", due: Callable[[int], Iterable[Plug]]) -> Iterator[Measurement]:
    with state.meter.paused(settling=state.examples < state.budget), state.measuring as measuring:
        measuring.enter_context(with_evaluation_weights(state.optimizer, state.trained))
        for instrument in due(state.examples):
            if not (yield from unless_it_fails(state, instrument, instrument.measure)):
                agenda.leave_out(instrument)
    state.phase.name = BATCH


class Agenda:
    """When each instrument measures: at the start, and at the first step beyond each multiple of its `every`."""

    def __init__(self, instruments: Sequence[Plug], examples: int = 0, batch_size: int = 1) -> None:
        """The agenda of a new run, or of one that resumes after `examples`, in steps of `batch_size`."""
        self.instruments = list(instruments)
        # A step of a small model takes 150 us: even an empty call is worth avoiding.
        self.watchers = [i.watch for i in instruments if not getattr(type(i).watch, "is_empty", False)]
        resumed = examples > 0
        was_due = [i for i in instruments if resumed and after(i, examples - batch_size) <= examples]
        self._last = {id(instrument): examples for instrument in was_due}
        self._next = [(after(i, examples) if resumed else 0.0, i) for i in instruments]
        self.next = min((at for at, _ in self._next), default=float("inf"))  # examples at which an instrument is due

    def due(self, examples: int) -> list[Plug]:
        """The instruments that measure now; schedules each for its next time."""
        now = [instrument for at, instrument in self._next if at <= examples]
        self._last |= {id(instrument): examples for instrument in now}
        self._next = [(after(i, examples) if at <= examples else at, i) for at, i in self._next]
        self.next = min((at for at, _ in self._next), default=float("inf"))
        return now

    def leave_out(self, instrument: Plug) -> None:
        """Removes the instrument: it is not called any more."""
        self.instruments = [other for other in self.instruments if other is not instrument]
        self.watchers = [watch for watch in self.watchers if watch != instrument.watch]
        self._next = [(at, other) for at, other in self._next if other is not instrument]
        self.next = min((at for at, _ in self._next), default=float("inf"))

    def not_yet_measured_at(self, examples: int) -> list[Plug]:
        """The instruments that have not measured at this step yet: each does so at most once a step."""
        return [instrument for _, instrument in self._next if self._last.get(id(instrument)) != examples]


def after(instrument: Plug, examples: int) -> float:
    """The next multiple of the instrument's `every` beyond `examples`."""
    every = instrument.every
    return float("inf") if every is None else (examples // every + 1) * every

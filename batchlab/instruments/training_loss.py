"""The training loss, as the optimizer used it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.training.state import RunState
from batchlab.training.updates.update import Outcome

FOLD = 256  # references kept before they are stacked: on CUDA each 0-d tensor takes 512 bytes


class TrainingLoss(Instrument):
    """`train/loss`: mean over the terms of a window of `log_every` examples, the same window for all batch sizes.

    A window is at least one step; one without terms has no loss. The loss of a batch is at the weights before its
    update. Also `train/learning_rate` of the window's last step, and `train/steps_skipped` in fp16: updates the loss
    scaler has skipped so far.
    """

    quantities = table.TRAINING_LOSS
    essential = True

    def __init__(self, *, log_every: int) -> None:
        self.every: int | None = log_every
        self.steps_skipped = 0
        self._sums: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._skips: list[Tensor] = []
        self._count = 0  # terms of the window that are not in `_counts`: those before a checkpoint

    def watch(self, outcome: Outcome) -> None:
        self._sums.append(outcome.loss_sum)
        self._counts.append(outcome.count)
        if outcome.skipped is not None:
            self._skips.append(outcome.skipped)
        if len(self._sums) >= FOLD:
            self._sums = [torch.stack(self._sums).sum()]
            self._counts = [torch.stack(self._counts).sum()]
            self._skips = [torch.stack(self._skips).sum()] if self._skips else []

    def measure(self, state: RunState) -> Iterator[Measurement]:
        if not self._sums:
            return
        # float64 on the host: a window may have a million terms
        if terms := self._terms():
            yield state.measurement("train/loss", sum(value.item() for value in self._sums) / terms)
        yield state.measurement("train/learning_rate", state.learning_rate)
        if state.precision.scaler is not None:
            self.steps_skipped += int(sum(value.item() for value in self._skips))
            yield state.measurement("train/steps_skipped", self.steps_skipped)
        self._sums, self._counts, self._skips, self._count = [], [], [], 0

    def _terms(self) -> float:
        return self._count + (torch.stack(self._counts).sum().item() if self._counts else 0)

    def state_dict(self) -> StateDict:
        # Tensors unconverted, or a loss in float64 would be rounded.
        return {
            "sums": list(self._sums),
            "skips": list(self._skips),
            "count": self._terms(),
            "steps_skipped": self.steps_skipped,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self._sums, self._skips = list(state["sums"]), list(state["skips"])
        self._counts, self._count, self.steps_skipped = [], state["count"], state["steps_skipped"]

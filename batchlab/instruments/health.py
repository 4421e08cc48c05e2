"""Detects divergence."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from batchlab.errors import Diverged
from batchlab.instruments.instrument import Instrument
from batchlab.instruments.training_loss import FOLD
from batchlab.records import Measurement, StateDict
from batchlab.training.state import RunState
from batchlab.training.updates.update import Outcome

EXPLODED = 1000.0  # x max(initial loss, 1): AdamW at lr = 1e9 stays finite, at a loss of 4e8
SMALLEST_SCALE = 1e-4  # of the fp16 scaler: below it, gradients underflow if they do not overflow


class Health(Instrument):
    """Raises `Diverged` at the end of the window in which a run diverged; the message gives step and learning rate.

    Diverged means: a loss that is not finite; a window's mean loss above 1000 x max(first loss, 1); at the end of the
    run a weight that is not finite (so a gradient was not); in fp16, a loss scale that has collapsed, or a whole run of
    skipped updates. The losses of steps stay on the device and are checked once per window.
    """

    essential = True

    def __init__(self, *, log_every: int) -> None:
        self.every: int | None = log_every
        self._initial: float | None = None  # mean loss of the first step
        self._sums: list[Tensor] = []  # of the window's losses: 0-d for each step, or 1-d if folded
        self._counts: list[Tensor] = []  # of its terms, one for each loss, likewise
        self._unfolded: list[Tensor] = []
        self._unfolded_counts: list[Tensor] = []
        self._skips: list[Tensor] = []  # per step, or folded: whether all were skipped
        self._window_starts = 0  # steps before the window
        self._applied = False  # whether any update was applied

    def watch(self, outcome: Outcome) -> None:
        self._unfolded.append(outcome.loss_sum)
        self._unfolded_counts.append(outcome.count)
        if outcome.skipped is not None:
            self._skips.append(outcome.skipped)
        if len(self._unfolded) >= FOLD:
            self._fold()

    def measure(self, state: RunState) -> Iterator[Measurement]:
        losses = self._losses()
        if losses:
            self._judge(losses, state)
            self._window_starts = state.step
        self._fold_skips()
        scale = state.precision.loss_scale()
        if scale is not None and scale < SMALLEST_SCALE:
            raise Diverged(f"the fp16 loss scale fell to {scale:.3g} by step {state.step}: use bf16 or a lower lr")
        yield from ()

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        # Before the end, a weight that is not finite shows in the loss of the next step.
        if not all_finite(list(state.trained.parameters())):
            raise Diverged(f"a weight is not finite after step {state.step} ({_lr(state)})")
        if state.precision.scaler is not None and state.step and not self._applied:
            raise Diverged(f"0 of {state.step} updates were applied: fp16 overflowed each time; use bf16 or a lower lr")
        yield from ()

    def _judge(self, losses: list[float], state: RunState) -> None:
        if self._initial is None:
            self._initial = next(filter(None, losses), None)
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            step = self._window_starts + bad + 1
            raise Diverged(f"the training loss is {losses[bad]} at step {step} ({_lr(state)})")
        mean = sum(losses) / len(losses)
        bound = EXPLODED * max(self._initial or 0.0, 1.0)
        if mean > bound:
            steps = f"steps {self._window_starts + 1} to {state.step}"
            raise Diverged(f"the training loss is {mean:.3g} over {steps}, above {bound:.3g} ({_lr(state)})")

    def _losses(self) -> list[float]:
        """The mean loss of each step of the window, 0 for one without terms; starts a new window."""
        self._fold()
        if not self._sums:
            return []
        # One copy to the host, then Python numbers: a dozen small tensor operations in every window would displace
        # training's data from the caches.
        sums = (self._sums[0] if len(self._sums) == 1 else torch.cat(self._sums)).tolist()
        losses = [total / (count or 1) for total, count in zip(sums, _numbers(self._counts), strict=True)]
        self._sums, self._counts = [], []
        return losses

    def _fold(self) -> None:
        """Stacks the references, so that few small tensors stay in memory; does not wait."""
        if self._unfolded:
            self._sums.append(torch.stack(self._unfolded))
            self._unfolded = []
        self._fold_counts()
        if self._skips:
            self._skips = [torch.stack(self._skips).all()]

    def _fold_counts(self) -> None:
        if self._unfolded_counts:
            self._counts.append(torch.stack(self._unfolded_counts))
            self._unfolded_counts = []

    def _fold_skips(self) -> None:
        if self._skips:
            self._applied = self._applied or not all(bool(skip) for skip in self._skips)
            self._skips = []

    def state_dict(self) -> StateDict:
        self._fold_counts()
        return {
            "initial": self._initial,
            "sums": list(self._sums),
            "unfolded": list(self._unfolded),
            "counts": _numbers(self._counts),
            "skips": list(self._skips),
            "window_starts": self._window_starts,
            "applied": self._applied,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self._initial, self._window_starts, self._applied = state["initial"], state["window_starts"], state["applied"]
        self._sums, self._unfolded = list(state["sums"]), list(state["unfolded"])
        self._counts = [torch.tensor(state["counts"])] if state["counts"] else []
        self._unfolded_counts, self._skips = [], list(state["skips"])


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether every value in `tensors` is finite; waits for the device once."""
    floating = [t.detach() for t in tensors if t.is_floating_point() or t.is_complex()]
    return all(flag for flag in torch.stack([torch.isfinite(t).all() for t in floating]).tolist()) if floating else True


def _numbers(folded: list[Tensor]) -> list[float]:
    return [number for part in folded for number in part.tolist()]


def _lr(state: RunState) -> str:
    return f"lr {state.learning_rate:.3g}"

"""Optimizers whose weights differ between training and evaluation (schedule-free ones): train() and eval()."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from batchlab.training.first_error import finally_do


def has_modes(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it has both methods, train() and eval()."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def to_training(optimizer: torch.optim.Optimizer) -> bool:
    """Puts it into training mode; returns whether it has modes."""
    if modes := has_modes(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    return modes


@contextlib.contextmanager
def with_evaluation_weights(optimizer: torch.optim.Optimizer, trained: nn.Module) -> Iterator[None]:
    """The weights inside are those that the optimizer wants to be evaluated; afterwards they are bitwise as before.

    Switching there and back rounds, so the weights of training are kept meanwhile: otherwise each measurement would
    change the training.
    """
    if not has_modes(optimizer):
        yield
        return
    kept = [(p, p.detach().clone()) for p in trained.parameters() if p.requires_grad]

    def put_back() -> None:
        to_training(optimizer)
        with torch.no_grad():
            for p, weights in kept:
                p.copy_(weights)

    with finally_do(put_back):
        optimizer.eval()  # type: ignore[attr-defined]
        yield

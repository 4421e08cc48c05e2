"""The order of the examples: it depends on the seed alone, so every batch size sees the same examples in the same
order."""

import functools
import hashlib
import operator
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.training.data.reading import own_random_numbers, seed_all

Sampler = Callable[[int], Iterable[int]]  # `Task.sampler`
EPOCHS_KEPT = 2  # a batch may cross the border of two


def stream_seed(*words: object) -> int:
    """A seed for one named stream of random numbers, in [0, 2**63): streams of other names are unrelated."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@functools.lru_cache(maxsize=EPOCHS_KEPT)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the examples 0..n-1 in epoch `epoch`, shape (n,): depends on the three arguments and nothing else.

    The last two results are cached, so do not write to them.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


class SampledOrder:
    """The order that the task's `sampler` gives for each epoch, from a seed that depends on the run's and the epoch.

    All epochs must be as long as the first one, `length`: then a place in the data order is a place in one epoch, and a
    run can resume anywhere. BadRequest if one is not, or if an index is none of the set's.
    """

    def __init__(self, sampler: Sampler, n: int, seed: int) -> None:
        self._sampler, self._seed = sampler, seed
        self.of = n  # examples of the set
        self._drawn: dict[int, Tensor] = {}  # by epoch
        self.length = len(self.epoch(0))

    def epoch(self, epoch: int) -> Tensor:
        """The indices of the examples of an epoch, shape (length,)."""
        if epoch not in self._drawn:
            drawn = self._draw(epoch)
            if epoch and len(drawn) != self.length:
                raise BadRequest(
                    f"the task's sampler gave {len(drawn):,} indices for epoch {epoch + 1}, and {self.length:,} for "
                    "the first: give the same number for each epoch"
                )
            while len(self._drawn) >= EPOCHS_KEPT:
                del self._drawn[min(self._drawn)]
            self._drawn[epoch] = drawn
        return self._drawn[epoch]

    def refuse_unless_repeatable(self) -> None:
        """BadRequest if the sampler gives another order for the same seed: a run could not be resumed."""
        if not torch.equal(self.epoch(0), self._draw(0)):
            raise BadRequest(
                "the task's sampler gave two different orders for the same seed, so a run could not be resumed: draw "
                "its random numbers from torch.Generator().manual_seed(seed), or from random, np.random or torch, "
                "which are seeded before each call"
            )

    def _draw(self, epoch: int) -> Tensor:
        seed = stream_seed(self._seed, "sampler", epoch)
        with own_random_numbers():
            seed_all(seed)
            given = list(self._sampler(seed))
        bad = next((one for one in given if not _is_index(one, self.of)), None)
        if bad is not None or not given:
            what = f"gave {bad!r:.60}" if given else "gave no indices"
            raise BadRequest(
                f"the task's sampler {what}, but the training set has {counted(self.of, 'example')}: it must give "
                f"integers from 0 to {self.of - 1:,}, one for each example of the epoch"
            )
        return torch.tensor([int(one) for one in given], dtype=torch.int64)


def _is_index(one: object, n: int) -> bool:
    try:
        return 0 <= operator.index(one) < n  # type: ignore[arg-type]  # also of NumPy and 0-d tensors
    except TypeError:
        return False


def row(n: int, seed: int, start: int, length: int, order: SampledOrder | None = None) -> Tensor:
    """Examples `start` to `start + length` of the data order (endless epochs) as indices, shape (length,).

    `order` is the task's own order of `n` examples, if it has one.
    """
    pieces = []
    while length > 0:
        epoch, offset = divmod(start, n if order is None else order.length)
        whole = permutation(n, seed, epoch) if order is None else order.epoch(epoch)
        piece = whole[offset : offset + length]
        pieces.append(piece)
        start, length = start + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

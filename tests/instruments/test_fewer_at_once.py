"""If memory runs out, half as many examples are processed at once, with the same results."""

import weakref
from dataclasses import replace

import pytest
import torch
from still_life import classified, run_state
from torch import nn

from batchlab import Task
from batchlab.instruments.gradient import noise_scale
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale
from batchlab.instruments.gradient.per_example import per_example_norms
from batchlab.training.passes.evaluation import by_example
from batchlab.training.passes.halving import halved


def refuse():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Caches:
    """A device that records which objects are alive when its cache is emptied."""

    def __init__(self):
        self.held = []
        self.alive = []

    def empty_cache(self):
        self.alive += [reference() is not None for reference in self.held]


def fits(most, device):
    """An attempt that fits `most` examples; when it fails, its frame holds a tensor and its own error."""
    tried = []

    def attempt(size):
        tried.append(size)
        tensor = torch.zeros(10)
        device.held.append(weakref.ref(tensor))
        if size > most:
            try:
                refuse()
            except torch.OutOfMemoryError as error:
                kept = error
                raise kept from None
        return size

    return attempt, tried


@pytest.mark.parametrize(
    ("size", "of", "most", "tried"),
    [
        (1000, 10**6, 1000, [1000]),
        (100, 10**6, 13, [100, 50, 25, 13]),
        (1000, 36, 10, [1000, 18, 9]),  # 500 of 36 would be the same 36
    ],
)
def test_sizes_are_halved_until_one_fits_and_failed_attempts_are_released_before(size, of, most, tried):
    device = Caches()
    attempt, seen = fits(most, device)

    assert halved(attempt, size, of=of, device=device) == (tried[-1], tried[-1])
    assert seen == tried
    assert not any(device.alive)
    assert len(device.alive) == sum(range(len(tried)))


def test_one_example_that_does_not_fit_and_other_errors_are_raised():
    device = Caches()
    attempt, seen = fits(0, device)
    with pytest.raises(torch.OutOfMemoryError):
        halved(attempt, 5, of=9, device=device)
    assert seen == [5, 3, 2, 1]

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        halved(lambda size: nn.Linear(2, 2)(torch.zeros(size, 3)), 5, of=9, device=device)


def test_a_set_that_does_not_fit_at_once_gives_the_same_numbers_in_chunks_with_one_note():
    task = classified(30, 20)
    torch.manual_seed(0)
    model, sizes, notes = nn.Linear(4, 3).double(), [], []
    expected = by_example(run_state(model, task), task.val, 1000)

    def crowded(model, batch):
        sizes.append(len(batch[0]))
        return refuse() if len(batch[0]) > 6 else model(batch[0])

    state = run_state(model, replace(task, forward=crowded))
    state.note = notes.append
    seen = by_example(state, task.val, 1000)

    assert sizes == [20, 10, 5, 5, 5, 5]
    assert seen.keys() == expected.keys()
    for name, values in seen.items():
        assert values.sums == pytest.approx(expected[name].sums, rel=1e-12)
        assert (values.counts == expected[name].counts).all()
    sizes.clear()
    by_example(state, task.train, 1000)  # what fits is known
    assert sizes == [5] * 6
    assert notes == [
        "eval_batch_size=1000 does not fit in the memory that training leaves free: evaluated at most 5 examples at a "
        "time"
    ]
    assert state.eval_at_most == 5


def test_examples_of_many_terms_are_passed_alone_where_two_do_not_fit():
    """Checking the order of terms takes two examples; it is skipped if only one fits."""
    tokens = torch.randint(5, (17,), generator=torch.Generator().manual_seed(0))
    task = Task.language_model(tokens, tokens, context=4)

    def crowded(model, batch):
        return refuse() if len(batch[0]) > 1 else model(batch[0])

    model = nn.Embedding(5, 5)
    expected = by_example(run_state(model, task), task.val, 4)["loss"]
    crowding = replace(task, forward=crowded)

    assert by_example(run_state(model, crowding), task.val, 4)["loss"].sums == pytest.approx(expected.sums, rel=1e-6)


def test_per_example_gradients_that_do_not_fit_are_taken_of_fewer_examples():
    data = classified(64, 8).train
    sizes = []

    def measured(most):
        torch.manual_seed(0)
        state = run_state(nn.Linear(4, 3).double(), Task.classification(data, data))
        instrument = GradientNoiseScale(batch_size=8, micro_batch_size=8, eval_every=1, budget=64, seed=0)

        def crowded(*args, chunk, **kwargs):
            sizes.append(chunk)
            return refuse() if chunk > most else per_example_norms(*args, chunk=chunk, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise_scale, "per_example_norms", crowded)
            return {m.name: m.value for m in instrument.measure(state)}

    expected = measured(10**9)
    sizes.clear()
    seen = measured(10)

    assert seen == pytest.approx(expected, rel=1e-9)
    assert sizes[1:4] == [32, 16, 8]
    assert set(sizes[4:]) == {8}  # the size that fits is known at the second draw

"""Crop, flip and cutout: their effect on an image, their frequency, and that only the image's own draw matters."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from batchlab import BadRequest
from batchlab.data.images.augment import augmentation


def images(n: int, channels: int = 2, rows: int = 6, columns: int = 5) -> Tensor:
    """All pixels differ, and none is 0."""
    return torch.arange(1, n * channels * rows * columns + 1).float().view(n, channels, rows, columns)


def augmented(batch: Tensor, draws: Tensor, **requested: Any) -> Tensor:
    augment = augmentation(**requested)
    assert augment is not None
    found: Tensor = augment((batch,), draws)[0]
    return found


def places(before: Tensor, after: Tensor, padding: int) -> list[tuple[int, int]]:
    """The place of each crop in the padded image, by trying every place, channel by channel and pixel by pixel."""
    rows, columns = before.shape[2:]
    found = []
    for one, other in zip(before.numpy(), after.numpy(), strict=True):
        padded = np.pad(one, ((0, 0), (padding, padding), (padding, padding)))
        fits = [
            (down, across)
            for down in range(2 * padding + 1)
            for across in range(2 * padding + 1)
            if np.array_equal(padded[:, down : down + rows, across : across + columns], other)
        ]
        assert len(fits) == 1, fits
        found += fits
    return found


def test_a_crop_is_a_window_of_the_padded_image_and_all_places_are_equally_likely():
    before = images(1350)

    found = places(before, augmented(before, torch.arange(1350), crop=1), 1)

    counts = np.bincount([3 * down + across for down, across in found], minlength=9)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    before = images(2000)

    after = augmented(before, torch.arange(2000), flip=True)

    turned = np.array([not np.array_equal(b, a) for b, a in zip(before.numpy(), after.numpy(), strict=True)])
    assert np.array_equal(after.numpy()[turned], before.numpy()[turned][..., ::-1])
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / 2000**0.5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cutout_is_a_square_around_a_place_anywhere_in_the_image(size):
    before = images(800, channels=2, rows=4, columns=5)

    after = augmented(before, torch.arange(800), cutout=size)

    centres = np.zeros((4, 5), dtype=int)
    for one, other in zip(before.numpy(), after.numpy(), strict=True):
        hidden = other[0] == 0
        assert np.array_equal(other[1] == 0, hidden)  # in every channel
        assert np.array_equal(other[:, ~hidden], one[:, ~hidden])
        fits = []
        for row in range(4):
            for column in range(5):
                square = np.zeros((4, 5), dtype=bool)
                top, left = row - size // 2, column - size // 2
                square[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = True
                if np.array_equal(square, hidden):
                    fits.append((row, column))
        assert len(fits) == 1
        centres[fits[0]] += 1
    assert stats.chisquare(centres.flatten()).pvalue > 1e-3


def test_all_three_are_applied_in_the_order_crop_flip_cutout_with_separate_draws():
    before, draws = images(400, rows=8, columns=8), torch.arange(400)

    together = augmented(before, draws, crop=2, flip=True, cutout=3)

    step = augmented(before, draws, crop=2)
    step = augmented(step, draws, flip=True)
    assert torch.equal(together, augmented(step, draws, cutout=3))
    moved = np.array(places(before, augmented(before, draws, crop=2), 2)).T
    turned = (augmented(before, draws, flip=True) != before).flatten(1).any(1).numpy()
    assert np.abs(np.corrcoef([*moved, turned])[np.triu_indices(3, 1)]).max() < 4 / 400**0.5


@pytest.mark.parametrize(
    ("requested", "stored"),
    [
        ({"crop": 2}, "1977648c22cd0d8a"),
        ({"flip": True}, "cd4524eb907fd00c"),
        ({"cutout": 3}, "92fe3305084b3262"),
        ({"cutout": 4}, "f145270512b4fe74"),
        ({"crop": 1, "flip": True}, "cd84138f0e86717f"),
        ({"crop": 3, "flip": True, "cutout": 4}, "255da1c885737688"),
    ],
    ids=str,
)
def test_images_are_changed_as_in_the_first_version(requested, stored):
    """Otherwise runs with augmentation would end at other bits, with the same ids."""
    before = images(2, channels=3, rows=7, columns=5).repeat(20, 1, 1, 1) * torch.arange(1, 41).view(-1, 1, 1, 1)

    after = augmented(before, torch.arange(40) ^ 0x1234567890ABCDEF, **requested)

    assert hashlib.sha256(after.contiguous().numpy().tobytes()).hexdigest()[:16] == stored


def test_an_image_is_changed_by_its_own_draw_alone():
    """So batch size, micro-batches, workers and resuming change nothing."""
    before, draws = images(60), torch.randint(2**62, (60,), generator=torch.Generator().manual_seed(0))
    requested = {"crop": 2, "flip": True, "cutout": 2}
    whole = augmented(before, draws, **requested)

    pieces = [augmented(b, d, **requested) for b, d in zip(before.split(7), draws.split(7), strict=True)]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))

    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(augmented(before[order], draws[order], **requested), whole[order])
    assert not torch.equal(augmented(before, draws + 1, **requested), whole)


def test_the_input_batch_and_the_labels_do_not_change():
    before, labels = images(10), torch.arange(10)
    kept, state = before.clone(), torch.get_rng_state()
    augment = augmentation(crop=2, flip=True, cutout=2)
    assert augment is not None

    found = augment((before, labels), torch.arange(10))

    assert isinstance(found, tuple)
    assert found[1] is labels
    assert torch.equal(before, kept)
    assert found[0].shape == before.shape
    assert torch.equal(torch.get_rng_state(), state)


def test_without_options_nothing_is_augmented():
    assert augmentation(crop=0, flip=False, cutout=0) is None


@pytest.mark.parametrize("name", ["crop", "cutout"])
@pytest.mark.parametrize("value", [-1, 1.0, "4", True, None])
def test_pixels_are_whole_numbers(name, value):
    with pytest.raises(BadRequest, match=rf"^data\.{name}=.* is invalid: give a number of pixels, such as"):
        augmentation(**{name: value})


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_a_flip_is_true_or_false(value):
    with pytest.raises(BadRequest, match=r"^data\.flip=.* is invalid: use true or false"):
        augmentation(flip=value)

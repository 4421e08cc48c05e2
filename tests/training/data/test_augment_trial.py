"""An augmentation that would differ between batch sizes or in a resumed run is refused before the start."""

import random
import re

import numpy as np
import pytest
import torch
from torture.tiny import tiny

from batchlab import BadRequest, uniform
from batchlab.training.data.augment_trial import augmented_twice
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker.preflight import examine

IMAGES = torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8)
OWN = torch.Generator().manual_seed(3)


def lit(images, amount):
    return images * (1 + amount.view(-1, 1, 1, 1))


@pytest.mark.parametrize(
    "augment",
    [
        lambda batch, draws: (lit(batch[0], torch.rand(len(draws))), batch[1]),
        lambda batch, draws: (batch[0] + random.random(), batch[1]),
        lambda batch, draws: (
            batch[0].flip(3) if np.random.rand() < 1e-9 else batch[0],
            batch[1],
        ),  # only once per process
        lambda batch, draws: (lit(batch[0], torch.rand(len(draws), generator=OWN)), batch[1]),
    ],
    ids=["torch", "python", "a rare flip", "a generator of its own"],
)
def test_an_augmentation_that_draws_random_numbers_is_refused(augment):
    with pytest.raises(BadRequest, match=r"draws random numbers itself.*batchlab\.uniform\(draws, 'a name'\)"):
        augmented_twice((IMAGES, LABELS), augment, seed=0, device=CpuDevice())


@pytest.mark.parametrize(
    "augment",
    [
        lambda batch, draws: (0.9 * batch[0] + 0.1 * batch[0].flip(0), batch[1]),
        lambda batch, draws: (batch[0] - batch[0].mean(), batch[1]),
        lambda batch, draws: (batch[0], batch[1].roll(1)),
        lambda batch, draws: (batch[0][..., : 1 + len(draws) // 4], batch[1]),
    ],
    ids=["mixed", "centred", "labels", "cropped"],
)
def test_an_augmentation_that_mixes_examples_of_a_batch_is_refused(augment):
    with pytest.raises(BadRequest, match=r"when the rest of its batch changes.*each example independently"):
        augmented_twice((IMAGES, LABELS), augment, seed=0, device=CpuDevice())


def test_one_that_depends_on_example_and_draw_alone_is_accepted_up_to_rounding():
    def augment(batch, draws):
        batch[0].mul_(1 + uniform(draws, "light", (3, 1, 1)))  # in place
        return batch[0] * (1 + 1e-7 * len(draws)), batch[1]  # the last bit depends on the number of examples

    given = IMAGES.clone()
    made, labels = augmented_twice((given, LABELS), augment, seed=0, device=CpuDevice())

    assert torch.equal(given, IMAGES)
    assert torch.equal(labels, LABELS)
    assert 1.2 < float(made.mean() / IMAGES.mean()) < 1.8  # 1.5 on average, over 24 draws of uniform numbers
    assert (
        len(augmented_twice((IMAGES[:1], LABELS[:1]), lambda batch, draws: batch, seed=0, device=CpuDevice())[0]) == 1
    )


def test_an_augmentation_in_place_leaves_the_set_that_is_fingerprinted_alone(tmp_path):
    grid = [
        tiny(tmp_path, data={"_target_": target})
        for target in ("torture.tiny.Data", "streamed_sets.Augmented", "streamed_sets.InPlace")
    ]

    problems, facts = examine(grid)

    assert problems == []
    assert len({found.data_fingerprint for found in facts}) == 1
    assert re.fullmatch("[0-9a-f]{16}", facts[0].data_fingerprint)

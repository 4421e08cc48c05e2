"""Runs on the image sets as users start them: by config, from files in the current folder."""

from pathlib import Path

import pytest
from image_files import some_images, write_cifar_binary, write_mnist, write_pictures
from sweep_runs import Lab, lines_of

from batchlab import BadRequest
from batchlab.records import RunStatus

TINY = ("model=mlp", "model.width=8", "model.depth=1", "steps=4", "batch_size=8", "log_every=8")


def cifar(lab: Lab, *overrides: str) -> dict[str, list[float]]:
    point = lab.point("data=cifar10", *TINY, *overrides)
    (record,) = lab.run(point).records
    assert (record.status, record.n_train, record.examples) == (RunStatus.COMPLETED, 40, 32)
    return {name: lab.values(point, name) for name in ("train/loss", "val/loss")}


def test_augmentation_changes_training_and_not_validation_and_micro_batches_change_nothing_of_it(lab: Lab) -> None:
    write_cifar_binary(Path("data"), some_images(40, (3, 32, 32)), some_images(12, (3, 32, 32), seed=1), fine=False)
    requested = ("data.crop=4", "data.flip=true", "data.cutout=8")

    plain, augmented, accumulated = cifar(lab), cifar(lab, *requested), cifar(lab, *requested, "accumulate=3")

    assert augmented["val/loss"][0] == plain["val/loss"][0]  # before the first step
    assert abs(augmented["train/loss"][0] - plain["train/loss"][0]) > 1e-3
    assert abs(augmented["val/loss"][-1] - plain["val/loss"][-1]) > 1e-3
    for name in augmented:
        assert accumulated[name] == pytest.approx(augmented[name], rel=1e-5)


def test_a_set_that_is_not_there_is_one_line_before_anything_starts(lab: Lab) -> None:
    with pytest.raises(BadRequest) as caught:
        lab.check(lab.point("data=mnist", *TINY))

    assert len(lines_of(caught.value)) == 1
    assert "data=mnist needs data/MNIST/raw/train-images-idx3-ubyte, which does not exist: add" in str(caught.value)


def test_digits_and_a_folder_of_pictures_are_trained_on(lab: Lab) -> None:
    write_mnist(Path("data"), some_images(30, (1, 28, 28)), some_images(10, (1, 28, 28), seed=1), zipped=True)
    write_pictures(Path("mine"), (8, 8), each=10, classes=("ant", "bee", "cow"))
    pictures = lab.point("data=image_folder", "data.path=mine", *TINY[:3], "epochs=8", "batch_size=4")

    digits, mine = lab.run(lab.point("data=mnist", *TINY), pictures).records

    assert (digits.status, digits.n_train) == (RunStatus.COMPLETED, 30)
    assert (mine.status, mine.n_train) == (RunStatus.COMPLETED, 24)
    assert mine.final["val/accuracy"] == 1.0  # a brightness for each class


def test_a_picture_that_cannot_be_read_is_one_line_that_names_it(lab: Lab) -> None:
    write_pictures(Path("mine"), (8, 8), each=4, classes=("ant", "bee"))
    Path("mine/bee/2.png").write_bytes(b"no picture")

    with pytest.raises(BadRequest) as caught:
        lab.check(lab.point("data=image_folder", "data.path=mine", *TINY))

    assert len(lines_of(caught.value)) == 1
    assert "mine/bee/2.png cannot be read as an image (" in str(caught.value)

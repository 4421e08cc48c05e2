"""A user's own folder of images: which files are read, in what order and format; and invalid folders and files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write_pictures
from PIL import Image

from batchlab import BadRequest
from batchlab.data import image_folder

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """train/ with three classes of 4 images, val/ with two of them and 2 images each, 6 high and 8 wide."""
    write_pictures(tmp_path / "train", (6, 8), each=4, classes=CLASSES)
    write_pictures(tmp_path / "val", (6, 8), each=2, classes=CLASSES[1:], seed=1)
    return tmp_path


def as_stored(image: torch.Tensor) -> np.ndarray[Any, Any]:
    """(height, width, 3) uint8, by ImageNet's means and deviations."""
    pixels = image.double().numpy().transpose(1, 2, 0) * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    return (pixels * 255).round().astype(np.uint8)


def test_every_picture_is_there_with_the_number_of_its_folder(pictures):
    task = image_folder.load(path=str(pictures))

    assert (len(task.train), len(task.val)) == (12, 4)
    assert sorted(task.train.files) == sorted((pictures / "train").rglob("*.png"))
    for index in range(12):
        image, label = task.train[index]
        file = task.train.files[index]
        assert CLASSES[label] == file.parent.name
        assert (image.dtype, tuple(image.shape), image.is_contiguous()) == (torch.float32, (3, 6, 8), True)
        assert np.array_equal(as_stored(image), np.array(Image.open(file)))
    # The first class is not in validation, which still uses the class numbers of training.
    assert {task.val.files[i].parent.name: task.val[i][1] for i in range(4)} == {"bee": 1, "cow": 2}
    assert task.model_args == {"num_classes": 3, "input_shape": (3, 6, 8)}


def test_without_a_folder_for_validation_a_fixed_fifth_is_held_out(tmp_path):
    write_pictures(tmp_path, (4, 4), each=10, classes=("test", "train_station"))  # names without a special meaning here

    task, again = image_folder.load(path=str(tmp_path)), image_folder.load(path=str(tmp_path))
    other = image_folder.load(path=str(tmp_path), val_share=0.5)

    assert (len(task.train), len(task.val), len(other.val)) == (16, 4, 10)
    assert not set(task.train.files) & set(task.val.files)
    assert {*task.train.files, *task.val.files} == set(tmp_path.rglob("*.png"))
    assert (task.train.files, task.val.files) == (again.train.files, again.val.files)


def test_a_folder_of_training_alone_is_divided_too(pictures):
    shutil.rmtree(pictures / "val")

    task = image_folder.load(path=str(pictures), val_share=0.25)

    assert (len(task.train), len(task.val)) == (9, 3)


def test_other_files_and_hidden_files_are_skipped(pictures):
    (pictures / "train/ant/notes.txt").write_text("seen at noon")
    (pictures / "train/ant/.hidden.png").write_bytes(b"")
    (pictures / "train/.cache").mkdir()
    (pictures / "train/README.md").write_text("mine")
    (pictures / "train/bee/deeper").mkdir()
    (pictures / "train/bee/0.png").rename(pictures / "train/bee/deeper/LAST.PNG")

    task = image_folder.load(path=str(pictures))

    assert len(task.train) == 12
    assert task.model_args["num_classes"] == 3
    labels = {file.name: label for file, label in zip(task.train.files, task.train.labels, strict=True)}
    assert labels["LAST.PNG"] == 1


def test_images_of_all_file_formats_give_the_same_tensors(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    original = Image.fromarray(colours)
    for name, image in (
        ("a/1.png", original),
        ("a/2.bmp", original),
        ("b/1.ppm", original),
        ("b/2.png", original.convert("RGBA")),
        ("b/3.tif", original),
    ):
        image.save(tmp_path / name)

    task = image_folder.load(path=str(tmp_path))
    grey = image_folder.load(path=str(tmp_path), channels=1)

    for index in range(len(task.train)):
        assert np.array_equal(as_stored(task.train[index][0]), colours)
    expected = np.array(original.convert("L"))
    found = (grey.train[0][0].double() * 0.226 + 0.449) * 255
    assert grey.model_args["input_shape"] == (1, 5, 7)
    assert np.array_equal(found[0].round().numpy(), expected)


def test_images_of_other_sizes_are_resized_and_cropped_at_the_centre(tmp_path):
    for name, (height, width) in (("a/1.png", (4, 8)), ("a/2.png", (8, 4)), ("b/1.png", (4, 4)), ("b/2.png", (9, 9))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 255
        Image.fromarray(pixels).save(tmp_path / name)

    task = image_folder.load(path=str(tmp_path), image_size=4, val_share=0.25)

    assert task.model_args["input_shape"] == (3, 4, 4)
    for index in range(3):
        if task.train.files[index].name == "2.png" and task.train.files[index].parent.name == "b":
            continue  # 9x9 is resized, not only cropped
        assert as_stored(task.train[index][0]).min() == 255
    with pytest.raises(BadRequest, match=r"is \d+x\d+ but .* is \d+x\d+: add data\.image_size=\d+ to resize all"):
        [image_folder.load(path=str(tmp_path), val_share=0.25).train[i] for i in range(3)]


def test_fewer_pictures_wrong_labels_and_augmentation_are_as_of_the_other_sets(pictures):
    whole = image_folder.load(path=str(pictures))
    small = image_folder.load(path=str(pictures), train_size=6)
    noisy = image_folder.load(path=str(pictures), label_noise=0.5, crop=1, flip=True)

    assert small.train.files == whole.train.files[:6]
    assert len(small.val) == 4
    assert noisy.corrupted is not None
    wrong = [a != b for a, b in zip(noisy.train.labels, whole.train.labels, strict=True)]
    assert wrong == noisy.corrupted.tolist()
    assert sum(wrong) == 6
    assert whole.augment is None
    assert noisy.augment is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere"}, r"data\.path=nowhere is not a folder: give one that holds train/CLASS/\*\.png"),
        ({"path": ""}, r"data\.path= is invalid"),
        ({"image_size": 0}, r"data\.image_size=0 is invalid: give the pixels of a side"),
        ({"image_size": True}, r"data\.image_size=True is invalid"),
        ({"channels": 4}, r"data\.channels=4 is invalid: use 3 for colour or 1 for grey"),
        ({"val_share": 0.5}, r"data\.val_share=0\.5 is invalid: validation uses .*val; use data\.val_share=null"),
        ({"train_size": 13}, r"data\.train_size=13 is invalid: image_folder has 12 training examples here"),
        ({"label_noise": 1.5}, r"data\.label_noise=1\.5 is invalid"),
        ({"cutout": -1}, r"data\.cutout=-1 is invalid"),
    ],
)
def test_invalid_options_are_refused(pictures, changes, message):
    with pytest.raises(BadRequest, match=message):
        image_folder.load(**{"path": str(pictures)} | changes)


@pytest.mark.parametrize("val_share", [0, 1, 1.0, -0.1, "0.2", True, 0.001])
def test_a_share_that_leaves_one_side_empty_is_refused(pictures, val_share):
    shutil.rmtree(pictures / "val")

    with pytest.raises(BadRequest, match=r"^data\.val_share=.* is invalid: it is the share of the 12 images"):
        image_folder.load(path=str(pictures), val_share=val_share)


def test_folders_that_hold_nothing_to_learn_are_refused(pictures):
    (pictures / "train/dog").mkdir()
    with pytest.raises(BadRequest, match=r"train/dog holds no images \(.*\): put some there, or delete it"):
        image_folder.load(path=str(pictures))
    (pictures / "train/dog").rmdir()
    (pictures / "val/cow").rename(pictures / "val/yak")
    with pytest.raises(BadRequest, match=r"val/yak is a class that .*train lacks"):
        image_folder.load(path=str(pictures))
    shutil.rmtree(pictures / "train")
    (pictures / "train").mkdir()
    with pytest.raises(
        BadRequest, match=r"train holds no folders: put the images of each class into a separate folder"
    ):
        image_folder.load(path=str(pictures))


def test_a_damaged_picture_is_one_line_that_names_it(pictures):
    task = image_folder.load(path=str(pictures))
    path = task.train.files[5]
    content = path.read_bytes()
    for damaged in (b"", b"<html>not found</html>", content[: len(content) // 2], content[:30]):
        path.write_bytes(damaged)
        with pytest.raises(BadRequest) as caught:
            task.train[5]
        assert str(caught.value).startswith(f"{path} cannot be read as an image (")
        assert str(caught.value).isprintable()
    path.unlink()
    with pytest.raises(BadRequest, match="cannot be read as an image"):
        task.train[5]
    path.write_bytes(content)
    task.train.files[0].write_bytes(b"no image")
    with pytest.raises(BadRequest, match="cannot be read as an image"):
        image_folder.load(path=str(pictures))

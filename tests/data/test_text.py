"""Text byte by byte: what is read, how it is split into windows, and what is refused."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_runs import Lab

from batchlab import BadRequest
from batchlab.data import text


def read_back(part: Any) -> bytes:
    """The bytes of adjacent windows, with the last one's next byte."""
    inputs, targets = part
    return bytes(inputs.flatten().tolist()) + bytes([int(targets[-1, -1])])


def test_windows_lie_side_by_side_and_every_target_is_the_next_byte(tmp_path: Path) -> None:
    content = bytes(range(100, 200))
    (tmp_path / "a.txt").write_bytes(content)

    task = text.load(str(tmp_path / "a.txt"), context=7, val_share=0.25)

    # 75 training bytes: 10 windows of 7 and the next byte; 25 validation bytes: 3 windows.
    assert task.train[0].tolist() == [list(content[7 * i : 7 * i + 7]) for i in range(10)]
    assert task.train[1].tolist() == [list(content[7 * i + 1 : 7 * i + 8]) for i in range(10)]
    assert task.val[0].tolist() == [list(content[75 + 7 * i : 82 + 7 * i]) for i in range(3)]
    assert task.train[0].dtype == task.train[1].dtype == torch.int64
    assert task.model_args == {"vocabulary": 256, "context": 7}


@pytest.mark.parametrize(
    ("length", "context", "val_share"), [(250, 1, 0.1), (250, 9, 0.5), (250, 12, 0.06), (97, 5, 0.3)]
)
def test_no_byte_is_in_both_training_and_validation(
    tmp_path: Path, length: int, context: int, val_share: float
) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(1, length + 1)))  # each byte once

    task = text.load(str(tmp_path / "a.txt"), context=context, val_share=val_share)

    train, val = set(read_back(task.train)), set(read_back(task.val))
    assert not train & val
    assert max(train) < min(val)
    assert len(train) + len(val) > length - 2 * context - 1  # only incomplete windows are lost


def test_sizes_keep_the_first_windows_of_each_part(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(1, 201)))
    path = str(tmp_path / "a.txt")

    whole = text.load(path, context=4, val_share=0.2)
    some = text.load(path, context=4, val_share=0.2, train_size=5, val_size=3)

    assert (len(whole.train[0]), len(whole.val[0])) == (39, 9)
    for part, size in (("train", 5), ("val", 3)):
        for kept, all_of_it in zip(getattr(some, part), getattr(whole, part), strict=True):
            assert torch.equal(kept, all_of_it[:size])


def test_a_folder_is_its_files_in_the_order_of_their_names_without_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name, content in (("c.txt", "third. "), ("a.txt", "first. "), ("b/x.txt", "second. "), ("b/y.py", "code. ")):
        (tmp_path / name).write_text(content * 3)
    for name in (".hidden", ".git/config"):
        (tmp_path / name).write_text("secret")

    every = text.load(str(tmp_path), context=1, val_share=0.05)
    some = text.load(str(tmp_path), context=1, val_share=0.05, pattern="*.txt")

    assert read_back(every.train).decode().startswith("first. " * 3 + "second. " * 3 + "code. " * 3 + "third. " * 2)
    assert read_back(some.train).decode().startswith("first. " * 3 + "second. " * 3 + "third. " * 2)


def test_files_read_across_their_borders_are_one_text(tmp_path: Path) -> None:
    parts = [bytes([65 + i]) * size for i, size in enumerate((3, 1, 0, 7, 2))]
    paths = []
    for i, part in enumerate(parts):
        paths.append(tmp_path / f"{i}.txt")
        paths[-1].write_bytes(part)
    whole = b"".join(parts)

    files = text.Files(paths)

    assert len(files) == len(whole)
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert files.read(start, stop).tobytes() == whole[start:stop]


def test_a_long_text_is_read_window_by_window_and_gives_the_same_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, length in (("a", 40), ("b", 55), ("c", 5)):
        (tmp_path / f"{name}.txt").write_bytes(bytes(ord(name) + i for i in range(length)))
    held = text.load(str(tmp_path), context=6)
    monkeypatch.setattr(text, "HELD_BYTES", 30)

    read = text.load(str(tmp_path), context=6)

    assert isinstance(read.train, text.Windows)
    assert isinstance(read.val, tuple)  # short enough to be kept in memory
    assert len(read.train) == len(held.train[0])
    for i in range(len(read.train)):
        assert [t.tolist() for t in read.train[i]] == [t[i].tolist() for t in held.train]
    assert read.model_args == held.model_args


def test_a_file_that_shrinks_while_it_is_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100)
    files = text.Files([path])
    os.truncate(path, 60)

    with pytest.raises(BadRequest, match=r"a\.txt became shorter while it was read"):
        files.read(50, 70)


def test_the_loss_is_one_per_byte_and_so_is_the_accuracy(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abcabcabcabcabcabcabcabc")
    task = text.load(str(tmp_path / "a.txt"), context=4, val_share=0.3)
    following = {97: 98, 98: 99, 99: 97}
    sure = torch.zeros(256, 256)
    for byte, after in following.items():
        sure[byte, after] = 100.0
    batch = tuple(t[:2] for t in task.train)

    certain, knows_nothing = sure[batch[0]], torch.zeros(2, 4, 256)

    assert task.count(batch) == 8
    assert task.loss(certain, batch).tolist() == [0.0] * 8
    assert task.metrics(certain, batch)["accuracy"].tolist() == [1.0] * 8
    assert task.loss(knows_nothing, batch).tolist() == pytest.approx([math.log(256)] * 8)
    assert task.higher_is_better == {"accuracy": True}


# Python's own documentation


def test_the_documentation_is_text_of_a_size_that_trains_in_a_minute() -> None:
    task = text.load()

    train, val = read_back(task.train).decode(errors="replace"), read_back(task.val).decode(errors="replace")
    assert task.train[0].shape == (1000, 64)
    assert task.val[0].shape == (250, 64)
    assert "statement" in train
    assert train.isascii() or train.count("\ufffd") < 3  # at most a character cut at the end
    assert len(val) > 15_000


def test_no_paragraph_of_the_documentation_is_in_both_training_and_validation() -> None:
    """The chapter on compound statements repeats those on `if`, `while` and `with`."""
    whole = text.documentation()
    split = len(whole) - math.ceil(len(whole) / 10)
    longest = (split - 1) // 64
    task = text.load(train_size=longest)

    train = read_back(task.train).decode(errors="replace")
    val = whole[split:].decode(errors="replace")

    paragraphs = [paragraph for paragraph in val.split("\n\n")[1:] if len(paragraph) > 80]
    assert len(paragraphs) > 50
    assert [paragraph for paragraph in paragraphs if paragraph in train] == []


def test_the_whole_documentation_can_be_requested() -> None:
    assert len(text.load(train_size=4000).train[0]) == 4000
    assert text.load(context=640).train[0].shape == (100, 640)  # the same bytes, in fewer windows
    with pytest.raises(BadRequest, match=r"^the text is too short: .* for train, .* or data\.train_size=\d+$"):
        text.load(train_size=10**6)


# What cannot be


def many(folder: Path) -> None:
    (folder / "short.txt").write_bytes(b"x" * 30)
    (folder / "one.txt").write_bytes(b"x")
    (folder / "none.txt").write_bytes(b"")
    (folder / "image.png").write_bytes(b"\x89PNG\0\0")
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "absent.txt"}, r"^data\.path=absent\.txt does not exist: give a text file or folder"),
        ({"path": "empty"}, r"^data\.path=empty has no file that matches data\.pattern=\*: put text files there$"),
        ({"path": ".", "pattern": "*.rst"}, r"^data\.path=\. has no file that matches data\.pattern=\*\.rst"),
        ({"path": ".", "pattern": ""}, r"^data\.pattern= is invalid: give a pattern of names, such as \*\.txt"),
        ({"path": ".", "pattern": "/etc/*"}, r"^data\.pattern=/etc/\* is invalid"),
        ({"path": "."}, r"^image\.png is not text \(it has a byte 0\): .*data\.pattern='\*\.txt'"),
        ({"path": "none.txt"}, r"^the text is too short: 0 of its 0 bytes are for train, .*: use a longer text$"),
        ({"path": "one.txt"}, r"^the text is too short: 0 of its 1 bytes"),
        ({"path": "short.txt"}, r"^the text is too short: 27 of its 30 bytes .* context=64 .*, or data\.context=26$"),
        ({"path": "short.txt", "context": 4}, r"^the text is too short: 3 of its 30 bytes are for val, .*context=2$"),
        (
            {"path": "short.txt", "context": 2, "train_size": 14},
            r"14 windows of context=2 and the next byte need 29: use a longer text, or data\.train_size=13$",
        ),
        ({"context": 0}, r"^data\.context=0 is invalid: give a whole number of bytes, such as data\.context=64$"),
        ({"context": 8.0}, r"^data\.context=8\.0 is invalid"),
        ({"context": None}, r"^data\.context=None is invalid"),
        ({"train_size": 0}, r"^data\.train_size=0 is invalid: .* windows, .*, or null for all$"),
        ({"val_size": True}, r"^data\.val_size=True is invalid"),
        ({"val_share": 0}, r"^data\.val_share=0 is invalid: .* between 0 and 1, such as data\.val_share=0\.1$"),
        ({"val_share": 1}, r"^data\.val_share=1 is invalid"),
        ({"val_share": math.nan}, r"^data\.val_share=nan is invalid"),
        ({"val_share": "a tenth"}, r"^data\.val_share=a tenth is invalid"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_what_to_type_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    many(tmp_path)

    with pytest.raises(BadRequest, match=message) as caught:
        text.load(**options)

    assert str(caught.value).isprintable()


def test_a_python_without_its_documentation_requests_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)

    with pytest.raises(BadRequest, match=r"but this Python has none \(pydoc_data\): give your own text, data\.path="):
        text.load()


# A run

BIGRAM = """
from torch import nn


class Bigram(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)
        nn.init.zeros_(self.table.weight)

    def forward(self, inputs):
        return self.table(inputs)
"""


def test_a_sweep_over_a_text_learns_it_at_every_batch_size(lab: Lab) -> None:
    """A text in which two bytes of three follow from the previous one: the best loss of a table is known."""
    generator = torch.Generator().manual_seed(0)
    coins = torch.randint(0, 2, (3000,), generator=generator).tolist()
    Path("coins.txt").write_text("".join("ab" + "xy"[coin] for coin in coins))
    Path("my_net.py").write_text(BIGRAM)
    requested = ["data=text", "data.path=coins.txt", "data.context=9", "model._target_=my_net.Bigram"]
    requested += ["lr=4", "optimizer.momentum=0", "epochs=3"]
    points = [lab.point(*requested, f"batch_size={size}") for size in (4, 16)]

    lab.check(*points)
    outcome = lab.run(*points)

    assert [record.status for record in outcome.records] == ["completed"] * 2
    for point in points:
        losses = lab.values(point, "val/loss")
        assert losses[0] == pytest.approx(math.log(256))
        # ln 2 for one byte in three; incomplete training and sampling add a little.
        assert math.log(2) / 3 - 0.01 < losses[-1] < math.log(2) / 3 + 0.06
        assert lab.values(point, "val/accuracy")[-1] == pytest.approx(5 / 6, abs=0.03)


@pytest.mark.slow
def test_a_text_too_long_to_be_held_is_trained_on_from_disk(lab: Lab) -> None:
    """300 MB of text, which would be 4.8 GB as integers."""
    line = b"the quick brown fox jumps over the lazy dog; "
    block = line * (10**6 // len(line))
    with Path("long.txt").open("wb") as file:
        for _ in range(300):
            file.write(block)
    Path("my_net.py").write_text(BIGRAM)
    requested = [
        "data=text",
        "data.path=long.txt",
        "data.context=512",
        "data.val_size=20",
        "batch_size=8",
        "examples=400",
    ]
    one, two = (
        lab.point(
            *requested, "model._target_=my_net.Bigram", "lr=20", "optimizer.momentum=0", f"workers={n}", f"study=w{n}"
        )
        for n in (0, 2)
    )

    lab.check(one, two)
    outcome = lab.run(one, two)

    assert [record.status for record in outcome.records] == ["completed"] * 2
    assert {record.n_train for record in outcome.records} == {(300 * len(block) * 9 // 10 - 1) // 512}
    assert lab.values(one, "val/loss") == lab.values(two, "val/loss")
    assert lab.values(one, "val/loss")[-1] < 2
    assert max(record.final["memory/peak_resident_bytes"] for record in outcome.records) < 500 * 2**20

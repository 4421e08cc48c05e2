"""Tables: scikit-learn's small sets and a user's CSV file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from sweep_runs import Lab

from batchlab import BadRequest
from batchlab.data import csv_table, sklearn_sets

ROWS = {"iris": 150, "wine": 178, "breast_cancer": 569, "digits": 1797}
COLUMNS = {"iris": 4, "wine": 13, "breast_cancer": 30, "digits": 64}
CLASSES = {"iris": 3, "wine": 3, "breast_cancer": 2, "digits": 10}


def write(folder: Path, content: str, name: str = "table.csv") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


def linear(rows: int, **columns: list[Any]) -> str:
    """A CSV of `rows` rows: x, y, 3x - 2y, and other given columns."""
    draws = np.random.default_rng(0).normal(size=(rows, 2)).round(3)
    lines = ["x,y,sum," + ",".join(columns)]
    for i, (x, y) in enumerate(draws):
        more = [str(values[i % len(values)]) for values in columns.values()]
        lines.append(",".join([f"{x:.3f}", f"{y:.3f}", f"{3 * x - 2 * y:.3f}", *more]))
    return "\n".join(line.rstrip(",") for line in lines) + "\n"


# scikit-learn's


@pytest.mark.parametrize("name", sklearn_sets.CLASSES)
def test_a_set_of_scikit_learn_is_there_whole_each_row_once(name: str) -> None:
    task = sklearn_sets.load(name)
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)

    rows = torch.cat([task.train[0], task.val[0]]).double().numpy()
    labels = torch.cat([task.train[1], task.val[1]]).numpy()

    assert rows.shape == (ROWS[name], COLUMNS[name])
    assert len(task.val[0]) == round(0.2 * ROWS[name])
    assert task.model_args == {"num_classes": CLASSES[name], "input_shape": (COLUMNS[name],)}
    # Each column is a linear function of the original: rows are matched by their labels and sorted values.
    for column in range(COLUMNS[name]):
        for label in range(CLASSES[name]):
            ours, theirs = np.sort(rows[labels == label, column]), np.sort(inputs[targets == label, column])
            assert len(ours) == len(theirs)
            if np.ptp(theirs) > 0:
                assert np.corrcoef(ours, theirs)[0, 1] > 0.999999


@pytest.mark.parametrize("name", [*sklearn_sets.CLASSES, *sklearn_sets.NUMBERS])
def test_columns_have_mean_0_and_variance_1_over_the_training_rows_alone(name: str) -> None:
    task = sklearn_sets.load(name)

    deviations = task.train[0].double().std(dim=0, unbiased=False)
    assert task.train[0].dtype == torch.float32
    assert task.train[0].double().mean(dim=0).abs().max() < 1e-5
    assert (((deviations - 1).abs() < 1e-5) | (deviations == 0)).all()
    assert task.val[0].double().mean(dim=0).abs().max() > 1e-3
    if name in sklearn_sets.NUMBERS:
        assert task.train[1].double().mean(dim=0).abs().max() < 1e-5
        assert task.train[1].double().std(dim=0, unbiased=False).numpy() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("name", "outputs"), [("diabetes", 1), ("linnerud", 3)])
def test_targets_are_standardised_and_errors_are_in_their_own_unit(name: str, outputs: int) -> None:
    task = sklearn_sets.load(name)
    _, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    targets = targets.reshape(len(targets), -1)
    spread = np.sort(targets, axis=0)
    batch = tuple(t[:7] for t in task.train)
    always_the_mean = torch.zeros(7, outputs)

    losses, errors = task.loss(always_the_mean, batch), task.metrics(always_the_mean, batch)["absolute_error"]

    whole = task.loss(torch.zeros(len(task.train[0]), outputs), task.train)
    assert float(whole.mean()) == pytest.approx(1.0, abs=1e-5)
    assert losses.shape == errors.shape == (7,)
    assert task.model_args["num_outputs"] == outputs
    # Both parts, rescaled by the deviation that `absolute_error` uses, are the targets.
    ours = torch.cat([task.train[1], task.val[1]]).reshape(-1, outputs).double().numpy()
    for column in range(outputs):
        line = np.polyfit(np.sort(ours[:, column]), spread[:, column], 1)
        assert np.polyval(line, np.sort(ours[:, column])) == pytest.approx(spread[:, column], abs=1e-3)
        if outputs == 1:
            assert float(errors[0]) == pytest.approx(abs(float(batch[1][0])) * line[0], rel=1e-4)


def test_the_split_does_not_depend_on_train_size() -> None:
    """Validation has the same rows, although standardised by fewer training rows."""
    torch.manual_seed(1)
    np.random.seed(1)
    whole = sklearn_sets.load("wine")
    np.random.seed(2)

    some = sklearn_sets.load("wine", train_size=40)

    assert len(some.train[0]) == 40
    assert torch.equal(some.train[1], whole.train[1][:40])
    assert torch.equal(some.val[1], whole.val[1])
    assert some.train[0].mean(dim=0).abs().max() < 1e-5
    assert whole.val[1][:8].tolist() == sklearn_sets.load("wine").val[1][:8].tolist()


def test_label_noise_applies_to_labels_and_not_to_numbers() -> None:
    right, task = sklearn_sets.load("iris"), sklearn_sets.load("iris", label_noise=0.25)

    assert task.corrupted is not None
    assert int(task.corrupted.sum()) == 30
    assert torch.equal(right.train[1] != task.train[1], task.corrupted)
    assert torch.equal(right.val[1], task.val[1])
    with pytest.raises(BadRequest, match=r"^data\.label_noise=0\.1 is invalid: data\.name=diabetes predicts numbers"):
        sklearn_sets.load("diabetes", label_noise=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "irises"},
            r"^data\.name=irises is not one of the sets .*: use one of iris, wine, .*linnerud; for your own table",
        ),
        ({"name": "california_housing"}, r"^data\.name=california_housing is not one of the sets that ship with"),
        (
            {"name": "iris", "train_size": 121},
            r"^data\.train_size=121 .* has 120 rows .* data\.train_size=120, or null",
        ),
        ({"name": "iris", "train_size": 0}, r"^data\.train_size=0 is invalid"),
        ({"name": "iris", "train_size": True}, r"^data\.train_size=True is invalid"),
        ({"name": "iris", "val_share": 0}, r"^data\.val_share=0 is invalid: .*such as data\.val_share=0\.2"),
        ({"name": "iris", "val_share": math.nan}, r"^data\.val_share=nan is invalid"),
        ({"name": "iris", "val_share": 0.999}, r"^data\.name=iris has 150 rows, of which .* leaves none to train on"),
    ],
)
def test_an_invalid_set_is_refused_with_what_to_type_instead(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        sklearn_sets.load(**options)

    assert str(caught.value).isprintable()


# A CSV file


def test_numbers_are_standardised_and_words_become_columns_of_0_and_1(tmp_path: Path) -> None:
    path = write(tmp_path, linear(40, colour=["red", "green", "blue", "red"], sold=["True", "False"]))

    task = csv_table.load(path, "sum")

    # x, y, then blue, green, red in alphabetical order, then sold.
    inputs = torch.cat([task.train[0], task.val[0]])
    assert inputs.shape == (40, 6)
    assert task.model_args == {"num_outputs": 1, "input_shape": (6,)}
    words = inputs[:, 2:5]
    assert set(words.flatten().tolist()) == {0.0, 1.0}
    assert words.sum(dim=1).tolist() == [1.0] * 40
    assert words.sum(dim=0).tolist() == [10.0, 10.0, 20.0]
    assert len(set(inputs[:, 5].tolist())) == 2
    # The linear function that generated the columns gives the targets.
    known = torch.cat([inputs[:, :2], torch.ones(40, 1)], dim=1).double()
    targets = torch.cat([task.train[1], task.val[1]]).double()
    solved = torch.linalg.lstsq(known, targets[:, None]).solution
    assert (known @ solved).flatten().numpy() == pytest.approx(targets.numpy(), abs=1e-3)


def test_the_kind_of_target_depends_on_the_column_unless_given(tmp_path: Path) -> None:
    path = write(tmp_path, linear(60, word=["b", "a", "c"], grade=[3, 1, 7], yes=["True", "False"]))

    tasks = {name: csv_table.load(path, name) for name in ("word", "grade", "yes", "sum")}
    as_numbers = csv_table.load(path, "grade", kind="regression", leave_out=["word"])

    assert {name: task.model_args.get("num_classes") for name, task in tasks.items()} == {
        "word": 3,
        "grade": 3,
        "yes": 2,
        "sum": None,
    }
    assert torch.bincount(torch.cat([tasks["grade"].train[1], tasks["grade"].val[1]])).tolist() == [20, 20, 20]
    assert tasks["sum"].metrics(torch.zeros(3, 1), tuple(t[:3] for t in tasks["sum"].train)).keys() == {
        "absolute_error"
    }
    assert "absolute_error" in as_numbers.higher_is_better
    assert as_numbers.train[0].shape[1] == 4  # x, y, sum, yes
    assert tasks["word"].train[0].shape[1] == 5
    assert tasks["yes"].labels is not None


def test_the_title_of_the_target_may_be_a_number(tmp_path: Path) -> None:
    by_year = np.arange(20) ** 2
    path = write(tmp_path, "None,2024\n" + "".join(f"{i},{value}\n" for i, value in enumerate(by_year)))
    options: dict[str, Any] = {"target": 2024}  # as data.target=2024 is read

    task = csv_table.load(path, **options, kind="regression")

    targets = torch.cat([task.train[1], task.val[1]]).flatten().sort().values.double().numpy()
    assert np.corrcoef(targets, by_year)[0, 1] > 0.999999
    with pytest.raises(BadRequest, match=r"^data\.leave_out=2024 is invalid: name columns other than the target"):
        csv_table.load(path, **options, leave_out=["2024"])
    with pytest.raises(BadRequest, match=r"^data=csv needs data\.target=\.\.\.: .* has the columns None, 2024$"):
        csv_table.load(path)


def test_rows_with_missing_values_are_left_out_only_on_request(tmp_path: Path) -> None:
    content = linear(30, colour=["red", "green"]).splitlines()
    content[3], content[9] = content[3].replace("red", "").replace("green", ""), "," + content[9].partition(",")[2]
    path = write(tmp_path, "\n".join(content) + "\n")

    with pytest.raises(BadRequest, match=r"missing values in 'x' \(1\), 'colour' \(1\): fill .*missing=drop"):
        csv_table.load(path, "sum")
    task = csv_table.load(path, "sum", missing="drop")
    without = csv_table.load(path, "sum", leave_out=["x", "colour"])

    assert len(task.train[0]) + len(task.val[0]) == 28
    assert len(without.train[0]) + len(without.val[0]) == 30


def test_other_separators_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + linear(20).replace(",", ";").encode())

    task = csv_table.load(str(tmp_path / "t.csv"), "x", separator=";")

    assert task.train[0].shape == (16, 2)


BROKEN = {
    "empty.csv": "",
    "blank.csv": "\n\n",
    "semicolons.csv": "a;b\n1,5;2\n3;4\n",
    "tabs.csv": "a\tb\n1\t2\n3\t4\n",
    "titles.csv": "a,b\n",
    "one_column.csv": "a\n1\n2\n3\n",
    "long_row.csv": "a,b\n1,2\n3,4,5\n",
    "long_rows.csv": "a,b\n1,2,3\n3,4,5\n",
    "short_row.csv": "a,b\n1,2\n3,4\n5\n",
    "twice.csv": "a,b,a\n1,2,3\n3,4,5\n",
    "mistake.csv": "a,b\n1,2\n3,4\nfive,6\n7,8\n",
    "infinite.csv": "a,b\n1,2\ninf,4\n5,6\n",
    "all_missing.csv": "a,b\n1,\n,4\n5,\n",
    "one_class.csv": "a,b\n1,x\n2,x\n3,x\n4,x\n",
    "names.csv": "a,b\n1,ann\n2,bob\n3,cyd\n4,dan\n",
    "texts.csv": "a,b\n" + "".join(f"{i % 2},text{i}\n" for i in range(150)),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^data=csv needs data\.path=my_table\.csv and data\.target=\.\.\., the column to predict$"),
        (
            {"path": "absent.csv", "target": "b"},
            r"^data\.path=absent\.csv is not a file: give the path of a CSV file, relative to",
        ),
        ({"path": "twice.csv", "target": "b"}, r"has the column 'a' more than once: rename one of them"),
        ({"path": "empty.csv", "target": "b"}, r"^data\.path=empty\.csv is invalid: the file is empty$"),
        ({"path": "blank.csv", "target": "b"}, r"^data\.path=blank\.csv is invalid: the file is empty$"),
        (
            {"path": "semicolons.csv", "target": "b"},
            r"^data\.path=semicolons\.csv: only one column was found with the separator ','; its first line "
            """contains ';': add 'data\\.separator=";"'$""",
        ),
        ({"path": "tabs.csv", "target": "b"}, r"""contains a tab: add \$'data\.separator="\\t"'$"""),
        ({"path": "names.csv", "target": "b", "separator": ";"}, r"the separator ';'; its first line contains ','"),
        ({"path": "binary.csv", "target": "b"}, r"^data\.path=binary\.csv cannot be read as a CSV file: .*utf-8"),
        ({"path": "titles.csv", "target": "b"}, r"has 0 rows of 2 columns: it needs a header line"),
        ({"path": "one_column.csv", "target": "a"}, r"has 3 rows of 1 columns: .*data\.separator=','"),
        ({"path": "long_row.csv", "target": "b"}, r"cannot be read as a CSV file: .*Expected 2 fields in line 3"),
        ({"path": "long_rows.csv", "target": "b"}, r"has rows with more values than there are titles"),
        ({"path": "short_row.csv", "target": "b"}, r"has missing values in 'b' \(1\): fill them in"),
        ({"path": "short_row.csv", "target": "b", "missing": "mean"}, r"^data\.missing=mean is invalid: use refuse"),
        ({"path": "all_missing.csv", "target": "b", "missing": "drop"}, r"has 0 rows without missing values"),
        ({"path": "short_row.csv"}, r"^data=csv needs data\.target=\.\.\.: short_row\.csv has the columns a, b$"),
        ({"path": "short_row.csv", "target": "c"}, r"^data\.target=c is not a column: short_row\.csv has .* a, b$"),
        ({"path": "short_row.csv", "target": "b", "leave_out": ["c"]}, r"^data\.leave_out=c is invalid: .* has a, b$"),
        ({"path": "short_row.csv", "target": "b", "leave_out": ["b"]}, r"^data\.leave_out=b is invalid"),
        ({"path": "short_row.csv", "target": "b", "leave_out": "a"}, r"^data\.leave_out=\[a\] leaves no column of"),
        ({"path": "mistake.csv", "target": "b"}, r"has numbers in 'a', but in line 4 'five': fix it, or leave"),
        ({"path": "mistake.csv", "target": "a"}, r"has numbers in 'a', but in line 4 'five'"),
        ({"path": "infinite.csv", "target": "b"}, r"has infinite values in 'a': remove them"),
        ({"path": "one_class.csv", "target": "b"}, r"^'b' of one_class\.csv has 1 different values in 4 rows"),
        ({"path": "names.csv", "target": "b"}, r"^'b' of names\.csv has 4 different values in 4 rows, .*data\.target$"),
        ({"path": "names.csv", "target": "a", "kind": "classification"}, r"or data\.kind=regression$"),
        ({"path": "names.csv", "target": "b", "kind": "regression"}, r"^data\.kind=regression is invalid: 'b' of"),
        ({"path": "names.csv", "target": "a", "kind": "numbers"}, r"^data\.kind=numbers is invalid: use class"),
        ({"path": "texts.csv", "target": "a"}, r"has 150 different texts in 'b', .*data\.leave_out=\[b\]$"),
        (
            {"path": "names.csv", "target": "a", "separator": ""},
            r"^data\.separator= is invalid: it must be one character",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_what_to_type_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in BROKEN.items():
        write(tmp_path, content, name)
    (tmp_path / "binary.csv").write_bytes(b"a,b\n\x80\xff,1\n2,3\n")

    with pytest.raises(BadRequest, match=message) as caught:
        csv_table.load(**options)

    assert str(caught.value).isprintable()


# Runs


def test_points_on_tables_run_and_learn(lab: Lab) -> None:
    write(Path(), linear(200))
    requested = ["batch_size=16", "default_epochs=30", "model.width=16", "model.depth=0"]
    points = [
        lab.point("data=sklearn", "data.name=wine", *requested),
        lab.point(
            "data=sklearn", "data.name=diabetes", *requested, "target.metric=val/absolute_error", "target.value=60"
        ),
        lab.point("data=csv", "data.path=table.csv", "data.target=sum", *requested),
    ]

    lab.check(*points)
    outcome = lab.run(*points)

    assert [record.status for record in outcome.records] == ["completed"] * 3
    wine, diabetes, table = (record.final for record in outcome.records)
    assert wine["val/accuracy"] > 0.9
    # A linear model of all columns explains half of the variance (the least squares of scikit-learn's own example).
    assert 0.3 < diabetes["val/loss"] < 0.75
    assert 35 < diabetes["val/absolute_error"] < 60
    assert table["val/loss"] < 0.01  # a linear function is learnt by a linear model

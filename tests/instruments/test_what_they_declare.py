"""Every measurement of batchlab's instruments is declared, with its unit; and which declarations are valid."""

import ast
import re
from collections.abc import Iterator

import pytest
from instrument_catalogue import CATALOGUE, trained
from still_life import classified

from batchlab.errors import BadRequest
from batchlab.instruments import Instrument, Quantity
from batchlab.instruments.panel import check_declared, declared
from batchlab.records.quantities import TABLE, UNDECLARED, noise_scale

A_NAME = re.compile(r"[a-z_]+/[a-z_]+")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_measurement_that_it_yields_is_one_of_its_quantities(name):
    instrument = CATALOGUE[name]()
    _, _, measured = trained([instrument], "fp16")  # with a scaler, so that skipped steps are counted

    covered = {m.name: [q for q in instrument.quantities if q.covers(m.name)] for m in measured}

    assert [name for name, by in covered.items() if not by] == []
    assert all(quantity.unit and quantity.meaning for by in covered.values() for quantity in by)
    assert set(instrument.quantities) <= set(TABLE)


def test_every_name_of_a_measurement_in_the_code_is_in_the_table(repository):
    # Including those that only a GPU yields.
    named = set(names_in(repository / "batchlab/instruments")) | set(names_in(repository / "batchlab/training"))

    assert {"memory/device_used_bytes", "memory/peak_allocated_bytes", "speed/device_busy_share"} <= named
    declared = [quantity for quantity in TABLE if quantity not in UNDECLARED]
    left = [name for name in sorted(named) if not any(quantity.covers(name) for quantity in declared)]
    assert left == ["memory/peak_private_bytes"]  # from the probes of `find`, which have no journal


def names_in(folder) -> Iterator[str]:
    """Strings that look like measurement names, except documentation."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and A_NAME.fullmatch(node.value):
                yield node.value


def test_every_quantity_of_the_table_is_an_instruments_own_or_a_fallback():
    made = {quantity for build in CATALOGUE.values() for quantity in build().quantities}

    left = [quantity.name for quantity in TABLE if quantity not in made and quantity not in noise_scale("noise")]

    assert {name for name in left if not name.startswith("noise_micro_batches/")} == {
        "speed/<unit>",
        "memory/<what>_bytes",
    }
    assert len({quantity.name for quantity in TABLE}) == len(TABLE)


class Mine(Instrument):
    def __init__(self, name, *quantities):
        self.instrument_name, self.quantities = name, quantities


SCORE = Quantity("mine/score", "points", "what I look at")


def test_a_record_declares_the_own_quantities_of_instruments_and_of_the_task():
    task = classified(higher_is_better={"accuracy": True, "top5": True})

    found = declared([CATALOGUE["validation"](), Mine("a", SCORE), Mine("b", SCORE)], task)

    assert [(quantity.name, quantity.higher_is_better) for quantity in found] == [
        ("val/top5", True),
        ("mine/score", None),
    ]


@pytest.mark.parametrize(
    ("instruments", "why"),
    [
        ([Mine("a", "mine/score")], r"instruments.a declares 'mine/score' among its quantities: use batchlab"),
        ([Mine("a", SCORE), Mine("b", Quantity("mine/score", "1", "else"))], "declare mine/score differently"),
    ],
)
def test_declarations_that_are_not_quantities_or_conflict_are_refused(instruments, why):
    with pytest.raises(BadRequest, match=why):
        check_declared(instruments)

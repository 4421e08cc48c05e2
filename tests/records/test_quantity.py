"""A declaration of what is measured: which names it covers, what is refused, and how it travels in a record."""

import json
from dataclasses import asdict, replace

import pytest

from batchlab.errors import BadRequest
from batchlab.records.declared import Quantities, besides_the_table, metrics
from batchlab.records.quantities import TABLE, VALIDATION_LOSS, noise_scale
from batchlab.records.quantity import Chart, Quantity

MINE = Quantity("mine/score", "points", "what I look at", True, chart=Chart("Mine", "score"), column="my\nscore")


@pytest.mark.parametrize(
    ("name", "declared_as", "unit"),
    [
        ("val/loss", "val/loss", "loss"),
        ("val/top5", "val/<metric>", "the metric's"),
        ("noise/scale_examples.layers.0", "noise/scale_examples.<layer>", "examples"),
        ("sharpness/trace", "sharpness<_at_loss_LEVEL>/trace", "loss/weight^2"),
        ("sharpness_at_loss_0.5/trace", "sharpness<_at_loss_LEVEL>/trace", "loss/weight^2"),
        ("memory/of_mine_bytes", "memory/<what>_bytes", "bytes"),
        ("mine/loss", "mine/loss", ""),
    ],
)
def test_a_name_is_declared_by_itself_or_in_a_family_or_not_at_all(name, declared_as, unit):
    found = Quantities()[name]

    assert (found.name, found.unit) == (declared_as, unit)


def test_what_a_run_declares_takes_precedence_over_the_table():
    own = Quantity("val/<metric>", "points", "a metric of mine"), replace(VALIDATION_LOSS, unit="nats")
    known = Quantities(own)

    assert [known[name].unit for name in ("val/top5", "val/loss", "val/accuracy")] == ["points", "nats", "share"]
    assert len(list(known)) == len(TABLE)


def test_a_record_declares_only_what_the_table_does_not():
    declared = [*TABLE, MINE, *noise_scale("noise"), MINE, replace(VALIDATION_LOSS, unit="nats")]

    assert besides_the_table(declared) == (MINE, replace(VALIDATION_LOSS, unit="nats"))


def test_a_task_says_which_way_its_metrics_are_better_but_not_of_the_loss():
    found = {m.name: (m.higher_is_better, m.keep_best) for m in metrics({"loss": True, "error": False, "top5": True})}

    assert found == {"val/error": (False, True), "val/top5": (True, True)}
    assert besides_the_table(metrics({"accuracy": True})) == ()


def test_a_quantity_comes_back_from_json_as_it_was():
    for quantity in (*TABLE, MINE):
        assert Quantity.from_dict(json.loads(json.dumps(asdict(quantity)))) == quantity
    newer = asdict(MINE) | {"colour": "red", "chart": asdict(MINE.chart) | {"colour": "red"}}
    assert Quantity.from_dict(newer) == MINE


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"unit": 3}, r"Quantity\(unit=3\) is invalid: it must be of type str"),
        ({"higher_is_better": "yes"}, r"higher_is_better='yes'\) is invalid: it must be of type bool \| None"),
        ({"compared": "quotient"}, "use 'difference', 'ratio' or ''"),
        ({"name": "mine/<metric>"}, "is a family, which a row or column cannot show"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_hand_and_from_a_record(changes, why):
    with pytest.raises(BadRequest, match=why):
        replace(MINE, **changes)
    with pytest.raises(ValueError, match=why):
        Quantity.from_dict(asdict(MINE) | changes)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (VALIDATION_LOSS.written(1.0), "1.000"),
        (Quantities()["val/accuracy"].written(0.5), "0.5000"),
        (Quantities()["speed/examples_per_second"].written(12345.6), "12,346"),
        (Quantities()["memory/peak_growth_bytes"].written(1.5 * 2**20), "1.5"),
        (Quantities()["memory/saved_for_backward_bytes"].written(1.5 * 2**20), "1.50"),
        (Quantities()["memory/saved_for_backward_bytes"].written(2.0**30), "1,024"),
        (MINE.written(1 / 3), "0.3333"),
        (MINE.written(None), "-"),
    ],
)
def test_a_value_is_written_by_its_unit(value, written):
    assert value == written

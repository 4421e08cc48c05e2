"""The one comparator: which configurations are the same in what moves the weights, the speed, the memory."""

from typing import Any

import pytest
from plain_defaults import configured

from batchlab.config import key, to_dict
from batchlab.config.option_row import EXECUTION, IDENTITY, MEASUREMENTS, MEMORY, PARTS, SPEED, VALUES, WEIGHTS, Moves
from batchlab.config.options import MICRO_BATCHES, RUN
from batchlab.recording.masking import masked

MOMENTUM = {"_target_": "torch.optim.SGD", "momentum": 0.9}
PLAIN = {"_target_": "torch.optim.SGD", "momentum": 0.0}


def of(moves: Moves, *without: str, **changes: Any) -> str:
    return key(configured(**{"device": "cpu", **changes}), moves, without=without)


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"lr": 0.3}, WEIGHTS),
        ({"seed": 3}, WEIGHTS),
        ({"schedule": "cosine", "warmup": 0.1}, WEIGHTS),
        ({"steps": 7}, WEIGHTS),
        ({"lr_scaling": "linear"}, WEIGHTS | PARTS),
        ({"precision": "bf16"}, EXECUTION),
        ({"optimizer": PLAIN}, EXECUTION),
        ({"clip_norm": 1.0}, EXECUTION),
        ({"weight_decay": 0.1}, EXECUTION | PARTS),  # an optimizer may take none
        ({"deterministic": True}, EXECUTION),
        ({"device": "cuda"}, EXECUTION),
        ({"device": "cuda:1"}, EXECUTION),
        ({"accumulate": 2}, EXECUTION),
        ({"target": {"metric": "val/loss", "value": 1.0}}, MEASUREMENTS),
        ({"eval_every": 3}, MEASUREMENTS),
        ({"eval_batch_size": 7}, VALUES),
        ({"eval_precision": "same"}, VALUES | PARTS),
        ({"instruments": {}}, MEASUREMENTS | SPEED | MEMORY),
        ({"workers": 2}, SPEED | MEMORY),
        ({"trust": ["timm"]}, PARTS),
        (
            {"timeout": 3.0, "study": "x", "runs_dir": "y", "checkpoint_every": 9},
            Moves.NOTHING,
        ),
    ],
)
def test_a_key_differs_where_what_differs_moves_it(changes: dict[str, Any], moved: Moves) -> None:
    differ = [flag for flag in Moves if of(flag, **changes) != of(flag)]

    assert differ == [flag for flag in Moves if flag & moved]


def test_how_large_a_threshold_is_moves_the_weights_and_nothing_else() -> None:
    for name in ("clip_norm", "weight_decay"):
        one, other = {name: 0.1}, {name: 0.2}
        assert of(WEIGHTS, **one) != of(WEIGHTS, **other)
        assert of(SPEED | MEMORY | PARTS, **one) == of(SPEED | MEMORY | PARTS, **other)


def test_what_is_left_out_is_not_compared() -> None:
    assert of(IDENTITY, "lr", "seed", lr=0.3, seed=4) == of(IDENTITY, "lr", "seed")
    assert of(MEMORY, *MICRO_BATCHES, batch_size=512, accumulate=4) == of(MEMORY, *MICRO_BATCHES)


def test_accumulation_is_as_used_and_as_requested_where_the_batch_size_varies() -> None:
    by_count, by_size = {"batch_size": 64, "accumulate": 4}, {"batch_size": 64, "micro_batch_size": 16}

    assert of(WEIGHTS, **by_count) == of(WEIGHTS, **by_size) != of(WEIGHTS, batch_size=64)
    assert of(WEIGHTS, "batch_size", **by_count) != of(WEIGHTS, "batch_size", **by_size)
    assert of(WEIGHTS, "batch_size", batch_size=64, accumulate=1) == of(WEIGHTS, "batch_size")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 7, "target": {"metric": "val/loss", "value": 2}, "trust": ["timm"]},
        {
            "batch_size": 64,
            "accumulate": 4,
            "model": {"_target_": "my_net.Net", "sizes": (1, 2.0), "ghost_batch": None},
        },
        {"lr_scaling": "noise", "noise_scale": 96.5, "data": {"_target_": "my_net.load", "root": "a"}},
    ],
)
def test_a_record_has_the_key_of_its_run(changes: dict[str, Any]) -> None:
    config = configured(**{"device": "cpu", **changes})

    for moves in (IDENTITY, SPEED, MEMORY | PARTS):
        assert key(masked(to_dict(config)), moves) == key(config, moves)


def test_a_record_from_before_an_option_is_of_the_value_that_runs_had_then() -> None:
    config = configured(device="cpu")
    added = [name for name, row in RUN.items() if row.was_added]
    before = {name: value for name, value in to_dict(config).items() if name not in added}

    assert added
    assert key(before, IDENTITY) == key(config, IDENTITY)


def test_what_the_table_does_not_know_may_move_anything() -> None:
    record = to_dict(configured())

    assert key(record | {"of_a_newer_version": 1}, MEMORY) != key(record | {"of_a_newer_version": 2}, MEMORY)
    assert key(record | {"hidden": ["data.root"]}, IDENTITY) == key(record, IDENTITY)

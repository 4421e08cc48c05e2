"""Curves over the batch size: what is averaged, what is kept apart, and how it is called."""

import re
from dataclasses import replace

import pytest
from invented.written import config, record

from batchlab.tensorboard import by_batch_size


def test_configurations_are_named_by_what_distinguishes_them():
    sgd, adamw = {"_target_": "torch.optim.SGD", "momentum": 0.9}, {"_target_": "torch.optim.AdamW", "eps": 1e-8}
    requested = [
        {},
        {"lr": 0.1},
        {"accumulate": 4},
        {"accumulate": 4, "optimizer": adamw},
        {"optimizer": sgd, "seed": 5, "batch_size": 7},
        {"optimizer": sgd, "lr": 0.1, "precision": "bf16"},
    ]

    curves = by_batch_size.curves(
        record(run_id=str(i), config=config(**changes)) for i, changes in enumerate(requested)
    )

    assert len(curves) == 6
    assert {re.sub("-?optimizer.nesterov.*", "", name) for name in curves} == {
        "lr0.05-linear-fp32-SGD",
        "lr0.1-linear-fp32",
        "lr0.05-linear-fp32-SGD-accumulate4",
        "lr0.05-linear-fp32-AdamW",
        "lr0.1-linear-bf16",
    }
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in curves)


def test_names_that_cannot_be_distinguished_in_a_hundred_characters_still_are():
    requested = [{"model": {"_target_": "m.N", "text": "x" * 150 + end}} for end in "ab"]

    curves = by_batch_size.curves(
        record(run_id=str(i), config=config(**changes)) for i, changes in enumerate(requested)
    )

    assert len(curves) == 2
    assert max(map(len, curves)) <= 110


def test_runs_for_which_files_were_to_be_fetched_lie_on_the_curve_of_the_others():
    mnist = {"_target_": "batchlab.data.mnist.load", "folder": "data", "download": True}
    requested = {8: mnist, 32: {**mnist, "download": False}, 128: {**mnist, "folder": "fewer"}}
    runs = [
        record(batch_size=size, config=config(data=data), final={"val/loss": 1.0}) for size, data in requested.items()
    ]

    curves = by_batch_size.curves(runs).values()

    assert [list(curve["by_batch_size/val_loss"]) for curve in curves] == [[8, 32], [128]]


def test_a_run_that_shared_the_machine_is_not_compared_by_its_clock():
    alone = record(batch_size=8, final={"val/loss": 1.0, "speed/examples_per_second": 10.0}, train_seconds=1.0)
    together = replace(alone, batch_size=32, shared_machine=True)

    (curve,) = by_batch_size.curves([alone, together]).values()

    assert curve["by_batch_size/val_loss"] == {8: 1.0, 32: 1.0}
    assert curve["by_batch_size/examples_per_second"] == {8: 10.0}
    assert curve["by_batch_size/examples_per_second_on_shared_machine"] == {32: 10.0}
    assert curve["by_batch_size/train_seconds_on_shared_machine"] == {32: 1.0}


def test_what_it_took_to_reach_the_target_is_a_mean_only_where_every_seed_did():
    reached = {"metric": "val/loss", "value": 0.3, "reached": True, "step": 4, "examples": 128, "train_seconds": 1.0}
    missed = {**reached, "reached": False, "step": None, "examples": None, "train_seconds": None}
    runs = [
        record(batch_size=8, seed=0, target=reached),
        record(batch_size=8, seed=1, target={**reached, "examples": 256}),
        record(batch_size=32, seed=0, target=reached),
        record(batch_size=32, seed=1, target=missed),
    ]

    (curve,) = by_batch_size.curves(runs).values()

    assert curve["by_batch_size/target_examples"] == {8: 192.0}
    assert curve["by_batch_size/target_steps"] == {8: 4.0}


def test_a_run_on_another_model_of_gpu_is_not_compared_by_its_clock():
    made = [
        record(
            run_id=f"{seed}-{name}",
            config=config(device="cuda", seed=seed),
            environment={"device_name": name},
            final={"speed/examples_per_second": speed, "val/loss": loss},
        )
        for seed, name, speed, loss in ((0, "L4", 10.0, 0.1), (1, "L4", 20.0, 0.2), (2, "A100", 900.0, 0.6))
    ]

    (curves,) = by_batch_size.curves(made).values()

    (size,) = curves["by_batch_size/examples_per_second"]
    assert curves["by_batch_size/examples_per_second"] == {size: 15.0}
    assert curves["by_batch_size/examples_per_second_on_another_device"] == {size: 900.0}
    assert curves["by_batch_size/val_loss"][size] == pytest.approx(0.3)

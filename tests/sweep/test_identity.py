"""Which run a configuration is: what makes another run, what does not, and that no machine disagrees."""

from dataclasses import fields, replace
from typing import Any

import pytest
from plain_defaults import configured

from batchlab.config import RunConfig
from batchlab.config.options import OPTIONS
from batchlab.sweep.identity import digest, group_id, identity, run_id


def made(**changes: Any) -> RunConfig:
    return configured(**{"device": "cpu", **changes})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1}, {"lr": 1.0}),
        ({"epochs": 2}, {"epochs": 2.0}),
        ({"batch_size": 64, "accumulate": 4}, {"batch_size": 64, "micro_batch_size": 16}),
        ({"device": "cuda:0"}, {"device": "cuda:3"}),
        ({"target": {"metric": "val/loss", "value": 1}}, {"target": {"value": 1.0, "metric": "val/loss"}}),
        ({"model": {"_target_": "a.B", "x": (1, 2.0)}}, {"model": {"x": [1.0, 2], "_target_": "a.B"}}),
        ({}, {"hidden": ["data.root"]}),
    ],
)
def test_one_run_requested_in_two_ways_is_one_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert run_id(made(**one)) == run_id(made(**other))


# By literal, or a change of what is compared would go unnoticed: these are the names that run folders have.
IDS: dict[str, dict[str, Any]] = {
    "bs32-lr0.02-fp32-s0-575da1bc49": {},
    "bs64-x4-lr0.02-fp32-s0-150ece3221": {"batch_size": 64, "micro_batch_size": 16},
    "bs100-x3-lr0.02-fp32-s0-d9c0d27d85": {"batch_size": 100, "accumulate": 3},
    "bs8-lr0.1-linear-fp32-s0-11007fe94c": {
        "batch_size": 8,
        "lr": 0.1,
        "lr_scaling": "linear",
        "reference_batch_size": 64,
    },
    "bs256-lr0.02-noise-fp32-s0-51d034d67d": {"batch_size": 256, "lr_scaling": "noise", "noise_scale": 96.0},
    "bs32-lr0.02-fp32-s0-dc2536de30": {"warmup": 0.1, "warmup_from": "base", "schedule": "cosine"},
    "bs32-lr0.02-fp32-s0-6e0b38fbb4": {
        "steps": 500,
        "target": {"metric": "val/accuracy", "value": 0.9},
        "stop_at_target": True,
    },
    "bs32-lr0.02-bf16-s0-c2cfedd60e": {
        "examples": 10000,
        "precision": "bf16",
        "device": "cuda:1",
        "deterministic": True,
    },
    "bs32-lr0.02-fp32-s0-18827104f5": {
        "data": {"_target_": "batchlab.data.mnist.load", "folder": "elsewhere", "download": True}
    },
    "bs32-lr0.02-fp32-s0-0165f1d692": {
        "data": {"_target_": "my_data.load", "download": True},
        "model": {"_target_": "my_net.Net", "width": 9, "norm": None},
    },
    "bs32-lr0.02-fp32-s0-7d78b06869": {
        "model": {"_target_": "batchlab.models.cnn.CNN", "width": 32, "norm": "group", "ghost_batch": None}
    },
    "bs32-lr1-fp32-s7-fc527914e3": {"threads": 3, "seed": 7, "lr": 1},
    "bs32-lr0.02-fp32-s0-0b18c5acfd": {
        "eval_precision": "same",
        "eval_batch_size": 7,
        "eval_every": 300,
        "log_every": 9,
    },
    "bs32-lr0.02-fp32-s0-d1e78e5790": {
        "optimizer": {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.95], "eps": 1e-08},
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    "bs32-lr0.02-fp32-s0-3dd223b2d0": {"instruments": {}},
}


@pytest.mark.parametrize(("name", "changes"), IDS.items())
def test_run_folders_keep_their_names(name: str, changes: dict[str, Any]) -> None:
    assert run_id(made(**{"threads": 2, **changes})) == name


def test_options_of_speed_and_of_the_sweep_do_not_change_the_name() -> None:
    elsewhere = {
        "workers": 2,
        "timeout": 60.0,
        "study": "another",
        "runs_dir": "elsewhere",
        "trust": ["timm"],
        "jobs": 4,
    }

    assert run_id(made(threads=2, checkpoint_every=50, **elsewhere)) == next(iter(IDS))


OTHER: dict[str, Any] = {
    "batch_size": 16,
    "accumulate": 2,
    "accept_changed_objective": True,
    "micro_batch_size": 8,
    "lr": 0.3,
    "lr_scaling": "linear",
    "reference_batch_size": 8,
    "noise_scale": {"noise_scale": 96.0, "lr_scaling": "noise"},
    "warmup": 0.1,
    "warmup_from": "base",
    "schedule": "linear",
    "schedule_floor": {"schedule": "cosine", "schedule_floor": 0.1},
    "schedule_milestones": {"schedule": "step", "schedule_milestones": [0.6]},
    "schedule_factor": {"schedule": "step", "schedule_factor": 0.5},
    "schedule_peak_at": {"schedule": "one_cycle", "schedule_peak_at": 0.4},
    "schedule_start_divisor": {"schedule": "one_cycle", "schedule_start_divisor": 10.0},
    "schedule_end_divisor": {"schedule": "one_cycle", "schedule_end_divisor": 10.0},
    "schedule_decay": {"schedule": "wsd", "schedule_decay": 0.1},
    "precision": "bf16",
    "budget": {"steps": 7},
    "target": {"metric": "val/loss", "value": 1.0},
    "stop_at_target": {"stop_at_target": True, "target": {"metric": "val/loss", "value": 1.0}},
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "optimizer": {"_target_": "torch.optim.Adam"},
    "data": {"_target_": "my_net.load"},
    "model": {"_target_": "my_net.Net"},
    "instruments": {},
    "seed": 5,
    "device": "cuda",
    "threads": 2,
    "deterministic": True,
    "eval_every": 3,
    "eval_batch_size": 7,
    "eval_precision": "same",
    "log_every": 9,
    "trust": ["timm"],
    "timeout": 5.0,
    "checkpoint_every": 4,
    "checkpoint_seconds": None,
    "workers": 2,
    "jobs": 2,
    "skip_larger": False,
    "retry": ["failed"],
    "force": True,
    "accept_changed": True,
    "dry_run": True,
    "report": False,
    "published": [{"what": "accuracy", "value": 0.9, "source": "a paper"}],
    "study": "another",
    "runs_dir": "elsewhere",
    "hidden": ["data.root"],
}


@pytest.mark.parametrize("name", [f.name for f in fields(RunConfig)])
def test_another_value_is_another_run_exactly_where_the_table_says_so(name: str) -> None:
    value = OTHER[name]
    of_a_schedule = name.startswith("schedule_")
    changes = value if of_a_schedule or name in ("budget", "stop_at_target", "noise_scale") else {name: value}
    base = {"schedule": changes["schedule"]} if of_a_schedule else {}

    assert (run_id(made(**changes)) != run_id(made(**base))) is (name in OPTIONS and OPTIONS[name].is_identity)


def test_a_noise_scale_is_identity_and_where_there_is_none_earlier_ids_remain() -> None:
    ids = {run_id(made(lr_scaling="noise", noise_scale=scale)) for scale in (96, 96.0, 97)}

    assert len(ids) == 2
    assert "noise_scale" not in identity(made())


def test_the_precision_of_validation_is_identity_and_at_its_default_ids_of_before_it_remain() -> None:
    assert "eval_precision" not in identity(made())
    assert identity(made(eval_precision="same"))["eval_precision"] == "same"


def test_ghosts_are_identity_and_none_are_as_if_the_key_were_not_there() -> None:
    model = {"_target_": "my_net.Net"}
    without, none, some, other = (
        run_id(made(model=model | keys)) for keys in ({}, {"ghost_batch": None}, {"ghost_batch": 8}, {"ghost_batch": 9})
    )

    assert without == none
    assert len({none, some, other}) == 3


def test_norms_of_a_shipped_model_are_identity_and_null_is_as_if_the_key_were_not_there() -> None:
    def ids(target: str) -> list[str]:
        return [run_id(made(model={"_target_": target} | keys)) for keys in ({}, {"norm": None}, {"norm": "group"})]

    shipped, own = ids("batchlab.models.cnn.CNN"), ids("my_net.Net")

    assert shipped[0] == shipped[1] != shipped[2]
    assert len(set(own)) == 3  # what null means in a user's own model is the user's


def test_fetching_missing_files_makes_no_other_run_and_another_folder_does() -> None:
    def ids(target: str) -> list[str]:
        keys = ({"download": False}, {"download": True}, {"download": False, "folder": "fewer"})
        return [run_id(made(data={"_target_": target} | more)) for more in keys]

    shipped, own = ids("batchlab.data.mnist.load"), ids("my_data.load")

    assert shipped[0] == shipped[1] != shipped[2]
    assert len(set(own)) == 3  # what they mean in a user's own data is the user's


def test_runs_that_differ_in_the_seed_alone_share_a_group() -> None:
    assert group_id(made(seed=1)) == group_id(made(seed=2))
    assert group_id(made(seed=1)) != group_id(made(seed=1, lr=0.3))


def test_an_id_can_be_read_and_is_a_folder_everywhere() -> None:
    config = made(batch_size=64, accumulate=4, lr=1e-05, lr_scaling="sqrt", precision="bf16", seed=3)

    prefix, _, hashed = run_id(config).rpartition("-")

    assert prefix == "bs64-x4-lr1e-05-sqrt-bf16-s3"
    assert len(hashed) == 10
    assert set(hashed) <= set("0123456789abcdef")


def test_a_hash_is_the_same_on_every_machine_and_in_every_order() -> None:
    # printf '{"a":[1,2.5,null,true],"b":{"c":"x"}}' | sha256sum
    assert digest({"b": {"c": "x"}, "a": [1, 2.5, None, True]}) == "de7e5bdcd3"


def test_a_step_of_more_micro_batches_than_memory_holds_has_an_id() -> None:
    assert identity(made(batch_size=10**20, micro_batch_size=1))["micro_batches"] == [1, 10**20]
    assert run_id(replace(made(batch_size=10**20), micro_batch_size=1)).startswith("bs1" + "0" * 20 + "-x1")

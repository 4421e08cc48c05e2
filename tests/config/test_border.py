"""The border from text to values: what passes it, what is refused at it, and in which words."""

import dataclasses
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_defaults import CONFIGS, chosen_groups, configured, defaults, read

from batchlab import config
from batchlab.config import Budget, RunConfig, SweepConfig, from_dict, to_dict
from batchlab.config.bounds import check_value
from batchlab.config.option_row import Option
from batchlab.config.options import GROUPS, OPTIONS, RUN, STUDY, SWEEP
from batchlab.errors import BadRequest
from batchlab.science.scaling.lr_scaling import RULE_NAMES

nan, inf = math.nan, math.inf
BUDGET_KEYS = {"epochs", "examples", "steps", "default_epochs"}


# What passes


def test_the_shipped_defaults_pass_with_the_values_in_the_files() -> None:
    made = configured()

    root = read("config.yaml")
    for name in ("batch_size", "lr", "schedule", "precision", "seed", "eval_batch_size", "runs_dir"):
        assert getattr(made, name) == root[name], name
    assert made.budget == Budget("epochs", root["default_epochs"])
    assert made.target is None
    assert made.micro_batch_sizes == (root["batch_size"],)
    assert made.model == read("model/mlp.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 7, "retry": ["failed"], "jobs": 3, "force": True},
        {"examples": 12345, "hidden": ["data.root"]},
        {"epochs": 0.5, "accumulate": 4},
        {"target": {"metric": "val/accuracy", "value": 0.9}, "stop_at_target": True},
        {"trust": ["timm", "transformers"], "study": "night-1", "device": "cuda:3"},
        {"batch_size": 33, "micro_batch_size": 8, "clip_norm": 1, "eval_every": 10, "log_every": 1},
        {"instruments": {}, "data": {"_target_": "my_net.load", "root": ["a", {"b": 1}]}},
    ],
)
def test_to_dict_and_from_dict_are_inverse(changes: dict[str, Any]) -> None:
    made = from_dict(defaults(**changes))
    values = to_dict(made.run, made.sweep)

    assert from_dict(values | {"published": []}) == made
    assert json.loads(json.dumps(values)) == values  # plain: no tuple, no dataclass


def test_to_dict_has_what_was_requested() -> None:
    values = to_dict(configured(steps=7, target={"metric": "val/loss", "value": 1}))

    assert (values["steps"], values["epochs"], values["examples"]) == (7, None, None)
    assert values["target"] == {"metric": "val/loss", "value": 1.0}
    assert set(defaults()) - {"default_epochs", "grids", "published", *SWEEP} == set(values)


def test_a_record_has_the_options_of_its_sweep() -> None:
    made = from_dict(defaults(jobs=2, retry=["failed"]))

    assert set(to_dict(made.run, made.sweep)) - set(to_dict(made.run)) == set(SWEEP)


def test_what_a_run_is_says_nothing_of_its_sweep_or_its_study() -> None:
    names = {field.name for field in dataclasses.fields(RunConfig)}

    assert names == {*RUN, "hidden"}
    assert not names & {*SWEEP, *STUDY}
    assert {field.name for field in dataclasses.fields(SweepConfig)} == {*SWEEP}


@pytest.mark.parametrize("changes", [{}, {"trust": ["timm"], "data": {"_target_": "my_net.load", "root": ["a"]}}])
def test_both_travel_between_processes_as_they_are(changes: dict[str, Any]) -> None:
    made = from_dict(defaults(**changes))

    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("one", "other"), [({"lr": 1}, {"lr": 1.0}), ({"epochs": 2}, {"epochs": 2.0}), ({"warmup": 0}, {"warmup": 0.0})]
)
def test_one_number_written_in_two_ways_is_one_configuration(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert repr(to_dict(configured(**one))) == repr(to_dict(configured(**other)))


def test_a_configuration_cannot_be_changed_after_the_border() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        configured().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("lr", 1e9),
        ("lr", 1),
        ("weight_decay", 0),
        ("clip_norm", None),
        ("noise_scale", None),
        ("seed", 2**63 - 1),
        ("device", "cpu"),
        ("device", "cuda"),
        ("device", "cuda:15"),
        ("study", "a.b-c_1"),
        ("study", None),
        ("default_epochs", 0.25),
        ("target", None),
        ("grids", [["batch_size=8"]]),
    ],
)
def test_what_is_at_the_edge_of_the_allowed_is_allowed(name: str, value: Any) -> None:
    configured(**{name: value})


# No option without a value, no value without an option


def test_every_option_has_its_value_in_configs_and_every_value_there_is_an_option() -> None:
    in_files = set(read("config.yaml")) - {"defaults", "hydra"} | set(chosen_groups())

    assert in_files == set(config.option_names())
    assert {name for name in OPTIONS if not OPTIONS[name].meaning.strip()} == set()


def test_every_option_of_every_group_names_what_it_is() -> None:
    for group in GROUPS:
        options = {path.stem: read(f"{group}/{path.name}") for path in (CONFIGS / group).glob("*.yaml")}
        assert options.pop("own") == {"_target_": "???"}
        for option, values in options.items():
            configured(**{group: values})
            assert values["_target_"].startswith(("batchlab.", "torch.optim.")), option


# What is refused


BAD: list[tuple[dict[str, Any], str, str]] = [
    # changes, the option and value as the message must show them, what is allowed
    ({"batch_size": 0}, "batch_size=0", "an integer of at least 1"),
    ({"batch_size": -4}, "batch_size=-4", "an integer of at least 1"),
    ({"batch_size": 8.5}, "batch_size=8.5", "an integer of at least 1"),
    ({"batch_size": 32.0}, "batch_size=32.0", "an integer of at least 1"),
    ({"batch_size": True}, "batch_size=true", "an integer of at least 1"),
    ({"batch_size": "8"}, "batch_size='8'", "an integer of at least 1"),
    ({"batch_size": "8;32"}, "batch_size='8;32'", "an integer of at least 1"),
    ({"batch_size": "8\n32"}, r"batch_size='8\n32'", "an integer of at least 1"),
    ({"batch_size": nan}, "batch_size=nan", "an integer of at least 1"),
    ({"batch_size": inf}, "batch_size=inf", "an integer of at least 1"),
    ({"batch_size": ""}, "batch_size=''", "an integer of at least 1"),
    ({"batch_size": None}, "batch_size=null", "an integer of at least 1"),
    ({"batch_size": [8, 32]}, "batch_size=[8, 32]", "an integer of at least 1"),
    ({"batch_size": {}}, "batch_size={}", "an integer of at least 1"),
    ({"accumulate": 0}, "accumulate=0", "an integer of at least 1, in micro-batches, or null"),
    ({"accumulate": 2.0}, "accumulate=2.0", "an integer of at least 1, in micro-batches, or null"),
    ({"accumulate": 33}, "accumulate=33", "at most 32"),
    ({"accumulate": 20}, "accumulate=20", "use accumulate=16"),
    ({"micro_batch_size": 0}, "micro_batch_size=0", "an integer of at least 1, in examples, or null"),
    ({"micro_batch_size": 64}, "micro_batch_size=64", "at most 32"),
    ({"micro_batch_size": 8, "accumulate": 5}, "accumulate=5", "use accumulate=4"),
    ({"batch_size": 10**20, "micro_batch_size": 1, "accumulate": 2}, "accumulate=2", f"accumulate={10**20}"),
    ({"lr": 0}, "lr=0", "a number above 0"),
    ({"lr": -1}, "lr=-1", "a number above 0"),
    ({"lr": nan}, "lr=nan", "a number above 0"),
    ({"lr": inf}, "lr=inf", "a number above 0"),
    ({"lr": 10**400}, "lr=1000", "a number above 0"),
    ({"lr": "x"}, "lr='x'", "a number above 0"),
    ({"lr": "1e-3"}, "lr='1e-3'", "a number above 0"),
    ({"lr": False}, "lr=false", "a number above 0"),
    ({"lr": None}, "lr=null", "a number above 0"),
    ({"lr_scaling": "cubic"}, "lr_scaling=cubic", f"one of {', '.join(RULE_NAMES)}"),
    ({"lr_scaling": "Linear"}, "lr_scaling=Linear", "did you mean 'linear'"),
    ({"lr_scaling": None}, "lr_scaling=null", "one of none, linear"),
    ({"lr_scaling": 1}, "lr_scaling=1", "one of none, linear"),
    ({"lr_scaling": "noise"}, "lr_scaling=noise", "needs noise_scale=...: a number of examples"),
    ({"lr_scaling": "surge"}, "lr_scaling=surge", "a number of examples, such as noise_scale=120"),
    ({"lr_scaling": "sqrt", "noise_scale": 120}, "lr_scaling=sqrt", "does not use noise_scale=120: leave it out"),
    ({"noise_scale": 120}, "lr_scaling=none", "or use lr_scaling=noise or surge"),
    ({"lr_scaling": "noise", "noise_scale": 0}, "noise_scale=0", "a number above 0, in examples, or null"),
    ({"lr_scaling": "noise", "noise_scale": inf}, "noise_scale=inf", "a number above 0, in examples, or null"),
    (
        {"lr_scaling": "noise", "noise_scale": "runs/a/b"},
        "noise_scale='runs/a/b'",
        "a number above 0, in examples, or null",
    ),
    ({"reference_batch_size": 0}, "reference_batch_size=0", "an integer of at least 1"),
    ({"warmup": -0.1}, "warmup=-0.1", "a number of at least 0"),
    ({"warmup": nan}, "warmup=nan", "a number of at least 0"),
    ({"warmup_from": "peak"}, "warmup_from=peak", "one of zero, base"),
    ({"schedule": "cosin"}, "schedule=cosin", "did you mean 'cosine'"),
    ({"schedule": "stepp"}, "schedule=stepp", "did you mean 'step'"),
    (
        {"schedule": "exponential"},
        "schedule=exponential",
        "one of constant, linear, cosine, step, one_cycle, wsd, or your",
    ),
    ({"schedule": {"_target_": "poly"}}, "schedule._target_='poly'", "write module.name"),
    ({"schedule": {"power": 2}}, "schedule._target_=null", "write module.name"),
    ({"schedule": "wsd", "schedule_decay": 0}, "schedule_decay=0", "a number above 0 and at most 1"),
    ({"schedule": "wsd", "schedule_floor": 1.5}, "schedule_floor=1.5", "a number of at least 0 and at most 1"),
    ({"schedule": "one_cycle", "schedule_peak_at": 0}, "schedule_peak_at=0", "a number above 0 and at most 1"),
    ({"schedule": "one_cycle", "schedule_start_divisor": 0}, "schedule_start_divisor=0", "a number of at least 1"),
    ({"schedule": "step", "schedule_factor": 0}, "schedule_factor=0", "a number above 0 and at most 1"),
    ({"schedule": "step", "schedule_milestones": 0.5}, "schedule_milestones=0.5", "is not a list of numbers; write"),
    ({"schedule": "step", "schedule_milestones": ["half"]}, "schedule_milestones=['half']", "=[0.5,0.75]"),
    ({"schedule": "step", "schedule_milestones": [0.7, 0.5]}, "schedule_milestones=[0.7,0.5]", "in rising order"),
    ({"schedule": "cosine", "schedule_factor": 0.5}, "schedule=cosine", "does not use schedule_factor=0.5"),
    ({"precision": "fp8"}, "precision=fp8", "one of fp32, tf32, bf16, fp16"),
    ({"precision": 16}, "precision=16", "one of fp32, tf32, bf16, fp16"),
    ({"epochs": 1, "steps": 5}, "epochs=1 and steps=5", "give only one of epochs, examples, steps"),
    ({"epochs": 1, "steps": 5, "examples": 2}, "epochs=1 and examples=2 and steps=5", "give only one"),
    ({"epochs": 0}, "epochs=0", "a number above 0"),
    ({"epochs": nan}, "epochs=nan", "a number above 0"),
    ({"epochs": 10**400}, "epochs=1000", "a number above 0"),
    ({"epochs": "2"}, "epochs='2'", "a number above 0"),
    ({"steps": 2.5}, "steps=2.5", "an integer above 0"),
    ({"steps": True}, "steps=true", "an integer above 0"),
    ({"examples": -1}, "examples=-1", "an integer above 0"),
    ({"examples": inf}, "examples=inf", "an integer above 0"),
    ({"default_epochs": None}, "default_epochs=null", "a number above 0"),
    ({"default_epochs": "x", "steps": 5}, "default_epochs='x'", "a number above 0"),
    ({"target": {"metric": "val/loss", "value": "low"}}, "target.value='low'", "a number, or null"),
    ({"target": {"metric": "val/loss", "value": nan}}, "target.value=nan", "a number, or null"),
    ({"target": {"metric": "accuracy", "value": 0.9}}, "target.metric='accuracy'", "val/loss or another val/<metric>"),
    ({"target": {"metric": "val/", "value": 0.9}}, "target.metric='val/'", "val/loss or another val/<metric>"),
    ({"target": {"metric": "accuracy", "value": None}}, "target.metric='accuracy'", "val/loss"),
    ({"target": {"value": 0.9}}, "target.metric=null", "val/loss"),
    ({"target": {"metric": "val/loss", "vlaue": 1}}, "'target.vlaue'", "metric and value"),
    ({"target": 0.9}, "target=0.9", "write target.value=0.9"),
    ({"target": True}, "target=true", "write target.value=0.15"),
    ({"target": "val/accuracy"}, "target='val/accuracy'", "write target.metric=val/accuracy target.value=0.15"),
    ({"stop_at_target": True}, "stop_at_target=true", "add target.value="),
    ({"stop_at_target": "yes"}, "stop_at_target='yes'", "true or false"),
    ({"stop_at_target": 1}, "stop_at_target=1", "true or false"),
    ({"weight_decay": -1e-4}, "weight_decay=-0.0001", "a number of at least 0"),
    ({"clip_norm": 0}, "clip_norm=0", "a number above 0, or null"),
    ({"seed": -1}, "seed=-1", "an integer of at least 0 and at most 9223372036854775807"),
    ({"seed": 10**20}, f"seed={10**20}", "at most 9223372036854775807"),
    ({"seed": None}, "seed=null", "an integer of at least 0"),
    ({"device": "gpu"}, "device=gpu", "auto, cpu, cuda or cuda:N"),
    ({"device": "cuda:"}, "device=cuda:", "auto, cpu, cuda or cuda:N"),
    ({"device": "cuda:x"}, "device=cuda:x", "auto, cpu, cuda or cuda:N"),
    ({"device": "cuda:²"}, "device=cuda:²", "auto, cpu, cuda or cuda:N"),
    ({"device": "cpu:0"}, "device=cpu:0", "auto, cpu, cuda or cuda:N"),
    ({"device": "cuda:99999999999"}, "device=cuda:99999999999", "auto, cpu, cuda or cuda:N"),
    ({"device": "mps"}, "device=mps", "not on Apple's: use device=cpu"),
    ({"device": "xpu:1"}, "device=xpu:1", "on GPUs that PyTorch calls cuda (NVIDIA's, and AMD's under ROCm)"),
    ({"device": 0}, "device=0", "a text"),
    ({"threads": 0}, "threads=0", "an integer of at least 1"),
    ({"deterministic": None}, "deterministic=null", "true or false"),
    ({"eval_every": 0}, "eval_every=0", "an integer of at least 1, in examples, or null"),
    ({"eval_batch_size": None}, "eval_batch_size=null", "an integer of at least 1"),
    ({"log_every": 0.5}, "log_every=0.5", "an integer of at least 1, in examples, or null"),
    ({"trust": "timm"}, "trust='timm'", "trust=[timm,transformers]"),
    ({"trust": [1]}, "trust=[1]", "trust=[timm,transformers]"),
    ({"trust": [""]}, "trust=['']", "trust=[timm,transformers]"),
    ({"trust": None}, "trust=null", "trust=[timm,transformers]"),
    ({"study": "../x"}, "study='../x'", "use letters, digits"),
    ({"study": "a/b"}, "study='a/b'", "use letters, digits"),
    ({"study": "a\\b"}, "study='a", "use letters, digits"),
    ({"study": "."}, "study='.'", "use letters, digits"),
    ({"study": ".."}, "study='..'", "use letters, digits"),
    ({"study": ".jobs"}, "study='.jobs'", "not '.' at the start"),
    ({"study": ""}, "study=''", "a text, or null"),
    ({"study": " "}, "study=' '", "a text, or null"),
    ({"study": "a b"}, "study='a b'", "use letters, digits"),
    ({"study": "a\nb"}, r"study='a\nb'", "a text"),
    ({"study": "x" * 101}, "study='xxx", "use letters, digits"),
    ({"study": "~"}, "study='~'", "use letters, digits"),
    ({"study": "<img>"}, "study='<img>'", "use letters, digits"),
    ({"study": 2024}, "study=2024", "a text, or null"),
    ({"runs_dir": ""}, "runs_dir=''", "a text"),
    ({"runs_dir": None}, "runs_dir=null", "a text"),
    ({"runs_dir": "a\x00b"}, r"runs_dir='a\x00b'", "a text"),
    ({"runs_dir": "~/runs"}, "runs_dir=~/runs", "write out the whole path"),
    ({"retry": ["faild"]}, "retry holds 'faild'", "did you mean 'failed'"),
    ({"retry": "failed"}, "retry='failed'", "write retry=[failed,timeout]"),
    ({"jobs": 0}, "jobs=0", "an integer of at least 1"),
    ({"timeout": 0}, "timeout=0", "a number above 0, in seconds, or null"),
    ({"force": "yes"}, "force='yes'", "true or false"),
    ({"model": None}, "model=null", "`batchlab config` lists the groups"),
    ({"model": "resnet"}, "model='resnet'", "`batchlab config` lists the groups"),
    ({"model": {}}, "model._target_=null", "module.name"),
    ({"model": {"width": 3}}, "model._target_=null", "module.name"),
    ({"model": {"_target_": "Net"}}, "model._target_='Net'", "module.name"),
    ({"model": {"_target_": "my_net."}}, "model._target_='my_net.'", "module.name"),
    ({"model": {"_target_": "my net.Net"}}, "model._target_='my net.Net'", "module.name"),
    ({"model": {"_target_": "../my_net.Net"}}, "model._target_='../my_net.Net'", "module.name"),
    ({"model": {"_target_": 3}}, "model._target_=3", "module.name"),
    ({"data": [1]}, "data=[1]", "`batchlab config` lists the groups"),
    ({"optimizer": {"_target_": None}}, "optimizer._target_=null", "module.name"),
    ({"instruments": None}, "instruments=null", "`batchlab config` lists the groups"),
    ({"instruments": {"mine": None}}, "instruments.mine=null", "`batchlab config` lists the groups"),
    ({"instruments": {"mine": {"every": 3}}}, "instruments.mine._target_=null", "module.name"),
    ({"batchsize": 8}, "unknown key 'batchsize'", "did you mean 'batch_size'"),
    ({"zzzzzz": 8}, "unknown key 'zzzzzz'", "zzzzzz"),
]


@pytest.mark.parametrize(("changes", "shown", "allowed"), BAD, ids=[shown[:40] for _, shown, _ in BAD])
def test_a_bad_value_is_refused_in_one_line_that_says_which_and_what_is_allowed(
    changes: dict[str, Any], shown: str, allowed: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        configured(**{"batch_size": 32} | changes)

    said = str(caught.value)
    assert shown in said
    assert allowed in said
    assert said.isprintable()  # one line, and nothing that a terminal would obey


@pytest.mark.parametrize("name", sorted(set(defaults()) - BUDGET_KEYS - {"grids"}))
def test_a_missing_key_is_named(name: str) -> None:
    values = defaults()
    del values[name]

    with pytest.raises(BadRequest, match=rf"^'{name}' has no value, because .* removed it: give {name}=\.\.\.$"):
        from_dict(values)


TYPOS = {
    "batchsize": "batch_size",
    "bacth_size": "batch_size",
    "batch_sise": "batch_size",
    "batch_siz": "batch_size",
    "batch-size": "batch_size",
    "accumlate": "accumulate",
    "acumulate": "accumulate",
    "micro_batchsize": "micro_batch_size",
    "micro_batch_sizes": "micro_batch_size",
    "lrs": "lr",
    "lr_scalling": "lr_scaling",
    "lr_scalin": "lr_scaling",
    "reference_batchsize": "reference_batch_size",
    "refrence_batch_size": "reference_batch_size",
    "warmpu": "warmup",
    "warm_up": "warmup",
    "warmup_form": "warmup_from",
    "shedule": "schedule",
    "scedule": "schedule",
    "precison": "precision",
    "percision": "precision",
    "epoch": "epochs",
    "example": "examples",
    "step": "steps",
    "default_epoch": "default_epochs",
    "taget": "target",
    "stop_at_taget": "stop_at_target",
    "weight_decy": "weight_decay",
    "clip_nrom": "clip_norm",
    "optimiser": "optimizer",
    "modle": "model",
    "dat": "data",
    "instrument": "instruments",
    "sede": "seed",
    "devise": "device",
    "thread": "threads",
    "eval_evry": "eval_every",
    "eval_batchsize": "eval_batch_size",
    "log_evrey": "log_every",
    "stuyd": "study",
    "runs_dri": "runs_dir",
}


def test_a_slip_of_the_finger_gets_the_key_that_was_meant() -> None:
    right = 0
    for typo, meant in TYPOS.items():
        with pytest.raises(BadRequest, match=rf"^unknown key '{typo}'") as caught:
            configured(**{typo: 1})
        right += f"did you mean '{meant}'?" in str(caught.value)

    assert right >= 0.9 * len(TYPOS)


# What is derived


@given(batch_size=st.integers(1, 600), micro_batch_size=st.integers(1, 600))
def test_micro_batches_of_a_given_size_fill_the_batch(batch_size: int, micro_batch_size: int) -> None:
    if micro_batch_size > batch_size:
        with pytest.raises(BadRequest):
            configured(batch_size=batch_size, micro_batch_size=micro_batch_size)
        return

    *full, last = configured(batch_size=batch_size, micro_batch_size=micro_batch_size).micro_batch_sizes

    assert all(size == micro_batch_size for size in full)
    assert 1 <= last <= micro_batch_size
    assert sum(full) + last == batch_size


@given(batch_size=st.integers(1, 200), accumulate=st.integers(1, 220))
def test_as_many_micro_batches_as_requested_or_a_refusal_where_no_size_makes_so_many(
    batch_size: int, accumulate: int
) -> None:
    counts = {len(range(0, batch_size, micro)) for micro in range(1, batch_size + 1)}
    values = defaults(batch_size=batch_size, accumulate=accumulate)
    if accumulate not in counts:
        with pytest.raises(BadRequest, match=rf"^accumulate={accumulate} "):
            from_dict(values)
        return

    *full, last = sizes = from_dict(values).run.micro_batch_sizes

    assert len(sizes) == accumulate
    assert len(set(full)) <= 1
    assert all(1 <= last <= size for size in full)
    assert sum(sizes) == batch_size


@given(batch_size=st.integers(1, 200), accumulate=st.integers(1, 200))
def test_the_number_that_a_refusal_proposes_is_accepted(batch_size: int, accumulate: int) -> None:
    try:
        configured(batch_size=batch_size, accumulate=accumulate)
    except BadRequest as error:
        proposed = str(error).replace(",", " ").replace("use at most ", "use accumulate=").split("use accumulate=")[1]
        configured(batch_size=batch_size, accumulate=int(proposed.split()[0]))


@pytest.mark.parametrize(
    ("data", "model", "study", "name"),
    [
        ("batchlab.data.digits.load", "batchlab.models.mlp.MLP", None, "digits-mlp"),
        ("my_net.load", "my_net.Net", None, "my_net.load-my_net.Net"),
        ("batchlab.data.digits.load", "my_pkg.nets.small.Net", None, "digits-small.Net"),
        ("my_net.load", "my_net.Net", "tuesday", "tuesday"),
    ],
)
def test_a_study_is_called_by_what_is_learnt_and_by_what_learns(
    data: str, model: str, study: str | None, name: str
) -> None:
    made = configured(data={"_target_": data}, model={"_target_": model}, study=study)

    assert made.study_name == name
    assert config.is_folder_name(made.study_name)


@pytest.mark.parametrize(
    ("budget", "examples", "text"),
    [
        (Budget("epochs", 20.0), 28740, "epochs=20"),
        (Budget("epochs", 0.5), 718, "epochs=0.5"),
        (Budget("examples", 1234567), 1234567, "examples=1234567"),
        (Budget("steps", 10), 320, "steps=10"),
    ],
)
def test_a_budget_counts_in_examples(budget: Budget, examples: int, text: str) -> None:
    assert budget.examples(n_train=1437, batch_size=32) == examples
    assert str(budget) == text


@given(hundredths=st.integers(1, 10_000))
def test_a_part_of_an_epoch_is_what_it_says_in_decimals(hundredths: int) -> None:
    # In floating point 0.29 x 100 is 28.999999999999996, and its floor 28.
    assert Budget("epochs", float(f"{hundredths / 100:.2f}")).examples(n_train=100, batch_size=8) == hundredths


# From Hydra's kind of config


def test_what_the_user_only_names_is_settled_before_anything_is_checked() -> None:
    from omegaconf import OmegaConf

    composed = OmegaConf.create(defaults(lr_scaling="noise", noise_scale="${study}", study="there"))

    made = config.from_hydra(composed, lambda values: {**values, "noise_scale": len(values["noise_scale"])})

    assert made.run.noise_scale == 5.0


def test_a_composed_config_passes_with_its_interpolations_resolved() -> None:
    from omegaconf import OmegaConf

    composed = OmegaConf.create(defaults(reference_batch_size="${batch_size}", batch_size=16))

    assert config.from_hydra(composed).run.reference_batch_size == 16


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"_target_": "???"}}, "model=own needs the name of a class or function: add model._target_=my_net."),
        ({"model": {"_target_": "a.b", "width": "???"}}, "model.width has no value: add model.width=..."),
        ({"lr": "${nothing.there}"}, "(key 'lr'): give it a value"),
    ],
)
def test_a_value_that_is_missing_is_named_by_its_key(changes: dict[str, Any], says: str) -> None:
    from omegaconf import OmegaConf

    with pytest.raises(BadRequest) as caught:
        config.from_hydra(OmegaConf.create(defaults(**changes)))

    assert says in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("row", [row for row in OPTIONS.values() if row.unit], ids=lambda row: row.name)
def test_the_message_about_a_number_names_its_unit(row: Option) -> None:
    with pytest.raises(BadRequest) as caught:
        check_value(row, "much")

    assert f"{row.name}='much' is invalid: it must be a" in str(caught.value)
    assert f", in {row.unit}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "typed", "instead"),
    [
        ("timeout", "10m", "600"),
        ("timeout", "90 sec", "90"),
        ("timeout", "1.5h", "5400"),
        ("timeout", "2 Days", "172800"),
        ("checkpoint_seconds", "0.5s", "0.5"),
        ("warmup", "5%", "0.05"),
        ("warmup", "12.5 %", "0.125"),
    ],
)
def test_a_number_with_another_unit_gets_the_one_to_write(name: str, typed: str, instead: str) -> None:
    with pytest.raises(BadRequest, match=rf": write {name}={instead}$"):
        check_value(OPTIONS[name], typed)
    assert check_value(OPTIONS[name], float(instead)) == float(instead)


@pytest.mark.parametrize(
    ("name", "typed"), [("timeout", "0s"), ("timeout", "5%"), ("timeout", "3 epochs"), ("warmup", "3h"), ("lr", "1%")]
)
def test_a_number_with_no_such_unit_gets_none(name: str, typed: str) -> None:
    with pytest.raises(BadRequest, match="is invalid: it must be") as caught:
        check_value(OPTIONS[name], typed)
    assert "write" not in str(caught.value)

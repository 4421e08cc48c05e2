"""Every knob of a run: its type, unit, bounds and meaning; the one border from text to values.

`from_hydra` turns what Hydra composed into a frozen, checked `RunConfig`, or raises one `BadRequest`. Types are
checked here, not by a schema in OmegaConf, which takes '8' for 8 and lets nan pass (`.github/decisions/0001`).
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from fractions import Fraction
from typing import Any

from batchlab.errors import BadRequest, did_you_mean
from batchlab.science.lr_scaling import RULES
from batchlab.science.schedules import SCHEDULES

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
BUDGET_UNITS = ("epochs", "examples", "steps")


def knob(meaning: str, *, identity: bool, unit: str = "", **bounds: Any) -> Any:
    """A field of the configuration; `identity`: part of what a run *is*. `group`: a mapping with `_target_`."""
    return field(metadata={"meaning": meaning, "identity": identity, "unit": unit, **bounds})


@dataclass(frozen=True)
class Budget:
    """How long a run trains; turned into examples where the size of the data is known."""

    unit: str  # one of BUDGET_UNITS
    amount: float

    def examples(self, n_train: int, batch_size: int) -> int:
        """Training examples this budget allows, for data of `n_train` examples."""
        per_unit = {"epochs": n_train, "examples": 1, "steps": batch_size}[self.unit]
        # As written, not as stored: 0.29 epochs of 100 examples are 29, and in floating point 28.999...
        return math.floor(Fraction(str(self.amount)) * per_unit)

    def __str__(self) -> str:
        return f"{self.unit}={str(self.amount).removesuffix('.0')}"


@dataclass(frozen=True)
class Target:
    """A value of a validation metric that counts as having learnt the task."""

    metric: str  # val/loss or val/<metric>
    value: float


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, completely described; equal configs make equal runs (on CPU to the bit)."""

    batch_size: int = knob("examples per optimizer step, over all micro-batches", identity=True, at_least=1)
    accumulate: int | None = knob("micro-batches per optimizer step", identity=True, at_least=1)
    micro_batch_size: int | None = knob("examples per forward/backward pass", identity=True, at_least=1)
    lr: float = knob("learning rate at the reference batch size", identity=True, above=0.0)
    lr_scaling: str = knob("rule that moves the rate with the batch size", identity=True, choices=tuple(RULES))
    reference_batch_size: int = knob("batch size at which `lr` holds", identity=True, at_least=1, unit="examples")
    warmup: float = knob("warm-up: below 1 a fraction of the budget, else examples", identity=True, at_least=0.0)
    warmup_from: str = knob("rate the warm-up starts from", identity=True, choices=("zero", "base"))
    schedule: str = knob("how the rate falls over the budget", identity=True, choices=tuple(SCHEDULES))
    precision: str = knob("number format of the forward and backward pass", identity=True, choices=PRECISIONS)
    budget: Budget = field(metadata={"meaning": "how long to train", "identity": True})
    target: Target | None = field(metadata={"meaning": "what counts as having learnt it", "identity": True})
    stop_at_target: bool = knob("end the run when the target is reached", identity=True)
    weight_decay: float = knob("given to the optimizer, never scaled", identity=True, at_least=0.0)
    clip_norm: float | None = knob("largest gradient norm; null does not clip", identity=True, above=0.0)
    optimizer: Mapping[str, Any] = knob("what updates the weights", identity=True, group=True)
    data: Mapping[str, Any] = knob("what is learnt from", identity=True, group=True)
    model: Mapping[str, Any] = knob("what learns", identity=True, group=True)
    instruments: Mapping[str, Any] = knob("what measures the run", identity=True)
    seed: int = knob("of initial weights and of the order of the data", identity=True, at_least=0, at_most=2**63 - 1)
    device: str = knob("auto, cpu, cuda or cuda:N", identity=True)
    threads: int = knob("CPU threads of one run; changes the bits, so it is identity", identity=True, at_least=1)
    deterministic: bool = knob("refuse kernels whose result varies", identity=True)
    eval_every: int | None = knob(
        "between validations; null is a quarter of an epoch", identity=True, at_least=1, unit="examples"
    )
    eval_batch_size: int = knob("per forward pass of a validation", identity=True, at_least=1, unit="examples")
    log_every: int | None = knob(
        "per window of the training loss; null is 1/200 of the budget", identity=True, at_least=1, unit="examples"
    )
    trust: tuple[str, ...] = knob("packages whose functions `_target_` may name", identity=False)
    study: str | None = knob("folder of runs made to be compared", identity=False)
    runs_dir: str = knob("folder of the studies", identity=False)

    @property
    def study_name(self) -> str:
        """`study`, or `<data>-<model>`, so that the same command finds its own runs and tasks do not mix."""
        return self.study or f"{_task_word(self.data['_target_'])}-{_task_word(self.model['_target_'])}"

    @property
    def micro_batch_sizes(self) -> tuple[int, ...]:
        """Examples of each forward/backward pass of a step; the last may be smaller; sums to `batch_size`."""
        micro = self.micro_batch_size or -(-self.batch_size // (self.accumulate or 1))
        full, ragged = divmod(self.batch_size, micro)
        return (micro,) * full + ((ragged,) if ragged else ())


def target_name(group: Mapping[str, Any]) -> str:
    """`mlp` for `batchlab.models.mlp.MLP`, `Net` for a user's `my_net.Net`."""
    parts = str(group["_target_"]).split(".")
    return parts[-2] if parts[0] == "batchlab" and len(parts) > 2 else parts[-1]


def _task_word(target: str) -> str:
    """`mlp` of batchlab's own, and a user's `my_net.Net`: everybody's classes are called Net."""
    return target.split(".")[-2] if target.startswith("batchlab.") else ".".join(target.split(".")[-2:])


def from_hydra(composed: Any) -> RunConfig:
    """The border: a composed `DictConfig` (without its `hydra` node) becomes a checked `RunConfig`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise BadRequest(f"{str(error).splitlines()[0]} (key '{error.full_key}'): give it a value") from None
    return from_dict({str(key): value for key, value in dict(values).items() if key != "hydra"})  # type: ignore[arg-type]


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """Plain values, named as in `configs/config.yaml`, become a checked `RunConfig`; `BadRequest` otherwise."""
    given = dict(values)
    given.pop("grids", None)  # the union of grids was unrolled before this line
    budget = _budget(given)
    known = {f.name: f for f in fields(RunConfig)}
    for name in given:
        if name not in known:
            raise BadRequest(f"unknown key '{name}'{did_you_mean(name, knob_names())}")
    if missing := [name for name in known if name not in given and name != "budget"]:
        raise BadRequest(f"missing key '{missing[0]}': the config must give it a value")
    checked = {name: check_value(f, given[name]) for name, f in known.items() if name != "budget"}
    config = RunConfig(budget=budget, **checked)
    _check_together(config)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The inverse of `from_dict`: plain values, named as in `configs/config.yaml`."""
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "budget"}
    values |= dict.fromkeys(BUDGET_UNITS) | {config.budget.unit: config.budget.amount}
    target = config.target
    values["target"] = {"metric": target.metric, "value": target.value} if target else {"value": None}
    values["trust"] = list(config.trust)
    for group in ("optimizer", "data", "model", "instruments"):
        values[group] = dict(values[group])
    return values


def knob_names() -> tuple[str, ...]:
    """Every key a user may write at the root of a config."""
    return (*(f.name for f in fields(RunConfig) if f.name != "budget"), *BUDGET_UNITS, "default_epochs", "grids")


def check_value(knob_field: Field[Any], value: Any) -> Any:
    """`value` as the knob's type, or `BadRequest` with the knob, the value and what is allowed."""
    name, kind = knob_field.name, _kind(knob_field)
    if value is None and "None" in kind:
        return None
    if knob_field.metadata.get("group"):
        return _group(name, value)
    if name == "instruments":
        return {key: _group(f"instruments.{key}", entry) for key, entry in _mapping(name, value).items()}
    if name == "target":
        return _target(value)
    if name == "trust":
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise BadRequest(f"trust={_shown(value)} is not a list of package names; write trust=[timm,transformers]")
        return tuple(value)
    if not _fits(value, kind, knob_field.metadata):
        raise _refused(name, value, knob_field)
    return float(value) if kind.startswith("float") else value


def _fits(value: Any, kind: str, bounds: Mapping[str, Any]) -> bool:
    if kind.startswith("str"):
        return _is_plain(value) and value in bounds.get("choices", (value,))
    if kind == "bool":
        return isinstance(value, bool)
    if not _is_finite(value) or (kind.startswith("int") and not isinstance(value, int)):
        return False
    within: bool = bounds.get("at_least", value) <= value <= bounds.get("at_most", value)
    return within and value > float(bounds.get("above", -math.inf))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def _kind(knob_field: Field[Any]) -> str:
    """The knob's type as it is written: `int`, `float | None`."""
    return knob_field.type.__name__ if isinstance(knob_field.type, type) else str(knob_field.type)


def _is_finite(value: Any) -> bool:
    """Whether `value` is a number that a float can hold: no truth value, nan or infinity, and not 10**400."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def allowed(knob_field: Field[Any]) -> str:
    """What a knob takes, in words: `an integer of at least 1`, `one of none, linear, ...`."""
    bounds, kind = knob_field.metadata, _kind(knob_field)
    if "choices" in bounds:
        return "one of " + ", ".join(bounds["choices"])
    words = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false"}
    text = next((word for start, word in words.items() if kind.startswith(start)), "a mapping")
    for bound, phrase in (("at_least", "of at least"), ("above", "above"), ("at_most", "and at most")):
        text += f" {phrase} {str(bounds[bound]).removesuffix('.0')}" if bound in bounds else ""
    return text + (", or null" if "None" in kind else "")


def _refused(name: str, value: Any, knob_field: Field[Any]) -> BadRequest:
    shown = value if _is_plain(value) and _kind(knob_field).startswith("str") else _shown(value)
    near = did_you_mean(str(value), knob_field.metadata.get("choices", ()))
    return BadRequest(f"{name}={shown} cannot be: {name} is {allowed(knob_field)}{near}")


def _shown(value: Any) -> str:
    """`value` on one line as it would be typed; a text in quotes, so that '8' is seen not to be 8."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name}={_shown(value)} is not a config group; `batchlab config` lists the groups")
    return value


def _group(name: str, value: Any) -> dict[str, Any]:
    target = _mapping(name, value).get("_target_")
    if not isinstance(target, str) or "." not in target or not all(p.isidentifier() for p in target.split(".")):
        raise BadRequest(f"{name}._target_={_shown(target)} names nothing: write it as module.name, such as my_net.Net")
    return {str(key): entry for key, entry in value.items()}


def _target(value: Any) -> Target | None:
    given = dict(_mapping("target", value))
    wanted = given.pop("value", None)
    metric = given.pop("metric", None)
    if given:
        raise BadRequest(f"unknown key 'target.{next(iter(given))}': a target has metric and value")
    if wanted is not None and not _is_finite(wanted):
        raise BadRequest(f"target.value={_shown(wanted)} cannot be: it is a number, or null for no target")
    named = _is_plain(metric) and metric.startswith("val/") and metric != "val/"
    if not named and (metric, wanted) != (None, None):
        raise BadRequest(f"target.metric={_shown(metric)} cannot be: it is val/loss or another val/<metric>")
    return None if wanted is None else Target(metric=metric, value=float(wanted))


def _budget(given: dict[str, Any]) -> Budget:
    default = given.pop("default_epochs", None)
    asked = {unit: given.pop(unit, None) for unit in BUDGET_UNITS}
    asked = {unit: amount for unit, amount in asked.items() if amount is not None}
    if len(asked) > 1:
        both = " and ".join(f"{unit}={_shown(amount)}" for unit, amount in asked.items())
        raise BadRequest(f"{both} are two budgets: give at most one of {', '.join(BUDGET_UNITS)}")
    if not asked or default is not None:  # checked even where it does not count: no knob is quietly dropped
        asked = {"default_epochs": default} | asked
    for name, amount in asked.items():
        kind = "an integer" if name in ("examples", "steps") else "a number"
        if not _is_finite(amount) or amount <= 0 or (kind == "an integer" and not isinstance(amount, int)):
            raise BadRequest(f"{name}={_shown(amount)} cannot be: {name} is {kind} above 0")
    # Epochs are a float always, so that epochs=2 and epochs=2.0 are one run.
    return Budget(name, amount) if kind == "an integer" else Budget("epochs", float(amount))


def _check_together(config: RunConfig) -> None:
    """What no knob can tell alone."""
    batch, micro, accumulate = config.batch_size, config.micro_batch_size, config.accumulate
    if (micro or 1) > batch:
        raise BadRequest(f"micro_batch_size={micro} is larger than batch_size={batch}: use at most {batch}")
    if (accumulate or 1) > batch:
        raise BadRequest(f"accumulate={accumulate} is larger than batch_size={batch}: use at most {batch}")
    made = -(-batch // (micro or -(-batch // (accumulate or 1))))  # len(micro_batch_sizes), for any size
    if accumulate is not None and made != accumulate:
        how = f"micro_batch_size={micro}" if micro is not None else "equal micro-batches with a smaller last one"
        raise BadRequest(
            f"accumulate={accumulate} does not fit batch_size={batch}: {how} makes {made} micro-batches; "
            f"use accumulate={made}, or give micro_batch_size alone"
        )
    if not re.fullmatch("auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", config.device):
        raise BadRequest(f"device={config.device} cannot be: device is auto, cpu, cuda or cuda:N")
    if config.stop_at_target and config.target is None:
        raise BadRequest("stop_at_target=true needs a target: add target.value=..., such as target.value=0.15")
    if config.study is not None and not is_folder_name(config.study):
        raise BadRequest(
            f"study={config.study!r} cannot be a folder: use letters, digits, '.', '_' and '-', not starting with '.'"
        )


def is_folder_name(name: str) -> bool:
    """Whether `name` is one plain folder: no separators, no `..`, nothing a shell or a page could stumble over."""
    return re.fullmatch("(?=.*[A-Za-z0-9])[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name) is not None

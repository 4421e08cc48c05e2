"""Every knob of a run: its type, unit, bounds and meaning; the one border from text to values.

`from_hydra` turns what Hydra composed into a frozen, checked `RunConfig`, or raises one `BadRequest`. Types are
checked here, not by a schema in OmegaConf, which takes '8' for 8 and lets nan pass (`.github/decisions/0001`).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any

from batchlab.errors import BadRequest, did_you_mean
from batchlab.hidden_keys import hidden_keys
from batchlab.knob_values import Published, Target, check_value, is_finite, shown
from batchlab.science.lr_scaling import RULE_NAMES, check_noise_scale
from batchlab.science.schedules import SCHEDULES

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
EVAL_PRECISIONS = ("fp32", "same")  # all runs of before the option were validated in the first
RETRIED = ("failed", "timeout", "oom", "diverged")
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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, completely described; equal configs make equal runs (on CPU to the bit)."""

    batch_size: int = knob("examples per optimizer step, over all micro-batches", identity=True, at_least=1)
    accumulate: int | None = knob("micro-batches per optimizer step", identity=True, at_least=1)
    micro_batch_size: int | None = knob("examples per forward/backward pass", identity=True, at_least=1)
    lr: float = knob("learning rate at the reference batch size", identity=True, above=0.0)
    lr_scaling: str = knob("rule that moves the rate with the batch size", identity=True, choices=RULE_NAMES)
    reference_batch_size: int = knob("batch size at which `lr` holds", identity=True, at_least=1, unit="examples")
    noise_scale: float | None = knob(
        "gradient noise scale, for the rules that follow it", identity=True, above=0.0, unit="examples"
    )
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
    eval_precision: str = knob(
        "precision of validations; same is that of training", identity=True, choices=EVAL_PRECISIONS
    )
    log_every: int | None = knob(
        "per window of the training loss; null is 1/200 of the budget", identity=True, at_least=1, unit="examples"
    )
    trust: tuple[str, ...] = knob(
        "packages whose functions `_target_` may name",
        identity=False,
        of="package names",
        such_as="timm,transformers",
    )
    timeout: float | None = knob(
        "longest that a point may take; null waits for ever", identity=False, above=0.0, unit="seconds"
    )
    checkpoint_every: int | None = knob(
        "between checkpoints; null counts seconds only", identity=False, at_least=1, unit="examples"
    )
    checkpoint_seconds: float | None = knob(
        "between checkpoints; null counts examples only", identity=False, above=0.0, unit="seconds"
    )
    workers: int = knob(
        "processes that read data which streams; 0: the training process reads", identity=False, at_least=0
    )
    jobs: int = knob("points at once", identity=False, at_least=1, of_the_sweep=True)
    skip_larger: bool = knob("do not try what is larger than what did not fit", identity=False, of_the_sweep=True)
    retry: tuple[str, ...] = knob(
        "run these again too: failed, timeout, oom, diverged",
        identity=False,
        choices=RETRIED,
        of="statuses",
        such_as="failed,timeout",
        of_the_sweep=True,
    )
    force: bool = knob("run every point again, from its first step", identity=False, of_the_sweep=True)
    accept_changed: bool = knob(
        "go on although code, data, PyTorch or device changed", identity=False, of_the_sweep=True
    )
    report: bool = knob("judge the study when a sweep of several points has ended", identity=False, of_the_sweep=True)
    dry_run: bool = knob("say what would be run, and run nothing", identity=False, of_the_sweep=True)
    published: tuple[Published, ...] = knob(
        "figures that others published of the same, which the report shows beside ours", identity=False
    )
    study: str | None = knob("folder of runs made to be compared", identity=False)
    runs_dir: str = knob("folder of the studies", identity=False)
    # Not the user's to give: `from_hydra` finds them, `recording.masking` reads them.
    hidden: tuple[str, ...] = field(
        default=(), metadata={"meaning": "keys whose value the environment gave", "identity": False}
    )

    @property
    def study_name(self) -> str:
        """`study`, or `<data>-<model>`, so that the same command finds its own runs and tasks do not mix."""
        return self.study or f"{_task_word(self.data['_target_'])}-{_task_word(self.model['_target_'])}"

    @property
    def micro_batch_sizes(self) -> tuple[int, ...]:
        """Examples of each forward/backward pass of a step; the last may be smaller; sums to `batch_size`."""
        full, ragged = divmod(self.batch_size, self.largest_micro_batch)
        return (self.largest_micro_batch,) * full + ((ragged,) if ragged else ())

    @property
    def largest_micro_batch(self) -> int:
        """Examples of the first forward/backward pass of a step; no later one has more."""
        return self.micro_batch_size or -(-self.batch_size // (self.accumulate or 1))


def target_name(group: Mapping[str, Any]) -> str:
    """`mlp` for `batchlab.models.mlp.MLP`, `Net` for a user's `my_net.Net`."""
    parts = str(group["_target_"]).split(".")
    return parts[-2] if parts[0] == "batchlab" and len(parts) > 2 else parts[-1]


def _task_word(target: str) -> str:
    """`mlp` of batchlab's own, and a user's `my_net.Net`: everybody's classes are called Net."""
    return target.split(".")[-2] if target.startswith("batchlab.") else ".".join(target.split(".")[-2:])


NO_KNOBS = ("budget", "hidden")  # fields that are no key of a config
_KNOBS = {f.name: f for f in fields(RunConfig) if f.name not in NO_KNOBS}
_GROUPS = ("optimizer", "data", "model", "instruments")


def from_hydra(
    composed: Any, settled: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: values
) -> RunConfig:
    """The border: a composed `DictConfig` (without its `hydra` node) becomes a checked `RunConfig`.

    `settled` puts numbers where the user may name something that holds one, before anything is checked.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        as_written: Any = OmegaConf.to_container(composed, resolve=False)
        resolved: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise BadRequest(f"{str(error).splitlines()[0]} (key '{error.full_key}'): give it a value") from None
    values = {str(key): value for key, value in resolved.items() if key != "hydra"}
    if "hidden" in values:
        raise BadRequest("unknown key 'hidden': `batchlab config` lists the keys")
    return from_dict(settled(values | {"hidden": hidden_keys(as_written, values, within=(*_GROUPS, "runs_dir"))}))


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """Plain values, named as in `configs/config.yaml`, become a checked `RunConfig`; `BadRequest` otherwise."""
    given = dict(values)
    given.pop("grids", None)  # the union of grids was unrolled before this line
    hidden = tuple(given.pop("hidden", ()))
    budget = _budget(given)
    for name in given:
        if name not in _KNOBS:
            near = did_you_mean(name, knob_names()) or ": `batchlab config` lists the keys"
            raise BadRequest(f"unknown key '{name}'{near}")
    if missing := [name for name in _KNOBS if name not in given]:
        raise BadRequest(f"missing key '{missing[0]}': the config must give it a value")
    config = RunConfig(
        budget=budget, hidden=hidden, **{name: check_value(f, given[name]) for name, f in _KNOBS.items()}
    )
    _check_together(config)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The inverse of `from_dict`: plain values, named as in `configs/config.yaml`."""
    values = {name: getattr(config, name) for name in _KNOBS}
    values |= dict.fromkeys(BUDGET_UNITS) | {config.budget.unit: config.budget.amount}
    target = config.target
    values["target"] = {"metric": target.metric, "value": target.value} if target else {"value": None}
    values["trust"], values["retry"] = list(config.trust), list(config.retry)
    values["published"] = [asdict(figure) | {"value": list(figure.value)} for figure in config.published]
    for group in _GROUPS:
        values[group] = dict(values[group])
    if config.hidden:
        values["hidden"] = list(config.hidden)
    return values


def knob_names() -> tuple[str, ...]:
    """Every key a user may write at the root of a config."""
    return (*_KNOBS, *BUDGET_UNITS, "default_epochs", "grids")


def check_sweep(configs: Sequence[RunConfig]) -> None:
    """BadRequest where the points of one sweep differ in a knob that is the whole sweep's."""
    for name, knob_field in _KNOBS.items():
        if not knob_field.metadata.get("of_the_sweep"):
            continue
        values = list(dict.fromkeys(getattr(config, name) for config in configs))
        if len(values) > 1:
            first, second = (f"[{','.join(v)}]" if isinstance(v, tuple) else shown(v) for v in values[:2])
            raise BadRequest(
                f"{name}={first} and {name}={second} in one sweep: {name} holds for all its points; give it one value"
            )


def _budget(given: dict[str, Any]) -> Budget:
    default = given.pop("default_epochs", None)
    asked = {unit: given.pop(unit, None) for unit in BUDGET_UNITS}
    asked = {unit: amount for unit, amount in asked.items() if amount is not None}
    if len(asked) > 1:
        both = " and ".join(f"{unit}={shown(amount)}" for unit, amount in asked.items())
        raise BadRequest(f"{both} are two budgets: give at most one of {', '.join(BUDGET_UNITS)}")
    if not asked or default is not None:  # checked even where it does not count: no knob is quietly dropped
        asked = {"default_epochs": default} | asked
    for name, amount in asked.items():
        kind = "an integer" if name in ("examples", "steps") else "a number"
        if not is_finite(amount) or amount <= 0 or (kind == "an integer" and not isinstance(amount, int)):
            raise BadRequest(f"{name}={shown(amount)} cannot be: {name} is {kind} above 0")
    # Epochs are a float always, so that epochs=2 and epochs=2.0 are one run.
    return Budget(name, amount) if kind == "an integer" else Budget("epochs", float(amount))


def _check_together(config: RunConfig) -> None:
    """What no knob can tell alone."""
    check_noise_scale(config.lr_scaling, config.noise_scale)
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
        raise BadRequest(f"device={config.device} cannot be: {_no_device(config.device)}")
    if config.runs_dir.startswith("~"):
        raise BadRequest(f"runs_dir={config.runs_dir} cannot be: nobody here expands '~'; write the folder out")
    if config.stop_at_target and config.target is None:
        raise BadRequest("stop_at_target=true needs a target: add target.value=..., such as target.value=0.15")
    if config.study is not None and not is_folder_name(config.study):
        raise BadRequest(
            f"study={config.study!r} cannot be a folder: use letters, digits, '.', '_' and '-', not starting with '.'"
        )


def _no_device(asked: str) -> str:
    if re.fullmatch("(mps|xpu)(:[0-9]+)?", asked):
        maker = "Apple's" if asked.startswith("mps") else "Intel's"
        return (
            f"batchlab trains on the CPU and on GPUs that PyTorch calls cuda (NVIDIA's, and AMD's under ROCm), not on "
            f"{maker}: use device=cpu"
        )
    return "device is auto, cpu, cuda or cuda:N"


def is_folder_name(name: str) -> bool:
    """Whether `name` is one plain folder: no separators, no `..`, nothing a shell or a page could stumble over."""
    return re.fullmatch("(?=.*[A-Za-z0-9])[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name) is not None

"""The one place where text becomes values: what Hydra composed becomes a frozen, checked configuration.

Types are checked here, not by a schema in OmegaConf, which takes '8' for 8 and lets nan pass
(`.github/decisions/0001`).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from batchlab.config.bounds import check_value
from batchlab.config.goals import BUDGET_UNITS, budget_of, plain_target
from batchlab.config.options import GROUPS, OF_SCHEDULES, OPTIONS, RUN, SWEEP, WITH_TARGETS
from batchlab.config.plan import schedule_options
from batchlab.config.published import Published
from batchlab.config.run import RunConfig
from batchlab.config.sweep import SweepConfig
from batchlab.config.synonyms import meant
from batchlab.config.values import leaves
from batchlab.errors import BadRequest
from batchlab.science.scaling.lr_scaling import check_noise_scale
from batchlab.science.scaling.schedules import check_options

_MAPPINGS = (*WITH_TARGETS, "instruments")
_FROM_ENVIRONMENT = re.compile(r"\benv\s*:")  # ${oc.env:TOKEN}, also inside another resolver
_CHECKED = {name: row for name, row in OPTIONS.items() if name not in ("budget", "grids")}


@dataclass(frozen=True)
class Request:
    """One point as it was requested: what to run, how, and what its study shows in addition to its runs."""

    run: RunConfig
    sweep: SweepConfig
    published: tuple[Published, ...] = ()


def from_hydra(
    composed: Any, settled: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: values
) -> Request:
    """The border: a composed `DictConfig` (without its `hydra` node) becomes a checked `Request`.

    `settled` replaces the names that a user may write instead of numbers, before anything is checked.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        as_written: Any = OmegaConf.to_container(composed, resolve=False)
        resolved: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise BadRequest(_without_value(str(error.full_key), str(error).splitlines()[0])) from None
    values = {str(key): value for key, value in resolved.items() if key != "hydra"}
    if "hidden" in values:
        raise BadRequest("unknown key 'hidden': `batchlab config` lists the keys")
    return from_dict(settled(values | {"hidden": hidden_keys(as_written, values, within=(*_MAPPINGS, "runs_dir"))}))


def _without_value(key: str, why: str) -> str:
    group, _, name = key.partition(".")
    if group in GROUPS and name == "_target_":
        return f"{group}=own needs the name of a class or function: add {key}={RUN[group].such_as}"
    if why.startswith("Missing mandatory value"):
        return f"{key} has no value: add {key}=..."
    return f"{why} (key '{key}'): give it a value"


def from_dict(values: Mapping[str, Any]) -> Request:
    """Plain values, named as in `configs/config.yaml`, become a checked `Request`; `BadRequest` otherwise."""
    given = dict(values)
    given.pop("grids", None)  # already expanded
    hidden = tuple(given.pop("hidden", ()))
    budget = budget_of(given)
    for name in given:
        if name not in _CHECKED:
            raise BadRequest(f"unknown key '{name}'{meant(name) or ': `batchlab config` lists the keys'}")
    if missing := [name for name in _CHECKED if name not in given]:
        name = missing[0]
        raise BadRequest(f"'{name}' has no value, because the config or ~{name} removed it: give {name}=...")
    checked = {name: check_value(row, given[name]) for name, row in _CHECKED.items()}
    of_the_run = {name: checked[name] for name in RUN if name != "budget"}
    run = RunConfig(budget=budget, hidden=hidden, **of_the_run)
    _check_together(run)
    return Request(run, SweepConfig(**{name: checked[name] for name in SWEEP}), checked["published"])


def to_dict(run: RunConfig, sweep: SweepConfig | None = None) -> dict[str, Any]:
    """Both as plain values, named as in `configs/config.yaml`: for what is written to the disk."""
    values = {name: getattr(run, name) for name in RUN if name != "budget"}
    values |= dict.fromkeys(BUDGET_UNITS) | {run.budget.unit: run.budget.amount}
    values["target"] = plain_target(run.target)
    values |= {name: dict(value) for name, value in values.items() if isinstance(value, Mapping)}
    if sweep is not None:
        values |= {name: getattr(sweep, name) for name in SWEEP}
    if run.hidden:
        values["hidden"] = run.hidden
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _check_together(config: RunConfig) -> None:
    """Checks options that depend on each other."""
    check_noise_scale(config.lr_scaling, config.noise_scale)
    built_in = config.schedule if isinstance(config.schedule, str) else None
    check_options(built_in, schedule_options(config), {name: row.before for name, row in OF_SCHEDULES.items()})
    batch, micro, accumulate = config.batch_size, config.micro_batch_size, config.accumulate
    if (micro or 1) > batch:
        raise BadRequest(
            f"micro_batch_size={micro} is larger than batch_size={batch}: use at most {batch}, or a larger batch_size"
        )
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
        raise BadRequest(f"device={config.device} is invalid: {_no_device(config.device)}")
    if config.runs_dir.startswith("~"):
        raise BadRequest(f"runs_dir={config.runs_dir} is invalid: '~' is not expanded here; write out the whole path")
    if config.stop_at_target and config.target is None:
        raise BadRequest("stop_at_target=true needs a target: add target.value=..., such as target.value=0.15")
    if config.study is not None and not is_folder_name(config.study):
        raise BadRequest(
            f"study={config.study!r} is not a valid name: use letters, digits, '.', '_' and '-', not '.' at the start"
        )


def _no_device(device: str) -> str:
    if re.fullmatch("(mps|xpu)(:[0-9]+)?", device):
        maker = "Apple's" if device.startswith("mps") else "Intel's"
        return (
            f"batchlab trains on the CPU and on GPUs that PyTorch calls cuda (NVIDIA's, and AMD's under ROCm), not on "
            f"{maker}: use device=cpu"
        )
    return "it must be auto, cpu, cuda or cuda:N"


def is_folder_name(name: str) -> bool:
    """Whether `name` is one plain folder: no separators, no `..`, nothing that a shell or a web page must escape."""
    return re.fullmatch("(?=.*[A-Za-z0-9])[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name) is not None


def hidden_keys(
    as_written: Mapping[str, object], resolved: Mapping[str, object], *, within: Collection[str]
) -> tuple[str, ...]:
    """The dotted keys whose value came from an environment variable, directly or through another key, in order.

    Only those `within` these root keys: other options are numbers, choices, and names of folders. The elements
    of a list have the list's key. A `_target_` is the name of code, so it is not a secret.
    """
    written = {key: text for key, text in leaves(as_written) if isinstance(text, str) and "${" in text}
    from_environment = {key for key, text in written.items() if _FROM_ENVIRONMENT.search(text)}
    if not from_environment:
        return ()
    values: dict[str, set[str]] = {}
    for key, leaf in leaves(resolved):
        values.setdefault(key, set()).add(str(leaf))
    secrets = {text for key in values if _lies_below(key, from_environment) for text in values[key] if text}
    given = {
        key
        for key, texts in values.items()
        if _lies_below(key, written) and any(secret in text for text in texts for secret in secrets)
    }
    return tuple(key for key in sorted(given) if key.partition(".")[0] in within and not key.endswith("._target_"))


def _lies_below(key: str, others: Collection[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in others)

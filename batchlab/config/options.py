"""The one table of options: each with its type, unit, bounds, meaning, role, and what another value of it changes.

A row is a field of `RunOptions` or `SweepOptions`; its default is in `configs/config.yaml`. Code that selects options
or compares two configurations uses this table or `config.key`: no other module lists option names.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from batchlab.config.goals import Budget, Target
from batchlab.config.moved_targets import first
from batchlab.config.option_row import (
    ANYTHING,
    EXECUTION,
    MEASUREMENTS,
    MEMORY,
    PARTS,
    SPEED,
    VALUES,
    WEIGHTS,
    Moves,
    Option,
    Role,
    before_added_keys,
    device_kind,
    option,
    which_data,
)
from batchlab.config.published import Published
from batchlab.config.values import Group
from batchlab.science.scaling.lr_scaling import RULE_NAMES
from batchlab.science.scaling.schedules import SCHEDULES

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
EVAL_PRECISIONS = ("fp32", "same")
RETRIED = ("failed", "timeout", "oom", "diverged")

MICRO_BATCHING, PEAK_LR, SCHEDULE = "micro-batches", "peak learning rate", "schedule"


def _of_schedules(before: object, meaning: str, **more: Any) -> Any:
    """An option of some of the built-in schedules: `schedules.SCHEDULES` says of which."""
    return option(meaning, WEIGHTS, before=before, decides=SCHEDULE, **more)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that say what a run is, and how it is trained."""

    batch_size: int = option(
        "per optimizer step, over all micro-batches",
        EXECUTION,
        unit="examples",
        role=Role.AXIS,
        at_least=1,
        first=True,
        column="batch\nsize",
        decides=MICRO_BATCHING,
    )
    micro_batch_size: int | None = option(
        "per forward/backward pass", EXECUTION, at_least=1, unit="examples", decides=MICRO_BATCHING
    )
    accumulate: int | None = option(
        "per optimizer step", EXECUTION, at_least=1, unit="micro-batches", first=True, decides=MICRO_BATCHING
    )
    lr: float = option(
        "learning rate at the reference batch size",
        WEIGHTS,
        role=Role.TUNED,
        above=0.0,
        first=True,
        column="learning\nrate",
        decides=PEAK_LR,
    )
    lr_scaling: str = option(
        "rule that scales the learning rate with the batch size",
        WEIGHTS | PARTS,
        choices=RULE_NAMES,
        first=True,
        decides=PEAK_LR,
    )
    reference_batch_size: int = option(
        "batch size to which `lr` belongs", WEIGHTS, at_least=1, unit="examples", decides=PEAK_LR, naming_level=1
    )
    noise_scale: float | None = option(
        "gradient noise scale, for the rules that use it",
        WEIGHTS,
        above=0.0,
        unit="examples",
        decides=PEAK_LR,
        takes="a number above 0; the folder of a completed run that measured it, runs/STUDY/RUN; or null",
        before=None,
    )
    warmup: float = option(
        "length of the warm-up",
        WEIGHTS,
        at_least=0.0,
        unit="fractions of the budget if below 1, else in examples",
        decides=SCHEDULE,
    )
    warmup_from: str = option(
        "learning rate the warm-up starts from", WEIGHTS, choices=("zero", "base"), decides=SCHEDULE
    )
    schedule: str | Group = option(
        "how the learning rate falls over the budget",
        WEIGHTS,
        choices=tuple(SCHEDULES),
        may_be_own=True,
        decides=SCHEDULE,
    )
    schedule_floor: float = _of_schedules(
        0.0, "fraction of the peak learning rate at which linear, cosine and wsd end", at_least=0.0, at_most=1.0
    )
    schedule_milestones: tuple[float, ...] = _of_schedules(
        (0.5, 0.75),
        "fractions of the budget at which step lowers the learning rate",
        items="numbers",
        such_as="0.5,0.75",
        takes="a list, such as [0.5,0.75]",
    )
    schedule_factor: float = _of_schedules(
        0.1, "by which step multiplies the learning rate at each milestone", above=0.0, at_most=1.0
    )
    schedule_peak_at: float = _of_schedules(
        0.3, "fraction of the budget at which one_cycle reaches its peak", above=0.0, at_most=1.0
    )
    schedule_start_divisor: float = _of_schedules(
        25.0, "one_cycle starts at the peak learning rate divided by this", at_least=1.0
    )
    schedule_end_divisor: float = _of_schedules(10000.0, "one_cycle ends at its start divided by this", at_least=1.0)
    schedule_decay: float = _of_schedules(
        0.2, "fraction of the budget, at its end, over which wsd decays", above=0.0, at_most=1.0
    )
    precision: str = option(
        "precision of the forward and backward pass", EXECUTION, choices=PRECISIONS, first=True, column="precision"
    )
    budget: Budget = option("how long to train", WEIGHTS)
    target: Target | None = option(
        "validation result that counts as having learnt the task",
        MEASUREMENTS,
        takes="target.metric=val/<metric> target.value=NUMBER; value null for no target",
    )
    stop_at_target: bool = option("end the run when the target is reached", MEASUREMENTS)
    weight_decay: float = option(
        "weight decay of the optimizer, never scaled", EXECUTION | PARTS, at_least=0.0, only_whether=True
    )
    clip_norm: float | None = option(
        "largest gradient norm; null does not clip", EXECUTION, above=0.0, only_whether=True
    )
    data: Group = option(
        "the data", EXECUTION, is_group=True, seen_as=which_data, made_with=True, such_as="my_net.load"
    )
    model: Group = option(
        "the model", EXECUTION, is_group=True, as_before=before_added_keys, made_with=True, such_as="my_net.Net"
    )
    optimizer: Group = option("the optimizer", EXECUTION, is_group=True, such_as="torch.optim.RMSprop")
    instruments: Group = option(
        "the instruments", MEASUREMENTS | SPEED | MEMORY, naming_level=2, as_before=first, such_as="my_file.Name"
    )
    seed: int = option(
        "seed of the initial weights and the data order",
        WEIGHTS,
        role=Role.REPEATED,
        at_least=0,
        at_most=2**63 - 1,
        first=True,
        column="seed",
    )
    device: str = option(
        "where to train; auto takes a GPU if there is one",
        EXECUTION,
        of_the_machine=True,
        made_with=True,
        seen_as=device_kind,
        takes="auto, cpu, cuda or cuda:N",
        such_as="auto,cpu,cuda",
    )
    threads: int = option(
        "CPU threads of one run; changes the last bits of results", EXECUTION, at_least=1, of_the_machine=True
    )
    deterministic: bool = option("refuse kernels whose result varies from call to call", EXECUTION)
    eval_every: int | None = option(
        "between validations; null is a quarter of an epoch", MEASUREMENTS, at_least=1, unit="examples"
    )
    eval_batch_size: int = option("per forward pass of a validation", VALUES, at_least=1, unit="examples")
    eval_precision: str = option(
        "precision of validations; same: that of training",
        VALUES | PARTS,
        choices=EVAL_PRECISIONS,
        before="fp32",
    )
    log_every: int | None = option(
        "per window of the training loss; null is 1/200 of the budget", MEASUREMENTS, at_least=1, unit="examples"
    )
    trust: tuple[str, ...] = option(
        "packages whose functions `_target_` may name",
        PARTS,
        items="package names",
        such_as="timm,transformers",
        takes="a list, such as [timm,transformers]",
    )
    timeout: float | None = option("longest time that a point may take; null: no limit", above=0.0, unit="seconds")
    checkpoint_every: int | None = option("between checkpoints; null: by time only", at_least=1, unit="examples")
    checkpoint_seconds: float | None = option("between checkpoints; null: by examples only", above=0.0, unit="seconds")
    accept_changed_objective: bool = option(
        "accumulate even a loss of the batch as a whole, which changes the objective", before=False
    )
    workers: int = option(
        "processes that read streamed data; 0: the training process reads it", SPEED | MEMORY, at_least=0, before=0
    )
    study: str | None = option("study: a folder of runs to compare", takes="a folder's name; null: <data>-<model>")
    runs_dir: str = option("folder of the studies", takes="a path")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options that say how a sweep is run; each has one value for all its points."""

    jobs: int = option("points that run at the same time", at_least=1)
    skip_larger: bool = option("skip points that are at least as large as one that did not fit")
    retry: tuple[str, ...] = option(
        "run points with these statuses again: failed, timeout, oom, diverged",
        choices=RETRIED,
        items="statuses",
        such_as="failed,timeout",
        takes="a list, such as [failed,timeout]; --retry failed,timeout",
        flag="--retry",
    )
    force: bool = option("run every point again, from its first step", takes="true or false; --force", flag="--force")
    accept_changed: bool = option("continue although code, data, PyTorch or device changed")
    report: bool = option("make the report when a sweep of several points has ended")
    dry_run: bool = option("show what would run, and run nothing", takes="true or false; --dry-run", flag="--dry-run")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options that say what a study shows in addition to its runs."""

    published: tuple[Published, ...] = option(
        "published results of the same experiment, which the report shows next to ours",
        takes="a list, in an experiment's file",
    )
    grids: tuple[tuple[str, ...], ...] = option(
        "lists of sweep overrides; the study is the union of their grids", takes="a list, in an experiment's file"
    )


def _rows(table: type[Any]) -> Mapping[str, Option]:
    rows = {}
    for f in fields(table):
        kind = f.type.__name__ if isinstance(f.type, type) else str(f.type)
        rows[f.name] = replace(f.metadata["option"], name=f.name, type=kind)
    return MappingProxyType(rows)


RUN, SWEEP, STUDY = _rows(RunOptions), _rows(SweepOptions), _rows(StudyOptions)
OPTIONS: Mapping[str, Option] = MappingProxyType({**RUN, **SWEEP, **STUDY})
_BY_KEY = {key: row for row in OPTIONS.values() for key in row.keys}

GROUPS = tuple(name for name, row in RUN.items() if row.is_group)
WITH_TARGETS = (*GROUPS, *(name for name, row in RUN.items() if row.may_be_own))
FIRST = tuple(name for name, row in RUN.items() if row.first)
LISTED = tuple(name for name, row in RUN.items() if row.column)
MICRO_BATCHES = tuple(name for name, row in RUN.items() if row.decides == MICRO_BATCHING)
NAMING_LEVELS = {name: row.naming_level for name, row in RUN.items() if row.naming_level}
SOUGHT = tuple(name for name in MICRO_BATCHES if name != "accumulate")  # by `find`, which is given the accumulation
PEAK_LR_OPTIONS = tuple(name for name, row in RUN.items() if row.decides == PEAK_LR)
SCHEDULE_OPTIONS = tuple(name for name, row in RUN.items() if row.decides == SCHEDULE)
OF_SCHEDULES = {name.removeprefix("schedule_"): RUN[name] for name in SCHEDULE_OPTIONS if RUN[name].was_added}
MADE_WITH = tuple(name for name, row in RUN.items() if row.made_with)
MEASURING = tuple(name for name, row in RUN.items() if row.moves & MEASUREMENTS)
OF_THE_MACHINE = tuple(name for name, row in RUN.items() if row.of_the_machine)


def option_names() -> tuple[str, ...]:
    """Every key that a user may write at the root of a config."""
    return tuple(_BY_KEY)


def option_of(key: str) -> Option | None:
    """The row that a dotted key belongs to: `optimizer` for `optimizer.momentum`; None for an unknown one."""
    return _BY_KEY.get(key.partition(".")[0])


def moves(key: str) -> Moves:
    """What another value of a dotted key changes; a key that is not in the table may change anything."""
    row = option_of(key)
    return ANYTHING if row is None else row.moves


def that_move(keys: Iterable[str], moved: Moves, *, without: Collection[str] = ()) -> list[str]:
    """The dotted keys that change any of `moved`, in their order; `without` names options and single keys."""
    return [key for key in keys if moves(key) & moved and not {key, key.partition(".")[0]} & {*without}]


def of_role(*roles: Role) -> tuple[str, ...]:
    """The options that have one of these roles in a study."""
    return tuple(name for name, row in RUN.items() if row.role in roles)

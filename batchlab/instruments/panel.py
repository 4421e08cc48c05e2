"""The instruments of a run, made from its configuration."""

from collections.abc import Sequence

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import Plan
from batchlab.instruments.instrument import Instrument
from batchlab.task import Task


def build_instruments(config: RunConfig, planned: Plan, task: Task) -> Sequence[Instrument]:
    """The instruments the config names, in its order, each offered what it may want to know; BadRequest where
    one cannot measure this task."""
    offered = {
        "eval_every": planned.eval_every,
        "log_every": planned.log_every,
        "eval_batch_size": config.eval_batch_size,
        "batch_size": config.batch_size,
        "micro_batch_size": config.micro_batch_sizes[0],
        "budget": planned.examples,
        "clip_norm": config.clip_norm,
        "seed": config.seed,
        "task": task,
    }
    built = []
    for name, group in config.instruments.items():
        known = offered | {"instrument_name": name}
        instrument = targets.build(group, Instrument, what=f"instruments.{name}", offered=known, trust=config.trust)
        instrument.instrument_name = name
        built.append(instrument)
    return built

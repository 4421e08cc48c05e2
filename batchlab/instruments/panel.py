"""Builds the instruments of a run from its configuration."""

from collections.abc import Iterable, Sequence

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import Plan
from batchlab.errors import BadRequest
from batchlab.instruments.instrument import Instrument
from batchlab.records.declared import besides_the_table, metrics
from batchlab.records.quantity import Quantity
from batchlab.task import Task
from batchlab.training.state import Plug


def build_instruments(config: RunConfig, planned: Plan, task: Task) -> Sequence[Instrument]:
    """The instruments that the config names, in its order, each offered the run's settings; BadRequest if one cannot
    measure this task."""
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
    check_declared(built)
    return built


def declared(instruments: Iterable[Plug], task: Task) -> tuple[Quantity, ...]:
    """The quantities that a run with these instruments on this task declares, in addition to the table's."""
    measured = [quantity for instrument in instruments for quantity in instrument.quantities]
    return besides_the_table([*metrics(task.higher_is_better, task.whole_metrics), *measured])


def check_declared(instruments: Iterable[Instrument]) -> None:
    """BadRequest if something is declared that is not a quantity, or one name twice with different meanings."""
    known: dict[str, tuple[Quantity, str]] = {}
    for instrument in instruments:
        for quantity in instrument.quantities:
            if not isinstance(quantity, Quantity):
                raise BadRequest(
                    f"instruments.{instrument.instrument_name} declares {quantity!r} among its quantities: use "
                    'batchlab.instruments.Quantity("mine/name", "unit", "what it is")'
                )
            first, by = known.setdefault(quantity.name, (quantity, instrument.instrument_name))
            if first != quantity:
                raise BadRequest(
                    f"instruments.{by} and instruments.{instrument.instrument_name} declare {quantity.name} "
                    "differently: rename one of them, or use the same declaration in both"
                )

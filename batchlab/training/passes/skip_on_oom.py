"""If an instrument runs out of memory, the run continues without it."""

from collections.abc import Callable, Generator, Iterator

from batchlab.records import Measurement
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.passes.halving import give_back
from batchlab.training.phase import of_instrument
from batchlab.training.state import Plug, RunState


def unless_out_of_memory(
    state: RunState, instrument: Plug, measure: Callable[[RunState], Iterator[Measurement]]
) -> Generator[Measurement, None, bool]:
    """The measurements of `measure`, a method of `instrument`; returns whether there was memory for it.
    If not, this is noted, and the caller leaves the instrument out of the rest of the run.
    """
    state.phase.name = of_instrument(instrument.instrument_name)
    try:
        yield from measure(state)
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back(state.device)  # after the except block, whose frames held the memory
    since = f"after {state.examples:,} examples" if state.examples else "from the start"
    state.note(f"{state.phase.name} does not fit in the memory that training leaves free: left out {since}")
    return False

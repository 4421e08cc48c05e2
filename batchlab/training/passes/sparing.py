"""An instrument that does not fit the memory beside training costs the run no more than its own numbers."""

from collections.abc import Callable, Generator, Iterator

from batchlab.records import Measurement
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.passes.halving import give_back
from batchlab.training.phase import of_instrument
from batchlab.training.state import Plug, RunState


def spared(
    state: RunState, instrument: Plug, look: Callable[[RunState], Iterator[Measurement]]
) -> Generator[Measurement, None, bool]:
    """What `look`, its `measure` or `conclude`, measures; returns whether there was memory for it.

    Where there was not, that is noted, and the instrument is to be left out of the rest of the run.
    """
    state.phase.name = of_instrument(instrument.instrument_name)
    try:
        yield from look(state)
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back(state.device)  # out here, where the frames that held the memory are gone
    since = f"after {state.examples:,} examples" if state.examples else "from the start"
    state.note(f"{state.phase.name} does not fit the memory that is left beside training: left out {since}")
    return False

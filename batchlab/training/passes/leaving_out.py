"""An instrument that cannot measure a run is left out of it, and the run continues."""

from collections.abc import Callable, Generator, Iterator

from batchlab.errors import Diverged, StorageError
from batchlab.records import Measurement
from batchlab.training.devices.broken_context import is_broken_context
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.passes.halving import give_back
from batchlab.training.phase import of_instrument
from batchlab.training.state import Plug, RunState
from batchlab.training.user_errors import message_and_place

MOST_CHARACTERS = 400  # of a reason: PyTorch lists every backend that has no such operation


def unless_it_fails(
    state: RunState, instrument: Plug, measure: Callable[[RunState], Iterator[Measurement]]
) -> Generator[Measurement, None, bool]:
    """The measurements of `measure`, a method of `instrument`; returns whether it could measure.

    If not (memory ran out, or PyTorch cannot do it for this model), this is noted, and the caller leaves the instrument
    out of the rest of the run. Divergence, a full disk, a broken device and the errors of an `essential` instrument are
    raised.
    """
    state.phase.name = of_instrument(instrument.instrument_name)
    try:
        yield from measure(state)
        return True
    except (Diverged, StorageError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            why = " does not fit in the memory that training leaves free: left out"
        elif instrument.essential or is_broken_context(error):
            raise
        else:
            why = f" cannot measure this run ({_shortened(message_and_place(error))}): left out"
    give_back(state.device)  # after the except block, whose frames held the memory
    since = f"after {state.examples:,} examples" if state.examples else "from the start"
    state.note(f"{state.phase.name}{why} {since}")
    return False


def _shortened(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS].rstrip()} ..."

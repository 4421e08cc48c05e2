"""Serialises the whole state of a run and restores it: a resumed run continues as if it had never stopped."""

import io
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from batchlab.errors import BadRequest
from batchlab.records import Measurement, StateDict
from batchlab.records.quantity import Quantity
from batchlab.training.devices.device import Device
from batchlab.training.hooks import hook_states, load_hook_states
from batchlab.training.passes.module_state import captured, make_buffers_fit, restored
from batchlab.training.phase import CHECKPOINT
from batchlab.training.state import Plug, RunState, empty
from batchlab.training.updates.update import Outcome

FORMAT = 2  # raise it whenever the content of a checkpoint changes
PLAIN = (bool, int, float, str, bytes, type(None), torch.Tensor)


def capture(
    state: RunState, instruments: Mapping[str, Plug], *, run_id: str, journal_offset: int, journal_digest: str
) -> bytes:
    """Model, optimizer, loss scaler, random streams, clock, instruments and the place in the data and the journal.

    Taken between two steps, while the meter's clock is paused. The place in the data is `state.examples`: the data
    order depends on the seed alone. BadRequest if an instrument's state cannot be read back safely.
    """
    trained = state.trained
    model = trained.state_dict()
    content = {
        "format": FORMAT,
        "run_id": run_id,
        "journal_offset": journal_offset,
        "journal_digest": journal_digest,
        "step": state.step,
        "examples": state.examples,
        "learning_rate": state.learning_rate,
        "group_multiples": list(state.group_multiples),
        "eval_at_most": state.eval_at_most,
        "steps_without_terms": state.steps_without_terms,
        "changes_input": state.changes_input,
        "evaluation_draws": state.evaluation_draws,
        "meter": state.meter.state_dict(),
        "model": model,
        **captured(trained, model, state.built),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.precision.scaler.state_dict() if state.precision.scaler else None,
        "random": _random_streams(state.device),
        "instruments": {name: instrument.state_dict() for name, instrument in instruments.items()},
        "hooks": hook_states(state.task),
    }
    _refuse_what_cannot_be_read(content["hooks"], "hooks")
    _refuse_what_cannot_be_read(content["instruments"], "instruments")
    written = io.BytesIO()
    torch.save(content, written)
    return written.getvalue()


def read(content: bytes) -> dict[str, Any]:
    """Reads what `capture` made; ValueError if it is something else. The caller has checked its hash before."""
    try:
        # weights_only always, with no option to change it: a checkpoint is data, and loading it must not run code.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Validating sparse tensor invariants")  # takes time, says PyTorch
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on what is wrong
        raise ValueError(
            f"it cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("it was written by another version of batchlab")
    return found


def restore(content: Mapping[str, Any], state: RunState, instruments: Mapping[str, Plug]) -> None:
    """Restores what `read` returned into parts built from the same configuration.

    ValueError if they do not match: then the model, the optimizer or the instruments have changed since.
    """
    _refuse_other_multiples(content, state)
    if state.epoch_hook is not None:  # before the streams and the hooks' own state are restored
        state.epoch_hook.resume(content["examples"])
    try:
        make_buffers_fit(state.trained, content, state.device.torch_device)
        state.trained.load_state_dict(content["model"])
        restored(state.trained, content, state.device.torch_device)
        state.optimizer.load_state_dict(content["optimizer"])
        if state.precision.scaler is not None:
            state.precision.scaler.load_state_dict(content["scaler"])
        for name, instrument in instruments.items():
            instrument.load_state_dict(_on(state.device.torch_device, content["instruments"][name]))
        load_hook_states(state.task, _on(state.device.torch_device, content.get("hooks", {})))
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"it does not match the current model: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    state.step, state.examples = content["step"], content["examples"]
    state.learning_rate, state.eval_at_most = content["learning_rate"], content.get("eval_at_most")
    state.steps_without_terms = content.get("steps_without_terms", 0)
    # Older checkpoints do not have them: then the next evaluation finds them out.
    state.changes_input, state.evaluation_draws = content.get("changes_input"), content.get("evaluation_draws", False)
    state.meter.load_state_dict(content["meter"])
    _set_random_streams(content["random"], state.device)


def _refuse_other_multiples(content: Mapping[str, Any], state: RunState) -> None:
    """Older checkpoints have no multiples: then every parameter group was trained at the run's learning rate."""
    now = list(state.group_multiples)
    kept = content.get("group_multiples", [1.0] * len(now))
    if kept != now:
        before, after = (", ".join(f"{multiple:g}" for multiple in multiples) for multiples in (kept, now))
        raise ValueError(
            f"its parameter groups were trained at {before} times the learning rate, but the optimizer now has them at "
            f"{after} times the learning rate, so the run would mix the two"
        )


def _random_streams(device: Device) -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": device.random_state(),
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
    }


def _set_random_streams(kept: Mapping[str, Any], device: Device) -> None:
    torch.set_rng_state(kept["torch"])
    device.set_random_state(kept["cuda"])
    version, internal, gauss = kept["python"]
    random.setstate((version, tuple(internal), gauss))
    inner = kept["numpy"]["state"]
    np.random.set_state({**kept["numpy"], "state": {**inner, "key": np.array(inner["key"], dtype=np.uint32)}})


def _on(device: torch.device, value: Any) -> Any:
    """`value` with its tensors moved to `device`, except byte tensors, which are generator states."""
    if isinstance(value, torch.Tensor):
        return value if value.dtype == torch.uint8 else value.to(device)
    if isinstance(value, Mapping):
        return {key: _on(device, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(device, entry) for entry in value)
    return value


def _refuse_what_cannot_be_read(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _refuse_what_cannot_be_read(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for entry in value:
            _refuse_what_cannot_be_read(entry, name)
    elif type(value) not in PLAIN and not isinstance(value, torch.Tensor):
        raise BadRequest(
            f"{name} has a {type(value).__name__} in its state_dict, which cannot be read back safely from a "
            "checkpoint: a state_dict may hold tensors, numbers, strings, and lists and dicts of them"
        )


class Checkpointer:
    """The last of the plugs: takes a checkpoint when one is due, by examples or by time.

    By then all instruments due at that step have measured, and the training clock is paused, so checkpoints cost no
    training time. It takes none at the end of the run, where instruments measure that are not due: after resuming from
    it they would measure twice.
    """

    instrument_name = CHECKPOINT
    essential = True
    quantities: Sequence[Quantity] = ()

    def __init__(
        self,
        save: Callable[[], object],
        *,
        examples: int | None,  # between checkpoints; None: by time only
        seconds: float | None,  # between checkpoints, on `clock`; None: by examples only
        look_every: int,  # examples between two checks of the clock
        since: int = 0,  # examples at which the run resumes
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every = min((n for n in (examples, look_every if seconds else None) if n), default=None)
        self._save = save
        self._examples = examples
        self._seconds = seconds
        self._clock = clock
        self._saved_at_seconds = clock()
        self._saved_at_examples = self._looked_at_examples = since

    @empty
    def watch(self, outcome: Outcome) -> None:
        """Does nothing."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        late = self._seconds is not None and self._clock() - self._saved_at_seconds >= self._seconds
        far = _crossed(self._examples, self._saved_at_examples, state.examples)
        due = _crossed(self.every, self._looked_at_examples, state.examples)
        self._looked_at_examples = state.examples
        if due and (late or far):
            state.phase.name = CHECKPOINT
            state.measuring.close()  # back to the weights of training, which the run resumes with
            self._save()
            self._saved_at_seconds = self._clock()
            self._saved_at_examples = state.examples
        yield from ()

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        del state
        yield from ()

    def state_dict(self) -> StateDict:
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        del state


def _crossed(every: int | None, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies between."""
    return every is not None and now // every > before // every

"""The task's hooks: what they do at each step and epoch, and how their state is found, saved and restored."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from batchlab.records import StateDict
from batchlab.task import Task
from batchlab.training.data.order import stream_seed
from batchlab.training.data.reading import own_random_numbers, seed_all

NAMES = ("after_step", "on_epoch", "evaluate_with")


def begin_epoch(task: Task, seed: int, epoch: int = 0) -> None:
    """Calls the task's `on_epoch`, if it has one, with a seed that depends on the run's and on the epoch, and with the
    random streams of the process seeded by it: a resumed run repeats the call."""
    if task.on_epoch is not None:
        own = stream_seed(seed, "on_epoch", epoch)
        with own_random_numbers():
            seed_all(own)
            task.on_epoch(epoch, own)


class EpochHook:
    """Calls `on_epoch` before the first step that has an example of a new epoch; for epoch 0 before everything else,
    as validation and rehearsals may need what it sets."""

    def __init__(self, task: Task, *, n_train: int, batch_size: int, seed: int) -> None:
        self._task, self._seed = task, seed
        self._n_train, self._batch_size = n_train, batch_size
        self._begin(0)

    def before_step(self, examples: int) -> None:
        """For the step that starts after that many examples; a large batch may begin several epochs."""
        last = (examples + self._batch_size - 1) // self._n_train
        for epoch in range(self._epoch + 1, last + 1):
            self._begin(epoch)

    def resume(self, examples: int) -> None:
        """Repeats the last call of a run that has trained for that many examples."""
        if examples:
            self._begin((examples - 1) // self._n_train)

    def _begin(self, epoch: int) -> None:
        begin_epoch(self._task, self._seed, epoch)
        self._epoch = epoch  # of the last call


def hook_states(task: Task) -> dict[str, StateDict]:
    """The state of the objects that the hooks belong to, for a checkpoint."""
    return {name: owner.state_dict() for name, owner in _owners(task).items()}


def load_hook_states(task: Task, states: Mapping[str, StateDict]) -> None:
    """The inverse of `hook_states`; ValueError if the objects are not those of the checkpoint."""
    owners = _owners(task)
    if owners.keys() != states.keys():
        raise ValueError(
            f"it has the state of {', '.join(states) or 'no hook'}, but the task has {', '.join(owners) or 'none'}: "
            "the object must exist before training starts"
        )
    for name, owner in owners.items():
        owner.load_state_dict(states[name])


def unsaved(task: Task) -> Iterator[str]:
    """A sentence about each object that a hook belongs to and that has attributes, but no state that could be saved.

    Not about `on_epoch`: a resumed run calls it again.
    """
    for name in ("after_step", "evaluate_with"):
        owner = getattr(getattr(task, name), "__self__", getattr(task, name))
        has_state = not isinstance(owner, type) and bool(getattr(owner, "__dict__", None))
        if has_state and not inspect.isfunction(owner) and not _has_state_dict(owner):
            yield (
                f"checkpoints do not have what {name} keeps in {type(owner).__name__}: if it changes in training, give "
                "that class state_dict and load_state_dict, or a resumed run starts without it"
            )


def _owners(task: Task) -> dict[str, Any]:
    """By name, each object with a state that a hook belongs to: the object whose method or instance it is, or one that
    its closure or its `functools.partial` holds. The state of a plain function in global variables cannot be seen."""
    found: dict[int, tuple[str, Any]] = {}
    for name in NAMES:
        hook = getattr(task, name)
        for position, owner in enumerate(_held(hook)):
            if _has_state_dict(owner):
                found.setdefault(id(owner), (f"{name}.{position}", owner))
    return dict(found.values())


def _has_state_dict(owner: Any) -> bool:
    methods = (getattr(owner, name, None) for name in ("state_dict", "load_state_dict"))
    return not isinstance(owner, type) and all(map(callable, methods))


def _held(hook: Any) -> Iterator[Any]:
    if hook is None:
        return
    if isinstance(hook, functools.partial):
        yield from (*hook.args, *hook.keywords.values())
        yield from _held(hook.func)
        return
    yield getattr(hook, "__self__", hook)
    for cell in getattr(hook, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # assigned later than the function is defined, and not yet
            continue


def evaluated(task: Task, model: nn.Module) -> nn.Module:
    """What is validated: the model, or what `evaluate_with` makes of it."""
    if task.evaluate_with is None:
        return model
    return task.evaluate_with(model)

"""Which of Lightning's hooks a class has, and which of them batchlab does not call."""

import dis
import inspect
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType

from batchlab.adapters.installed import PACKAGES
from batchlab.errors import BadRequest
from batchlab.printable import listed

# Hooks without which the training would be another one, and what to write instead.
REFUSED = {
    "backward": "return a loss from training_step whose gradient is the one you need",
    "optimizer_step": "write an optimizer of your own (optimizer._target_), or use after_step=...",
    "optimizer_zero_grad": "remove it: batchlab sets gradients to None",
    "configure_gradient_clipping": "use the option clip_norm",
    "configure_model": "create the layers in __init__",
    "configure_sharded_model": "create the layers in __init__",
    "transfer_batch_to_device": "give batches of tensors, or an object with to(device)",
    "on_before_batch_transfer": "change the batch in training_step, or in collate_fn",
    "on_train_batch_start": "do it in training_step; remove it if it only logs",
    "on_before_backward": "do it in training_step; remove it if it only logs",
    "on_after_backward": "use the option clip_norm, or after_step=...; remove it if it only logs",
    "on_before_optimizer_step": "use the option clip_norm, or after_step=...; remove it if it only logs",
    "on_before_zero_grad": "use after_step=...; remove it if it only logs",
    "on_after_batch_transfer": "change the batch in training_step, or give augment=...",
}
OTHERS = ("setup", "prepare_data", "configure_callbacks", "lr_scheduler_step", "train_dataloader", "val_dataloader")
NOT_OF_TRAINING = ("test", "predict")
OF_THE_TRAINER = ("current_epoch", "global_step")  # 0 without one


def base_of(kind: type, name: str = "LightningModule") -> type | None:
    """The class of Lightning, of either package, from which `kind` is derived."""
    named = (base for base in kind.__mro__ if base.__name__ == name)
    return next((base for base in named if base.__module__.partition(".")[0] in PACKAGES), None)


def overridden(kind: type, base: type, name: str) -> bool:
    """Whether `kind` has a method of its own of this name."""
    return hasattr(base, name) and getattr(kind, name) is not getattr(base, name)


def refuse_unusable(kind: type, base: type) -> None:
    """BadRequest for a hook without which the training would be another one."""
    for name, instead in REFUSED.items():
        if overridden(kind, base, name):
            raise BadRequest(f"{kind.__name__} has {name}, which batchlab does not call: {instead}")


def unused(kind: type, *, measured: bool) -> Iterator[str]:
    """A sentence about each thing of a LightningModule that batchlab leaves out; `measured`: whether what
    `validation_step` logs is used."""
    base = base_of(kind)
    if base is None:  # as `evaluate_with` or a wrapper may return
        return
    hooks = [name for name, function in inspect.getmembers(base, inspect.isfunction) if name.startswith("on_")]
    names = [name for name in hooks if not any(word in name for word in NOT_OF_TRAINING)]
    if found := [name for name in (*names, *OTHERS) if overridden(kind, base, name)]:
        yield f"not called, as there is no Trainer: {listed(found, 20)} of {kind.__name__}"
    if overridden(kind, base, "validation_step") and not measured:
        yield (
            f"validation_step of {kind.__name__} is not called: val/loss is that of training_step in eval mode, and "
            'Task.from_lightning(..., logged={"NAME": True}) measures what it logs'
        )
    if _loads(kind.training_step.__code__, "batch_idx"):  # type: ignore[attr-defined]
        yield f"batch_idx is 0 in every step, but training_step of {kind.__name__} reads it"
    for name in OF_THE_TRAINER:
        if readers := [*_readers(kind, base, name)]:
            yield f"{name} is 0 throughout the training, as there is no Trainer, but {listed(readers, 5)} reads it"


def _loads(code: CodeType, name: str) -> bool:
    """Whether the code, or a function within it, reads the local variable, other than to hand it on as the last
    argument of a call."""
    instructions = [*dis.get_instructions(code)]
    for instruction, then in pairwise(instructions):
        read = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        handed_on = then.opname.startswith(("PRECALL", "CALL", "KW_NAMES"))
        if instruction.opname.startswith("LOAD_") and name in read and not handed_on:
            return True
    return any(_loads(inner, name) for inner in code.co_consts if isinstance(inner, CodeType))


def _readers(kind: type, base: type, name: str) -> Iterator[str]:
    """The methods, of those that may be called, whose code has the attribute."""
    for owner in kind.__mro__[: kind.__mro__.index(base)]:
        for method, function in vars(owner).items():
            called = not method.startswith(("on_", *NOT_OF_TRAINING, *OTHERS, "configure_"))
            if called and inspect.isfunction(function) and name in function.__code__.co_names:
                yield method

"""The fields of the usual tasks: their losses, counts and metrics, and what they offer to the model.

torch is imported in the functions: the command line imports this module.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

Fields = dict[str, Any]
IGNORED = -100  # the label that PyTorch's losses leave out by default (`ignore_index`)


def classification(train: Any, val: Any, class_weights: "Sequence[float] | Tensor | None") -> Fields:
    """Of `Task.classification`."""
    import torch.nn.functional as F

    def loss(outputs: "Tensor", batch: Any) -> "Tensor":
        return F.cross_entropy(outputs, batch[1], reduction="none")

    def metrics(outputs: "Tensor", batch: Any) -> "dict[str, Tensor]":
        return {"accuracy": (outputs.argmax(dim=1) == batch[1]).float()}

    def labelled(outputs: "Tensor", batch: Any) -> "dict[str, Tensor]":
        return {name: values[batch[1] != IGNORED] for name, values in metrics(outputs, batch).items()}

    offered: dict[str, object] = {}
    if _stacked(train):
        inputs, classes = train[0], int(train[1].max()) + 1
        if _stacked(val):  # a class may be missing from a small training set
            classes = max(classes, int(val[1].max()) + 1)
        offered = {"num_classes": classes, "input_shape": tuple(inputs.shape[1:])}
    chosen: Fields = {
        "loss": loss,
        "metrics": metrics,
        "higher_is_better": {"accuracy": True},
        "model_args": offered,
        "labels": lambda batch: batch[1],
    }
    ignored = any(_stacked(part) and _has_ignored(part[1], IGNORED) for part in (train, val))
    if ignored:
        chosen |= {"metrics": labelled, "count": _not_ignored, "labels": None}
    if class_weights is not None:
        chosen |= {"metrics": metrics, **_weighted(loss, class_weights, offered.get("num_classes"))}
    return chosen


def _weighted(loss: "Callable[..., Tensor]", class_weights: "Sequence[float] | Tensor", classes: object) -> Fields:
    """The loss and the count of PyTorch's weighted mean: the sum of weighted losses over the sum of the weights."""
    import torch

    weights = torch.as_tensor(class_weights).detach().double()
    if weights.dim() != 1 or not bool(weights.isfinite().all()) or bool((weights < 0).any()) or not bool(weights.any()):
        raise BadRequest(
            "class_weights must be one number for each class, at least 0 and not all 0, such as [1.0, 20.0]"
        )
    if isinstance(classes, int) and len(weights) < classes:
        raise BadRequest(
            f"class_weights has {len(weights)} weights, but the labels have {classes} classes: give each one"
        )
    by_device: dict[torch.device, Tensor] = {}

    def of_labels(labels: "Tensor") -> "Tensor":
        if labels.device not in by_device:
            by_device[labels.device] = weights.to(labels.device)
        return by_device[labels.device][labels.clamp(min=0).long()] * (labels != IGNORED)

    def weighted(outputs: "Tensor", batch: Any) -> "Tensor":
        losses = loss(outputs, batch)
        return losses * of_labels(batch[1]).to(torch.promote_types(losses.dtype, torch.float32))

    return {"loss": weighted, "count": lambda batch: of_labels(batch[1]).sum()}


def regression(train: Any) -> Fields:
    """Of `Task.regression`."""

    def loss(outputs: "Tensor", batch: Any) -> "Tensor":
        targets: Tensor = batch[1]
        if outputs.shape == (*targets.shape, 1):
            targets = targets.unsqueeze(-1)
        # (examples, 1) - (examples,) would broadcast to all pairs of outputs and targets.
        _refuse_unequal("targets", outputs, targets)
        return (outputs - targets).square().reshape(len(targets), -1).mean(dim=1)

    offered: dict[str, object] = {}
    if _stacked(train):
        shape = tuple(train[1].shape[1:])
        offered = {"num_outputs": (shape or (1,))[0] if len(shape) < 2 else shape}
        offered["input_shape"] = tuple(train[0].shape[1:])
    return {"loss": loss, "model_args": offered}


def windows(tokens: "Tensor", context: int) -> "tuple[Tensor, Tensor]":
    """Adjacent windows of the tokens, and of their next tokens."""
    if len(tokens) <= context:
        raise ValueError(f"{len(tokens)} tokens make no window of context={context} and the next token")
    cut = tokens.unfold(0, context + 1, context)
    return cut[:, :-1].contiguous(), cut[:, 1:].contiguous()


def language_model(train_tokens: "Tensor", val_tokens: "Tensor", context: int) -> Fields:
    """Of `Task.language_model`."""
    import torch.nn.functional as F

    def loss(outputs: "Tensor", batch: Any) -> "Tensor":
        return F.cross_entropy(outputs.flatten(0, 1), batch[1].flatten(), reduction="none")

    ignored = _has_ignored(train_tokens, IGNORED) or _has_ignored(val_tokens, IGNORED)
    return {
        "loss": loss,
        "count": _not_ignored if ignored else _places,
        "model_args": {"vocabulary": int(max(train_tokens.max(), val_tokens.max())) + 1, "context": context},
    }


def multilabel(train: Any, val: Any) -> Fields:
    """Of `Task.multilabel`."""
    import torch.nn.functional as F

    def loss(outputs: "Tensor", batch: Any) -> "Tensor":
        _refuse_unequal("labels", outputs, batch[1])
        terms = F.binary_cross_entropy_with_logits(outputs, batch[1].to(outputs.dtype), reduction="none")
        return terms.flatten(1).mean(dim=1)

    def metrics(outputs: "Tensor", batch: Any) -> "dict[str, Tensor]":
        right = ((outputs > 0) == (batch[1] > 0.5)).flatten(1)
        return {"label_accuracy": right.double().mean(dim=1), "exact_match": right.all(dim=1).float()}

    for part in (train, val):
        if _stacked(part) and (part[1].dim() < 2 or part[1].min() < 0 or part[1].max() > 1):
            raise BadRequest(
                f"the labels of Task.multilabel have shape {tuple(part[1].shape)} and values from {part[1].min():g} to "
                f"{part[1].max():g}: give (examples, labels) of 0 and 1, or if an example has one class, "
                "Task.classification"
            )
    offered: dict[str, object] = {}
    if _stacked(train):
        offered = {"num_classes": train[1].shape[1], "input_shape": tuple(train[0].shape[1:])}
    directions = {"label_accuracy": True, "exact_match": True}
    return {"loss": loss, "metrics": metrics, "higher_is_better": directions, "model_args": offered}


def segmentation(train: Any, val: Any, ignore_index: int) -> Fields:
    """Of `Task.segmentation`."""
    import torch.nn.functional as F

    def loss(outputs: "Tensor", batch: Any) -> "Tensor":
        masks: Tensor = batch[1]
        if outputs.dim() < 3 or outputs.shape[:1] + outputs.shape[2:] != masks.shape:
            raise ValueError(
                f"outputs {tuple(outputs.shape)} do not match masks {tuple(masks.shape)}: outputs must be (examples, "
                "classes, height, width) and masks (examples, height, width)"
            )
        # long(), because -100 would be 156 in uint8
        return F.cross_entropy(outputs, masks.long(), reduction="none", ignore_index=ignore_index).flatten()

    def metrics(outputs: "Tensor", batch: Any) -> "dict[str, Tensor]":
        masks = batch[1].long()
        return {"pixel_accuracy": ((outputs.argmax(dim=1) == masks) & (masks != ignore_index)).float().flatten()}

    def count(batch: Any) -> "Tensor":
        kept: Tensor = (batch[1].long() != ignore_index).sum()
        return kept

    parts = [part for part in (train, val) if _stacked(part)]
    for part in parts:
        if part[1].is_floating_point() or part[1].is_complex():
            raise BadRequest(
                f"the masks of Task.segmentation are {part[1].dtype}: give the class of each pixel, an integer"
            )
    offered: dict[str, object] = {}
    if _stacked(train):
        classes = max(int(part[1].long().where(part[1].long() != ignore_index, -1).max()) for part in parts) + 1
        offered = {"num_classes": classes, "input_shape": tuple(train[0].shape[1:])}
    known = len(parts) == 2 and not any(_has_ignored(part[1], ignore_index) for part in parts)
    return {
        "loss": loss,
        "metrics": metrics,
        "higher_is_better": {"pixel_accuracy": True},
        "count": _places if known else count,
        "model_args": offered,
    }


def _stacked(part: Any) -> bool:
    """Whether a set is a tuple of tensors, not a Dataset or a list of examples."""
    return isinstance(part, Sequence) and hasattr(part[1], "dim")


def _refuse_unequal(name: str, outputs: "Tensor", targets: "Tensor") -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} do not match {name} {tuple(targets.shape)}")


def _has_ignored(labels: "Tensor", ignored: int) -> bool:
    # uint8 would compare -100 with 156.
    return bool((ignored >= 0 or getattr(labels.dtype, "is_signed", True)) and (labels == ignored).any())


def _not_ignored(batch: Any) -> "Tensor":
    """The labels of a batch that are not ignored, 0-d."""
    count: Tensor = (batch[1] != IGNORED).sum()
    return count


def _places(batch: Any) -> int:
    """The labels of a batch."""
    return int(batch[1].numel())

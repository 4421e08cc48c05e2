"""The fields of `Task.from_hugging_face`: a model of transformers that computes its loss from the labels."""

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchlab.adapters.installed import require
from batchlab.errors import BadRequest
from batchlab.printable import listed

if TYPE_CHECKING:
    from torch import Tensor


def fields(model: Any, ignored: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Of `Task.from_hugging_face`, without the data; labels that are `ignored` are no terms. `changes` are the user's
    own fields, and replace the model's."""
    require("Task.from_hugging_face", "Hugging Face's transformers", "transformers")
    if not isinstance(model, type) and not hasattr(model, "named_parameters"):
        raise BadRequest(
            f"Task.from_hugging_face was given {model!r}: give the class of the model, such as BertForMaskedLM or "
            "AutoModelForCausalLM; the model itself is built by model._target_"
        )
    from transformers import default_data_collator

    made = {
        "collate": default_data_collator,  # as Trainer does
        "count": functools.partial(count, shifted=shifts_labels(model), ignored=ignored),
    }
    return made | ({} if "training_loss" in changes else {"loss": loss}) | dict(changes)


def shifts_labels(model: Any) -> bool:
    """Whether its loss compares each output with the label of the next place, so that the first label is no term."""
    kind = model if isinstance(model, type) else type(model)
    names = " ".join(base.__name__ for base in kind.__mro__)
    if "ForConditionalGeneration" in names:  # of an encoder and a decoder, or of pictures and text
        config = getattr(model, "config", None) or getattr(kind, "config_class", None)
        return not getattr(config, "is_encoder_decoder", True)
    return ("ForCausalLM" in names or "LMHeadModel" in names) and _shifts(kind)


def _shifts(kind: type) -> bool:
    """Whether forward shifts the labels, itself or in transformers' common `loss_function`; decoders of pairs, as
    BartForCausalLM, and XLNet compare each output with the label of its own place."""
    code = getattr(inspect.unwrap(getattr(kind, "forward", None)), "__code__", None)  # type: ignore[arg-type]
    if code is None:  # an automatic class
        return True
    names = (*code.co_names, *code.co_varnames)
    return "loss_function" in names or any(name.startswith("shift_l") for name in names)  # shift_logits, shift_labels


def loss(outputs: Any, batch: Any) -> "Tensor":
    """The loss in the output of the model."""
    found: Tensor | None = getattr(outputs, "loss", None)
    if found is None:
        given = listed(list(batch), 10) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise BadRequest(
            f"the model returned a {type(outputs).__name__} without a loss for a batch of {given}: batches must be "
            "dicts with labels, and the model must have a head, as BertForSequenceClassification has"
        )
    return found


def count(batch: Any, *, shifted: bool, ignored: int) -> "int | Tensor":
    """The labels that are not `ignored`, of which the loss is the mean; the examples, if labels are no classes."""
    labels: Any = batch.get("labels")
    if not hasattr(labels, "is_floating_point") or labels.is_floating_point():  # or a list of dicts, of a detector
        return len(next(value for value in batch.values() if hasattr(value, "dim")))
    counted: Tensor = ((labels[..., 1:] if shifted else labels) != ignored).sum()
    return counted

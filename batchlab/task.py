"""The contract for the user's data: the examples, the forward pass of a batch, and the loss."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batchlab import usual_tasks
from batchlab.adapters import lightning_module, transformers_model
from batchlab.errors import BadRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Batch = Any  # a tree of tensors, first axis = example; or what `collate` returned
REDUCTIONS = ("none", "mean", "sum", "batch")


def _forward(model: "nn.Module", batch: Batch) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(batch[0])
    return model(getattr(batch, fields(batch)[0].name) if is_dataclass(batch) else batch)


def _examples(batch: Batch) -> int:
    """Of a batch that batchlab stacked: the length of its first tensor."""
    while not hasattr(batch, "dim"):
        if isinstance(batch, Mapping):
            batch = next(iter(batch.values()))
        else:
            batch = getattr(batch, fields(batch)[0].name) if is_dataclass(batch) else batch[0]
    return len(batch)


def _merged(chosen: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The fields that a constructor has `chosen`, with the user's `changes`."""
    if "loss" not in changes and "training_loss" not in changes:
        return {"reduction": "none", **chosen, **changes}
    left_out = {"loss"} & {*chosen} if "training_loss" in changes else set()
    if left_out and "forward" not in changes:  # no outputs, so no metrics of them
        left_out |= {"metrics", "higher_is_better"}
    return {name: value for name, value in chosen.items() if name not in left_out} | changes


def _refuse_unusable(name: str, metric: Any) -> None:
    if name == "loss":
        raise BadRequest("whole_metrics has a metric named 'loss', but val/loss is the loss of the task: rename it")
    missing = [method for method in ("update", "compute", "reset") if not callable(getattr(metric, method, None))]
    if missing or isinstance(metric, type):
        why = f"has no method {' or '.join(missing)}" if missing else "is a class"
        raise BadRequest(
            f"whole_metrics['{name}'] {why}: give an object with update(outputs, batch), compute() and reset(), such "
            "as one of torchmetrics; a function that gives a value for each term belongs in metrics=..."
        )


def _no_metrics(outputs: Any, batch: Batch) -> "dict[str, Tensor]":
    del outputs, batch
    return {}


class Loaders:
    """A set whose batches a `DataLoader` of the user makes: `train` or `val` of `Task.from_loaders`."""

    def __init__(self, make_loader: Callable[[str, int, int], Any], split: str, size: int | None) -> None:
        self.make_loader = make_loader
        self.split = split
        self.size = size  # examples of a pass; None: as its data or sampler says


@dataclass(frozen=True, kw_only=True, eq=False)  # eq would compare tensors, which does not give a bool
class Task:
    """What `data._target_` returns. A batch is a tree of tensors, first axis = example: a tuple, list, dict, named
    tuple or dataclass of them, nested as you have them; strings and None are in it as a list.

    `train` and `val` are such a tree holding the whole set, or a map-style `Dataset` (or a list) of single examples; if
    these do not stack, `collate` makes a batch of them. A Dataset is read once and kept; or if it is large, or draws
    random numbers (augmentation), read whenever a batch needs it, with random numbers that depend on the seed and the
    place in the data order. Open files at the first read, in `__getitem__`: worker processes share a file that is open
    before, including its position.
    The loss is a vector of terms, one for each example (or token), **not averaged**: batchlab weighs by count, so that
    a smaller micro-batch has a smaller weight. Or 0-d, the mean over the terms, as in most training scripts; then what
    needs the loss of single examples is not measured. `reduction` says what it is, if its shape does not. A pair
    (losses, weights) is a weighted mean: the sum of the first over the sum of the second, in training and validation.
    """

    train: Any
    val: Any
    # (outputs, batch) -> (terms,), 0-d, or (losses, weights). A module with parameters is trained with the model, at
    # the same learning rate.
    loss: "Callable[[Any, Batch], Any] | None" = None
    # Instead of `loss`, for a model that computes its loss itself: (model, batch) -> what a loss returns.
    training_loss: "Callable[[nn.Module, Batch], Any] | None" = None
    # What the loss is: `none` (a vector of terms), `mean` (0-d, over the terms), `sum` (0-d, and so is the objective:
    # its gradient is not divided), or `batch` (0-d, of the batch as a whole: contrastive, Dice). None: by its shape.
    reduction: str | None = None
    forward: "Callable[[nn.Module, Batch], Any]" = _forward  # default: model(batch[0]), model(**batch) for a dict
    metrics: "Callable[[Any, Batch], dict[str, Tensor]]" = _no_metrics  # each (terms,), averaged at validation
    # What is no mean over terms (F1, AUROC, BLEU), by name: objects with update(outputs, batch), or torchmetrics'
    # update(preds, target), which gets batch[1]; compute() and reset(). Computed from the whole validation set.
    whole_metrics: Mapping[str, Any] = field(default_factory=dict)
    # The denominator of a batch's loss, known before the forward pass: its terms, those that are not ignored, or a sum
    # of weights; a number or a 0-d tensor, and 0 for a batch without terms.
    count: "Callable[[Batch], float | Tensor]" = _examples
    higher_is_better: Mapping[str, bool] = field(
        default_factory=dict
    )  # for each metric that is used in a target or a best value
    model_args: Mapping[str, object] = field(default_factory=dict)  # offered to the model's factory by name
    labels: "Callable[[Batch], Tensor] | None" = None  # (examples,) class of each example
    corrupted: "Tensor | None" = None  # (n_train,) whether each training label was replaced by a wrong one
    uncorrupted: Any = None  # `train` with the original, correct labels, a tuple or dict of tensors like it
    # Randomly changes training batches, on the device: (batch, draws) -> batch. `draws` (examples,) int64 is one
    # number per example, which depends on the run's seed and the place in the data order alone: `batchlab.uniform`
    # makes more from it. Validation and instruments use the examples unchanged.
    augment: "Callable[[Batch, Tensor], Batch] | None" = None
    # The parameter groups of the model, as an optimizer takes them: dicts of `params` and options. The `lr` of a group
    # is a multiple of the run's, 1 by default. Parameters of a loss that are in none of them get a group of their own.
    parameter_groups: "Callable[[nn.Module], Sequence[Mapping[str, Any]]] | None" = None
    # Hooks. What the object that they belong to returns from `state_dict` is in checkpoints; see `training/hooks.py`.
    after_step: "Callable[[nn.Module, int], object] | None" = None  # (model, step), after each step, from 1 on
    on_epoch: Callable[[int, int], object] | None = None  # (epoch, seed), before the first step of each, from 0 on
    evaluate_with: "Callable[[nn.Module], nn.Module] | None" = None  # what is validated in place of the model

    # For examples that do not stack (graphs, boxes, sequences): a list of examples -> a batch of exactly these. It is
    # called for each micro-batch, and the batch is moved to the device; its functions get it as it was returned.
    collate: "Callable[[list[Any]], Batch] | None" = None
    # The order of the training examples, if not a permutation of all in each epoch: called for each epoch, with a seed
    # that depends on the run's seed and the epoch -> indices, equally many in each epoch; their number is the epoch.
    sampler: Callable[[int], Iterable[int]] | None = None
    cost: Callable[[Any], float] | None = None  # of one example, in any unit: what makes it expensive, as its length
    # (model, optimizer) of the run, before the first step -> sentences for its record, such as what is left out.
    remarks: "Callable[[nn.Module, torch.optim.Optimizer], Iterable[str]] | None" = None

    def __post_init__(self) -> None:
        if (self.loss is None) == (self.training_loss is None):
            raise BadRequest(
                f"the Task has {'neither loss nor' if self.loss is None else 'both loss and'} training_loss: give "
                "loss=..., a function of (outputs, batch), or training_loss=..., one of (model, batch) for a model "
                "that computes its loss itself"
            )
        if self.reduction is not None and self.reduction not in REDUCTIONS:
            raise BadRequest(
                f"the Task's reduction={self.reduction!r} is unknown: use one of {', '.join(REDUCTIONS)}, or None, "
                "which goes by the shape of the loss"
            )
        for name, metric in self.whole_metrics.items():
            _refuse_unusable(name, metric)
        known = {name: getattr(metric, "higher_is_better", None) for name, metric in self.whole_metrics.items()}
        if own := {name: better for name, better in known.items() if isinstance(better, bool)}:
            object.__setattr__(self, "higher_is_better", own | {**self.higher_is_better})

    @property
    def passes_first_value(self) -> bool:
        """Whether the model gets the first value of a batch (of a dict all values): there is no other `forward`."""
        return self.forward is _forward

    @classmethod
    def classification(
        cls, train: Any, val: Any, *, class_weights: "Sequence[float] | Tensor | None" = None, **changes: Any
    ) -> "Task":
        """Inputs and class indices: cross-entropy per example, and accuracy.

        `train` and `val` are `(inputs, labels)` tuples (or Datasets of such pairs); the model's outputs are
        logits (examples, classes). Offers `num_classes` and `input_shape` to the model if `train` is a tuple.
        Labels of -100 are no terms: they have no loss and do not count. With `class_weights`, a number for each class,
        the loss is PyTorch's weighted mean in training and validation: divided by the sum of the examples' weights.
        """
        if class_weights is not None and {"loss", "training_loss"} & {*changes}:
            raise BadRequest(
                "class_weights belongs to the loss of Task.classification, which loss=... or training_loss=... "
                "replaces: multiply by the weights there, and give their sum over the batch as count=..."
            )
        return cls(train=train, val=val, **_merged(usual_tasks.classification(train, val, class_weights), changes))

    @classmethod
    def regression(cls, train: Any, val: Any, **changes: Any) -> "Task":
        """Inputs and targets (examples, ...): squared error, averaged over the outputs of an example.

        Targets (examples,) also accept outputs (examples, 1). Offers `num_outputs` (a tuple if targets have more than
        two axes) and `input_shape` to the model if `train` is a tuple.
        """
        return cls(train=train, val=val, **_merged(usual_tasks.regression(train), changes))

    @classmethod
    def language_model(
        cls, train_tokens: "torch.Tensor", val_tokens: "torch.Tensor", context: int, **changes: Any
    ) -> "Task":
        """Next-token prediction: cross-entropy per token, over adjacent windows of `context` tokens.

        Tokens are 1-d int64; the model maps (examples, context) to logits (examples, context, vocabulary).
        Offers `vocabulary` and `context` to the model. Tokens after the last whole window are not used.
        """
        train, val = (usual_tasks.windows(tokens, context) for tokens in (train_tokens, val_tokens))
        return cls(
            train=train, val=val, **_merged(usual_tasks.language_model(train_tokens, val_tokens, context), changes)
        )

    @classmethod
    def multilabel(cls, train: Any, val: Any, **changes: Any) -> "Task":
        """Inputs and labels (examples, labels) of 0 and 1, any number of them 1: binary cross-entropy, averaged over
        the labels of an example; `label_accuracy`, the share of right labels, and `exact_match`, whether all are right.

        The model's outputs are logits (examples, labels). Offers `num_classes`, the number of labels, and
        `input_shape` to the model if `train` is a tuple.
        """
        return cls(train=train, val=val, **_merged(usual_tasks.multilabel(train, val), changes))

    @classmethod
    def segmentation(cls, train: Any, val: Any, ignore_index: int = 255, **changes: Any) -> "Task":
        """Images and masks (examples, height, width) of class indices: cross-entropy per pixel, and `pixel_accuracy`.

        Pixels of `ignore_index` are no terms: they have no loss and do not count. The model's outputs are logits
        (examples, classes, height, width). Offers `num_classes` and `input_shape` to the model if `train` is a tuple.
        """
        return cls(train=train, val=val, **_merged(usual_tasks.segmentation(train, val, ignore_index), changes))

    @classmethod
    def from_loaders(
        cls,
        make_loader: Callable[[str, int, int], Any],
        *,
        train_size: int | None = None,
        val_size: int | None = None,
        **changes: Any,
    ) -> "Task":
        """Batches of your own DataLoader: iterable data, samplers, `collate_fn`, workers.

        `make_loader(split, batch_size, seed)` returns a new DataLoader for `split` "train" or "val", which gives
        batches of `batch_size`; it is called for each pass over the data, with a seed that depends on the run's seed
        and the pass. `train_size` and `val_size` are the examples of a pass, for data or samplers without a length.
        `changes` are the other fields of the Task, such as `loss`.
        """
        if taken := {"train", "val", "collate", "sampler"} & {*changes}:
            raise BadRequest(
                f"Task.from_loaders was given {', '.join(sorted(taken))}, which the loader decides: let make_loader "
                "return a DataLoader with this data, collate_fn and sampler"
            )
        for name, size in (("train_size", train_size), ("val_size", val_size)):
            if size is not None and (type(size) is not int or size < 1):
                raise BadRequest(f"{name}={size!r} was given to Task.from_loaders: give a number of examples above 0")
        return cls(
            train=Loaders(make_loader, "train", train_size), val=Loaders(make_loader, "val", val_size), **changes
        )

    @classmethod
    def from_lightning(
        cls, module: Any, data: Any = None, *, logged: Mapping[str, bool] = MappingProxyType({}), **changes: Any
    ) -> "Task":
        """A LightningModule with automatic optimization: the loss is that of its `training_step`, and the parameter
        groups are those of the optimizer of its `configure_optimizers`.

        `module` is the class that `model._target_` builds. `data` is a LightningDataModule, whose loaders must use its
        `batch_size`, or a `make_loader` as of `from_loaders`; or give `train=` and `val=`, as of any Task. `logged`
        names what `validation_step` logs and is to be measured, with whether higher is better. The run's optimizer,
        learning rate and schedule are batchlab's; whatever of the module is not used is refused, or said in the record.
        """
        chosen = lightning_module.fields(module, logged, changes)
        if data is not None:
            return cls.from_loaders(lightning_module.make_loader_of(data), **chosen)
        if not {"train", "val"} <= {*changes}:
            raise BadRequest(
                "Task.from_lightning was given no data: give a LightningDataModule, a function make_loader(split, "
                "batch_size, seed), or train=... and val=..."
            )
        return cls(**chosen)

    @classmethod
    def from_hugging_face(cls, model: Any, train: Any, val: Any, **changes: Any) -> "Task":
        """A model of transformers that returns its loss if it is given labels, and Datasets of its arguments.

        `model` is the class that `model._target_` builds, or an automatic one, `AutoModelForCausalLM`: it says which
        labels are terms of the loss. `collate` is a data collator, by default transformers' `default_data_collator`.
        Metrics get the output of the model: `outputs.logits`.
        """
        return cls(train=train, val=val, **transformers_model.fields(model, usual_tasks.IGNORED, changes))


def changed(task: Task, **changes: Any) -> Task:
    """A copy with other fields. Not `dataclasses.replace`: it would call the constructor of the user's subclass."""
    other = copy.copy(task)
    for name, value in changes.items():
        object.__setattr__(other, name, value)
    return other

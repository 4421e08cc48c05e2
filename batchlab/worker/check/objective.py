"""Whether the loss and the target are what they seem: activations twice, parameters elsewhere, values out of reach."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchlab.config import RunConfig
from batchlab.records.quantities import OF_VALIDATION, VALIDATION_LOSS
from batchlab.task import Batch
from batchlab.training.passes.observing import close
from batchlab.worker.check.data_sample import Sample
from batchlab.worker.check.findings import Finding, wrong
from batchlab.worker.check.passes import Passes

EXACT = 1e-4  # between two losses that are equal up to rounding in fp32
# Operations that change the shape of their input alone.
VIEWS = ("View", "Squeeze", "Unsqueeze", "Reshape", "Permute", "Transpose", "TBackward", "Clone", "ToCopy", "Select")
SCALES = (1.0, 3.0, 10.0)


def objective(passes: Passes) -> Iterator[Finding]:
    """Whether all parameters of the loss are trained, and the loss gets what it expects: logits or probabilities."""
    own = {id(p) for p in passes.losses.trained.parameters()}
    if foreign := [p for p in _parameters(passes.seen.terms) if id(p) not in own]:
        yield wrong(
            "loss",
            f"the loss uses a parameter of shape {tuple(foreign[0].shape)} that neither the model nor the loss holds, "
            "so that it is not trained",
            "make the loss an nn.Module that has it, Task(loss=MyLoss()), and it is trained and saved with the model; "
            "or call requires_grad_(False) on it",
        )
    outputs = passes.seen.outputs
    if passes.losses.is_joined or not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        return
    if outputs.dim() > 1 and outputs.numel() > len(outputs):
        yield from _misused(passes)
    if _last_operation(outputs).startswith("Sigmoid"):
        yield from _sigmoid_twice(passes)


def _misused(passes: Passes) -> Iterator[Finding]:
    """A softmax before cross-entropy, or none before the negative log-likelihood."""
    outputs = passes.outputs(passes.batch).detach()
    try:
        base, shifted, tripled = (_loss(passes, changed) for changed in (outputs, outputs + 1, outputs * 3))
    except (Exception, SystemExit):  # a loss may accept probabilities alone
        return
    if not all(bool(torch.isfinite(loss).all()) for loss in (base, shifted, tripled)) or close(base, tripled, EXACT):
        return
    axes = {1, outputs.dim() - 1}
    if close(base, shifted, EXACT):  # it normalises what it gets
        if bool((outputs >= 0).all()) and any(_is_one(outputs.sum(axis)) for axis in axes):
            yield wrong(
                "loss",
                "a softmax is applied twice: the outputs are probabilities (no less than 0, and their sum is 1), and "
                "the loss applies a softmax itself, as cross_entropy does, so it cannot get near 0",
                "remove the softmax from the model: cross_entropy expects logits",
            )
    elif (
        close(base * 3, tripled, EXACT)
        and _takes_one_off(passes, base - shifted)
        and not any(_is_one(outputs.logsumexp(axis).exp()) for axis in axes)
    ):
        yield wrong(
            "loss",
            "the loss is the negative of one output, as nll_loss is, and the outputs are no log-probabilities: it "
            "falls without bound",
            "use cross_entropy, which expects logits, or end the model with log_softmax",
        )


def _sigmoid_twice(passes: Passes) -> Iterator[Finding]:
    """A sigmoid before a loss that applies one itself.

    Such a loss is softplus(z) - yz, so that the losses of z and -z add up to 2 softplus(z) - z, whatever y is.
    """
    outputs = passes.outputs(passes.batch).detach()
    ratios = []
    for scale in SCALES:
        z = outputs * scale
        try:
            total = float((_loss(passes, z) + _loss(passes, -z)).sum())
        except (Exception, SystemExit):  # binary_cross_entropy accepts no other numbers
            return
        ratios.append(total / float((2 * F.softplus(z.double()) - z.double()).sum()))
    if all(math.isclose(ratio, ratios[0], rel_tol=EXACT) for ratio in ratios):
        yield wrong(
            "loss",
            "a sigmoid is applied twice: the model ends with one, and the loss applies one itself, as "
            "binary_cross_entropy_with_logits does, so it cannot get near 0",
            "remove the sigmoid from the model: this loss expects logits",
        )


def target(passes: Passes, sample: Sample, config: RunConfig) -> Iterator[Finding]:
    """Whether the target's value can be reached by any outputs, as far as scaled and random outputs show."""
    goal, task = config.target, passes.losses.task
    if goal is None or passes.losses.is_joined:
        return
    is_loss, name = goal.metric == VALIDATION_LOSS.name, goal.metric.removeprefix(OF_VALIDATION)
    outputs = passes.outputs(sample.val)
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        return
    draws = torch.Generator().manual_seed(0)
    noise = [torch.randn(outputs.shape, generator=draws).to(outputs) for _ in SCALES]
    scales = (*SCALES, *(-scale for scale in SCALES))
    changed = [outputs, *(base * scale for base in (outputs, *noise) for scale in scales)]
    found = [_measured(passes, name, of, sample.val) for of in changed]
    seen = [values for values in found if values is not None]
    if not seen:
        return
    values = torch.cat(seen)
    low, high, kinds = float(values.min()), float(values.max()), len(set(values.tolist()))
    higher = not is_loss and task.higher_is_better.get(name, False)
    bound = None
    if higher and (kinds == 2 or (kinds > 2 and 0 <= low <= high <= 1)):
        bound = high if kinds == 2 else 1.0
    elif not higher and low >= 0:
        bound = 0.0
    if bound is not None and (goal.value > bound if higher else goal.value < bound):
        yield wrong(
            "target",
            f"target.value={goal.value:g} cannot be reached: {goal.metric} is never {'above' if higher else 'below'} "
            f"{bound:g}",
            f"give a value {'up to' if higher else 'above'} {bound:g}{', a fraction and not a percentage' * higher}",
        )


def _measured(passes: Passes, name: str, outputs: Tensor, batch: Batch) -> Tensor | None:
    """The values of a metric, or of the loss, for these outputs; None if there are none."""
    if name == VALIDATION_LOSS.name.removeprefix(OF_VALIDATION):
        try:
            return _loss(passes, outputs, batch)
        except (Exception, SystemExit):  # a loss may accept probabilities alone
            return None
    values = passes.metrics(outputs, batch).get(name)
    return None if values is None else values.detach().flatten().double().cpu()


def _loss(passes: Passes, outputs: Tensor, batch: Batch = None) -> Tensor:
    """The losses of these outputs that add up to the summed loss."""
    return passes.summed(outputs, passes.batch if batch is None else batch)[0].detach().flatten().double().cpu()


def _is_one(sums: Tensor) -> bool:
    return bool((sums - 1).abs().max() < EXACT)


def _takes_one_off(passes: Passes, differences: Tensor) -> bool:
    """Whether each term (or none, if it is ignored) is lower by 1 where all outputs are higher by 1."""
    if passes.losses.is_scalar:
        return math.isclose(float(differences), passes.losses.count(passes.batch), rel_tol=EXACT)
    near = [(differences - value).abs() < EXACT for value in (0, 1)]
    return bool((near[0] | near[1]).all()) and bool(near[1].any())


def _parameters(terms: Tensor) -> Iterator[nn.Parameter]:
    """The parameters in the autograd graph of `terms`."""
    seen, ahead = set(), [terms.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            yield variable
        ahead += [following for following, _ in node.next_functions]


def _last_operation(outputs: Tensor) -> str:
    """The name of the operation that made the outputs, such as `SigmoidBackward0`, before any views."""
    node = outputs.grad_fn
    while node is not None and any(view in node.name() for view in VIEWS):
        node = node.next_functions[0][0]
    return "" if node is None else node.name()

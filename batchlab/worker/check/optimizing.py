"""Whether the optimizer trains all parameters, at the learning rates that were requested."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch

from batchlab.config import RunConfig
from batchlab.training.updates.optimizer import (
    build_optimizer,
    group_multiples,
    peak_lr,
    signature_defaults,
    untrained,
)
from batchlab.worker.check.findings import Finding, better, wrong
from batchlab.worker.check.passes import Passes

FAR = 1e3  # between the learning rate of a group and that of the run
OF_THE_WEIGHTS = 0.5  # that one step of Adam may change
LIKE_ADAM = ("adam", "lion")  # in their names: each step changes each weight by about the learning rate


def optimizer(passes: Passes, config: RunConfig) -> Iterator[Finding]:
    """Whether the option `lr` reaches the groups, all parameters are in one, and `lr` fits Adam."""
    model, task = passes.model, passes.losses.task
    built = build_optimizer(config, model, task)
    if "lr" in signature_defaults(config):
        doubled = build_optimizer(replace(config, lr=2 * config.lr), model, task)
        pairs = list(zip(built.param_groups, doubled.param_groups, strict=True))
        fixed = [position for position, (one, two) in enumerate(pairs) if one["lr"] and one["lr"] == two["lr"]]
        if fixed:
            value = f"{float(built.param_groups[fixed[0]]['lr']):g}"
            all_of_them = len(fixed) == len(pairs)
            yield (wrong if all_of_them else better)(
                "optimizer",
                f"{'the optimizer has' if all_of_them else f'parameter group {fixed[0]} has'} learning rate {value}, "
                "whatever lr is",
                "set each group's lr from the `lr` that the optimizer is called with, such as lr / 10",
            )
            return
    multiples = group_multiples(config, built)
    far = [position for position, multiple in enumerate(multiples) if multiple and not 1 / FAR < multiple < FAR]
    if task.parameter_groups is not None and far:
        yield better(
            "optimizer",
            f"parameter group {far[0]} is trained at {multiples[far[0]]:g} times the learning rate of the run, "
            f"{float(built.param_groups[far[0]]['lr']):.3g}",
            "the lr of a group in parameter_groups is a multiple: 0.1 for a tenth",
        )
    for sentence in untrained(passes.losses.trained, built):
        yield better("optimizer", sentence, "add them to a group, or call requires_grad_(False) on them")
    if any(name in type(built).__name__.lower() for name in LIKE_ADAM):
        yield from _steps_of_adam(passes, config)


def _steps_of_adam(passes: Passes, config: RunConfig) -> Iterator[Finding]:
    """Adam changes each weight by about the learning rate in a step, whatever the gradient is."""
    matrices = [p.detach() for p in passes.model.parameters() if p.requires_grad and p.dim() > 1]
    sizes = [float(p.abs().square().mean().sqrt()) for p in matrices if not torch.nn.parameter.is_lazy(p)]
    sizes = [size for size in sizes if size]
    lr = peak_lr(config)
    if sizes and lr > OF_THE_WEIGHTS * (typical := statistics.median_low(sizes)):
        name = str(config.optimizer["_target_"]).rpartition(".")[2]
        yield better(
            "optimizer",
            f"lr={lr:.3g} is large for {name}, which changes each weight by about lr in a step: the weights of a layer "
            f"are {typical:.2g} (root mean square)",
            "use a learning rate that belongs to it, such as lr=0.001; one for SGD is often a hundred times larger",
        )

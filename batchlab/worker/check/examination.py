"""`batchlab check`, in the process that has the model: runs the trials in order."""

from collections.abc import Callable, Iterable

from batchlab.config import RunConfig, target_name
from batchlab.training import assembly
from batchlab.training.data.batches import slices
from batchlab.training.devices.precision import Precision
from batchlab.training.hooks import begin_epoch
from batchlab.training.losses import Losses
from batchlab.training.passes.contract_passes import training_pass
from batchlab.training.passes.reduction import with_reduction
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check import behaviour, fitting, learning, pace
from batchlab.worker.check.data_sample import Sample, sampled
from batchlab.worker.check.findings import Checkup, Finding, is_wrong, ok, wrong
from batchlab.worker.check.passes import Passes

EXAMPLES = 8  # that are passed together and one by one
LARGER = 33  # that are passed together, to compare the count and the loss of unequal parts

Trial = Callable[[Passes, Sample, RunConfig], Iterable[Finding]]

# In this order; True: if this trial fails, the later ones are skipped.
TRIALS: tuple[tuple[str, bool, Trial], ...] = (
    ("dtype", True, lambda passes, _, __: fitting.dtypes(passes)),
    ("shapes", True, lambda passes, _, __: fitting.forward_and_loss(passes)),
    ("input", False, lambda passes, _, __: behaviour.in_place(passes)),
    ("random", True, lambda passes, _, __: behaviour.randomness(passes)),
    ("alone", False, lambda passes, _, __: behaviour.independence(passes)),
    ("terms", False, lambda passes, _, __: behaviour.terms(passes)),
    ("BatchNorm", False, lambda passes, _, config: behaviour.batch_norm(passes, config)),
    ("metrics", False, lambda passes, sample, _: fitting.metrics(passes, sample)),
    ("gradient", True, lambda passes, _, __: behaviour.gradient(passes)),
    ("speed", False, lambda passes, sample, _: pace.speed(passes, sample)),
    ("learns", False, lambda passes, sample, config: learning.learning(passes, sample, config)),  # changes the weights
)


def examine(config: RunConfig) -> Checkup:
    """Tries the data and then the model of the config, on a few examples, with its initial weights, in fp32."""
    device = assembly.prepare_process(config)
    task, sample, found = sampled(config, device)
    names = [name for name, _, _ in TRIALS]
    if task is None or sample is None:
        return Checkup(tuple(found), ("model", *names))
    try:
        begin_epoch(task, config.seed)
        assembly.prepare_loss(config, task, device)
        model = assembly.build_model(config, task, device)
    except (Exception, SystemExit) as error:
        advice = (
            "it is called with its keys of the config and those of the Task's model_args that it accepts, and must "
            "return a module with trainable weights"
        )
        return Checkup((*found, wrong("model", message_and_place(error), advice)), tuple(names))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found.append(ok("model", f"{target_name(config.model)}, {parameters:,} trainable parameters, on {device}"))
    precision = Precision("fp32", device)
    declared, task = task.reduction, with_reduction(task, model, sample.train, precision)
    losses, batch = Losses(model, task, precision), next(slices(sample.train, EXAMPLES))
    passes = Passes(losses, batch, training_pass(losses, batch), next(slices(sample.train, LARGER)), declared)
    for position, (name, stops, trial) in enumerate(TRIALS, 1):
        findings = _findings(name, trial, passes, sample, config)
        found += findings
        if stops and is_wrong(findings):
            return Checkup(tuple(found), tuple(names[position:]))
    return Checkup(tuple(found))


def _findings(name: str, trial: Trial, passes: Passes, sample: Sample, config: RunConfig) -> list[Finding]:
    """The findings of the trial; if the user's code fails, its error."""
    try:
        return list(trial(passes, sample, config))
    except (Exception, SystemExit) as error:
        return [wrong(name, message_and_place(error), "check the line that it names")]

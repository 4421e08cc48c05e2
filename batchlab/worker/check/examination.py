"""`batchlab check`, in the process that has the model: one trial after the other."""

from collections.abc import Callable, Iterable

from batchlab.config import RunConfig, target_name
from batchlab.training import assembly
from batchlab.training.data.batches import slices
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.passes.contract_passes import training_pass
from batchlab.training.user_errors import in_the_users_words
from batchlab.worker.check import behaviour, fitting, learning, pace
from batchlab.worker.check.data_sample import Sample, sampled
from batchlab.worker.check.findings import Checkup, Finding, is_wrong, ok, wrong
from batchlab.worker.check.passes import Passes

EXAMPLES = 8  # that are passed through together, and alone

Trial = Callable[[Passes, Sample, RunConfig], Iterable[Finding]]

# In this order, each with whether the ones behind it make no sense where it fails.
TRIALS: tuple[tuple[str, bool, Trial], ...] = (
    ("dtype", True, lambda passes, _, __: fitting.number_formats(passes)),
    ("shapes", True, lambda passes, _, __: fitting.forward_and_loss(passes)),
    ("random", True, lambda passes, _, __: behaviour.randomness(passes)),
    ("alone", False, lambda passes, _, __: behaviour.independence(passes)),
    ("BatchNorm", False, lambda passes, _, config: behaviour.batch_norm(passes, config)),
    ("metrics", False, lambda passes, sample, _: fitting.metrics(passes, sample)),
    ("gradient", True, lambda passes, _, __: behaviour.gradient(passes)),
    ("speed", False, lambda passes, sample, _: pace.speed(passes, sample)),
    ("learns", False, lambda passes, sample, config: learning.learning(passes, sample, config)),  # moves the weights
)


def examine(config: RunConfig) -> Checkup:
    """Tries the data and then the model that the config names, on a few examples, from its initial weights, in fp32."""
    device = assembly.prepare_process(config)
    task, sample, found = sampled(config, device)
    names = [name for name, _, _ in TRIALS]
    if task is None or sample is None:
        return Checkup(tuple(found), ("model", *names))
    try:
        model = assembly.build_model(config, task, device)
    except (Exception, SystemExit) as error:
        mend = (
            "it is called with its keys of the config and what it takes of the Task's model_args, and returns a module "
            "with weights to train"
        )
        return Checkup((*found, wrong("model", in_the_users_words(error), mend)), tuple(names))
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found.append(ok("model", f"{target_name(config.model)}, {numbers:,} trainable numbers, on {device}"))
    losses, batch = Losses(model, task, Precision("fp32", device)), next(slices(sample.train, EXAMPLES))
    passes = Passes(losses, batch, training_pass(losses, batch))
    for position, (name, stops, trial) in enumerate(TRIALS, 1):
        answers = _answers(name, trial, passes, sample, config)
        found += answers
        if stops and is_wrong(answers):
            return Checkup(tuple(found), tuple(names[position:]))
    return Checkup(tuple(found))


def _answers(name: str, trial: Trial, passes: Passes, sample: Sample, config: RunConfig) -> list[Finding]:
    """The trial's own answers; where the user's code ended it, what that says."""
    try:
        return list(trial(passes, sample, config))
    except (Exception, SystemExit) as error:
        return [wrong(name, in_the_users_words(error), "look at the line that it names")]

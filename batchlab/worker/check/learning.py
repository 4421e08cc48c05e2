"""Whether the model learns anything at the requested learning rate."""

import math
import time
from collections.abc import Iterator

from batchlab.config import RunConfig
from batchlab.training.data.batches import length
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import seed_everything, set_mode
from batchlab.training.phase import Phase
from batchlab.training.updates.eager import Eager
from batchlab.training.updates.optimizer import build_optimizer, explaining_its_errors, peak_lr
from batchlab.worker.check.data_sample import Sample
from batchlab.worker.check.findings import Finding, better, ok
from batchlab.worker.check.passes import Passes

STEPS = 50
SECONDS = 2.0
SLOW = 0.5  # seconds of a pass of the smaller batch, which is then used here too
FALLS = 0.999  # of the initial loss: any decrease counts that is more than rounding


def learning(passes: Passes, sample: Sample, config: RunConfig) -> Iterator[Finding]:
    """Whether some steps on the same few examples reduce their loss; this changes the weights."""
    optimizer = build_optimizer(config, passes.model, passes.losses.task)
    phase = Phase()
    step = Eager(passes.losses, optimizer, config.clip_norm, phase=phase)
    seed_everything(0, passes.losses.precision.device)
    set_mode(passes.model, training=True)
    losses: list[float] = []
    start = time.perf_counter()
    batch = passes.batch if passes.seconds > SLOW else sample.train
    rates = [group["lr"] for group in optimizer.param_groups]
    while len(losses) < STEPS and (len(losses) < 5 or time.perf_counter() - start < SECONDS):
        with explaining_its_errors(config, passes.losses.trained, phase):
            outcome = step([copied(batch)])  # it may be changed in place
        losses.append(outcome.loss_sum.item() / (outcome.count.item() or 1))
    if (changed := [group["lr"] for group in optimizer.param_groups]) != rates:
        yield better(
            "optimizer",
            f"its step changes the learning rate of its groups itself, from {rates} to {changed}, and training sets it "
            "again before each step, to that of schedule=...",
            "remove that, and use schedule=..., or schedule._target_ for a schedule of your own",
        )
    lr = f"learning rate {peak_lr(config):.3g}"
    course = f"from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps at {lr}"
    if not all(map(math.isfinite, losses)):
        yield better("learns", f"the loss of {length(batch)} examples goes {course}", "use a smaller lr=...")
    elif min(losses[-3:]) > FALLS * losses[0]:
        yield better(
            "learns",
            f"the loss of {length(batch)} examples does not fall when the model trains only on them: {course}",
            "use a smaller or larger lr=...; otherwise check the labels and the initial weights",
        )
    else:
        yield ok("learns", f"the loss of {length(batch)} examples falls {course}")

"""What the benchmarks and checks share: a run of batchlab's loop in this process, without a folder."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parts:
    """A run about to start, in its parts."""

    config: Any
    task: Any
    planned: Any
    state: Any
    step: Any
    batches: Any


def parts(config):
    """Everything that a run of `config` is made of, on its device."""
    from batchlab.config.plan import plan
    from batchlab.training import assembly
    from batchlab.training.batches import Batches, length
    from batchlab.training.step import Step

    device = assembly.prepare_process(config)
    task, examples, _ = data = assembly.build_data(config, device)
    planned = plan(config, length(examples))
    state = assembly.build_state(config, data, device, budget=planned.examples)
    batches = Batches(
        examples,
        micro_batch_sizes=config.micro_batch_sizes,
        seed=config.seed,
        total=planned.examples,
        augment=task.augment,
        device=device,
    )
    step = Step(state.model, state.optimizer, task, state.precision, config.clip_norm)
    return Parts(config, task, planned, state, step, batches)


def measured(made, instruments):
    """The iterator of measurements that runs `made` with these instruments."""
    from batchlab.config.plan import rate_at
    from batchlab.training import assembly
    from batchlab.training.loop import train

    peak_rate = assembly.peak_rate(made.config)
    return train(
        made.state,
        made.batches,
        made.step,
        instruments,
        learning_rate=lambda at: rate_at(made.config, made.planned, peak_rate, at),
        stopping=lambda: False,
    )


def laboratory(config, instruments=None):
    """The state of a run about to start, the iterator of measurements that runs it, and a fresh model like its own.

    `instruments` replaces those that the config names: a function of the list of them.
    """
    from batchlab.instruments.panel import build_instruments
    from batchlab.training import assembly

    made = parts(config)
    built = build_instruments(config, made.planned, made.task)
    measurements = measured(made, built if instruments is None else instruments(built))
    return made.state, measurements, assembly.build_model(config, made.task, made.state.device)


def simulated():
    """Makes this process, started anew, and those that it starts, see a simulated GPU (tests/simulated_device.py)."""
    import os
    import sys
    from pathlib import Path

    if "BATCHLAB_TESTS_CUDA" in os.environ:
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from faked_cuda import environment

    os.execve(sys.executable, [sys.executable, *sys.argv], environment("simulated", total_bytes=4 * 2**30))

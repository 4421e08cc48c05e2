"""What the benchmarks share: a run of batchlab's loop in this process, without a folder."""


def laboratory(config, instruments=None):
    """The state of a run about to start, the iterator of measurements that runs it, and a fresh model like its own.

    `instruments` replaces those that the config names: a function of the list of them.
    """
    from batchlab.instruments.panel import build_instruments
    from batchlab.plan import plan, rate_at
    from batchlab.training import assembly
    from batchlab.training.batches import Batches, length
    from batchlab.training.loop import train
    from batchlab.training.step import Step

    device = assembly.prepare_process(config)
    task, examples, _ = data = assembly.build_data(config, device)
    planned = plan(config, length(examples))
    state = assembly.build_state(config, data, device, budget=planned.examples)
    peak_rate = assembly.peak_rate(config)
    built = build_instruments(config, planned, task)
    measurements = train(
        state,
        Batches(
            examples,
            micro_batch_sizes=config.micro_batch_sizes,
            seed=config.seed,
            total=planned.examples,
            augment=task.augment,
        ),
        Step(state.model, state.optimizer, task, state.precision, config.clip_norm),
        built if instruments is None else instruments(built),
        learning_rate=lambda at: rate_at(config, planned, peak_rate, at),
        stopping=lambda: False,
    )
    return state, measurements, assembly.build_model(config, task, device)

"""What the benchmarks share: a run of batchlab's loop in this process, without a folder."""


def laboratory(config, instruments=None):
    """The state of a run about to start, the iterator of measurements that runs it, and a fresh model like its own.

    `instruments` replaces those that the config names: a function of the list of them.
    """
    from batchlab.instruments.panel import build_instruments
    from batchlab.plan import plan, rate_at
    from batchlab.training import assembly
    from batchlab.training.batches import Batches, length
    from batchlab.training.device import meter_of
    from batchlab.training.loop import train
    from batchlab.training.precision import Precision
    from batchlab.training.residence import resident
    from batchlab.training.state import RunState
    from batchlab.training.step import Step

    device = assembly.prepare_process(config)
    task = assembly.build_task(config, device)
    data, val = resident(task.train, device, name="train"), resident(task.val, device, name="val")
    planned = plan(config, length(data))
    model = assembly.build_model(config, task, device)
    optimizer = assembly.build_optimizer(config, model)
    precision = Precision(config.precision, device)
    state = RunState(model, optimizer, task, data, val, device, precision, meter_of(device), planned.examples)
    batches = Batches(data, micro_batch_sizes=config.micro_batch_sizes, seed=config.seed, total=planned.examples)
    model.train()
    built = build_instruments(config, planned, task)
    measurements = train(
        state,
        batches,
        Step(model, optimizer, task, precision, config.clip_norm),
        built if instruments is None else instruments(built),
        learning_rate=lambda examples: rate_at(config, planned, config.lr, examples),
        stopping=lambda: False,
    )
    return state, measurements, assembly.build_model(config, task, device)

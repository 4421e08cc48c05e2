"""Shared by benchmarks and checks: runs batchlab's loop in this process, without a run folder."""


def assembled(config, *instruments):
    """A session that is ready to start, on its device; with `instruments` as for `assembly.assemble`."""
    from batchlab.training import assembly

    return assembly.assemble(config, assembly.build_data(config, assembly.prepare_process(config)), *instruments)


def laboratory(config, change=lambda instruments: instruments):
    """The state of a run that is ready to start, the iterator of measurements that runs it, and a new, equal model.
    `change` is applied to the config's instruments.
    """
    from batchlab.instruments.panel import build_instruments
    from batchlab.training import assembly

    session = assembled(config, lambda *known: change(build_instruments(*known)))
    return session.state, session.train(), assembly.build_model(config, session.state.task, session.state.device)


def simulated():
    """Restarts this process so that it and its children see a simulated GPU (tests/simulated_device.py)."""
    import os
    import sys
    from pathlib import Path

    if "BATCHLAB_TESTS_CUDA" in os.environ:
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from faked_cuda import environment

    os.execve(sys.executable, [sys.executable, *sys.argv], environment("simulated", total_bytes=4 * 2**30))

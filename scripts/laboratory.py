"""What the benchmarks and checks share: a run of batchlab's loop in this process, without a folder."""


def assembled(config, *instruments):
    """The session of a run about to start, on its device; with `instruments` as `assembly.assemble` takes them."""
    from batchlab.training import assembly

    return assembly.assemble(config, assembly.build_data(config, assembly.prepare_process(config)), *instruments)


def laboratory(config, change=lambda instruments: instruments):
    """The state of a run about to start, the iterator of measurements that runs it, and a fresh model like its own.

    `change` makes of the instruments that the config names those that measure.
    """
    from batchlab.instruments.panel import build_instruments
    from batchlab.training import assembly

    session = assembled(config, lambda *known: change(build_instruments(*known)))
    return session.state, session.train(), assembly.build_model(config, session.state.task, session.state.device)


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

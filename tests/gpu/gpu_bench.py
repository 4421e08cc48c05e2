"""Benchmarks of a step on the device: host and device time, batchlab compared with a bare loop; and streaming."""

import contextlib
import itertools
import time

from smoke.runner import SIMULATED

BENCH_SECONDS = 0.6  # of each way to run a step
MANY = 10_000_000  # steps, more than are ever made


def bench(lab):
    """A row for each model, precision and batch size: milliseconds until a step is issued and until it is done."""
    models = ("mlp",) if lab.small else ("mlp", "cnn", "resnet8", "gpt")
    for model, precision, batch_size in itertools.product(models, ("fp32", "bf16"), (8, 64, 512)):
        if lab.small and (precision, batch_size) != ("fp32", 64):
            continue
        row = {"model": model, "precision": precision, "batch_size": batch_size}
        try:
            lab.tell(**row, **ways(lab, model, precision, batch_size))
        except Exception as error:  # keep the other rows
            lab.tell(**row, error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def ways(lab, model, precision, batch_size):
    """One configuration: a bare loop, the same as a CUDA graph (device time only), batchlab's step and loop."""
    from laboratory import assembled

    from batchlab.hydra_app import compose
    from batchlab.training import assembly

    seconds = BENCH_SECONDS / 20 if lab.small else BENCH_SECONDS
    data = {"gpt": ("data=text", "data.context=64", "data.train_size=1000"), "mlp": ()}
    images = ("data=fake", "data.train_size=2000", "data.val_size=100")
    words = (f"model={model}", f"precision={precision}", f"batch_size={batch_size}", *data.get(model, images))
    words += (f"device={lab.device}", "instruments=default")

    made = assembled(compose([*words, f"steps={MANY}"]))
    device, batches = made.state.device, iter(made.batches())
    bare = Bare(made, assembly.build_model(made.config, made.state.task, device).train())
    found = {}
    with made.state.precision.training():
        found["bare"] = timed(bare.step, device, seconds)
        found["batchlab"] = timed(lambda: made.update(next(batches)), device, seconds)
    whole = assembled(compose([*words, f"steps={found['bare']['steps']}"]))
    for _ in whole.train():
        pass
    found["loop"] = {"ms": whole.state.meter.seconds / whole.state.step * 1e3, "steps": whole.state.step}
    if device.kind == "cuda" and not lab.small:
        with made.state.precision.training():
            found["graph"] = graphed(bare, device, seconds)
    return found


def graphed(bare, device, seconds):
    """Like `timed`, for a replayed graph; if a model cannot be captured, the other figures are kept."""
    try:
        return timed(bare.graph().replay, device, seconds)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


class Bare:
    """The usual training loop in fifteen lines, on the run's own data, model and optimizer."""

    def __init__(self, made, model):
        import torch

        self.made, self.model = made, model
        lr, momentum = made.config.lr, made.config.optimizer["momentum"]
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, fused=True)
        self.examples = len(made.state.train[0])
        self.index = torch.arange(made.config.batch_size, device=made.state.device.torch_device) % self.examples
        self.autocast = made.state.precision.forward

    def step(self):
        batch = tuple(t[self.index] for t in self.made.state.train)
        with self.autocast():
            loss = self.made.state.task.loss(self.made.state.task.forward(self.model, batch), batch).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def graph(self):
        """A step as one launch, which takes the device's time only."""
        import torch

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph), without_autocast_cache():
            self.step()
        return graph


@contextlib.contextmanager
def without_autocast_cache():
    """Casts the weights again in each replay: a cached cast from before the capture would be outdated."""
    import torch

    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def timed(step, device, seconds):
    """Milliseconds of a step: until the host has issued it, and until the device has finished it."""
    for _ in range(5):
        step()
    device.drain()
    began, steps, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        for _ in range(5):
            step()
        steps += 5
        spent = time.perf_counter() - began
    issued = time.perf_counter() - began
    device.drain()
    done = time.perf_counter() - began
    return {"issued_ms": issued / steps * 1e3, "ms": done / steps * 1e3, "steps": steps}


def streaming(lab):
    """Examples per second by source: the device, by index from the host, read one by one; and what overlaps."""
    import torch
    from torch.utils.data import TensorDataset

    from batchlab.hydra_app import compose
    from batchlab.training import assembly
    from batchlab.training.data.host_rows import HostRows
    from batchlab.training.data.streaming import Streamed

    device = assembly.prepare_process(compose([f"device={lab.device}"]))
    n = 512 if lab.small else 16_384
    rows = torch.randn(n, 3072)
    held, by_index = (rows.to(device.torch_device),), HostRows((rows,), device)
    ways = {"held": held, "by index": by_index}
    for workers in (0,) if SIMULATED else (0, 2) if lab.small else (0, 2, 8):  # locking memory in a thread needs a GPU
        ways[f"one by one, {workers} workers"] = Streamed(TensorDataset(rows), device, name="train", workers=workers)
    for (way, data), batch_size in itertools.product(ways.items(), (64, 512)):
        rate, seconds = pace(data, device, batch_size, n if lab.small else 4 * n)
        lab.tell(way=way, batch_size=batch_size, examples_per_second=rate, seconds=seconds)

    size = 64 if lab.small else 4096
    busy = torch.randn(size, size, device=device.torch_device)

    def work():
        for _ in range(4):
            torch.mm(busy, busy)

    copying, computing = pace(by_index, device, 512, n)[1], pace(held, device, 512, n, work)[1]
    both = pace(by_index, device, 512, n, work)[1]
    share = (copying + computing - both) / min(copying, computing)
    lab.tell(copying_seconds=copying, computing_seconds=computing, both_seconds=both, overlapping_share=share)


def pace(data, device, batch_size, total, work=lambda: None):
    """Examples per second for `total` examples, and their seconds."""
    from batchlab.training.data.batches import Batches

    total = total // batch_size * batch_size
    device.drain()
    began = time.perf_counter()
    for (batch,) in Batches(data, micro_batch_sizes=[batch_size], seed=0, total=total, device=device):
        batch[0].sum()
        work()
    device.drain()
    seconds = time.perf_counter() - began
    return total / seconds, seconds

"""Checks that a run's device is selected, named and numbered correctly."""

import os
import time
from typing import Any

from smoke.runner import LeftOutError, check, wants
from smoke.tasks import configured, parts_of


@check("the first matrix product and convolution: what starting a context costs", limit=40.0)
def starts(device: str) -> dict[str, float]:
    import torch

    from batchlab.training.devices.named import device_named

    began = time.perf_counter()
    here = device_named(device).torch_device
    x = torch.randn(256, 256, device=here)
    (x @ x).sum().item()
    first = time.perf_counter()
    torch.nn.Conv2d(3, 8, 3).to(here)(torch.randn(4, 3, 32, 32, device=here)).sum().item()
    return {"matmul_seconds": first - began, "conv_seconds": time.perf_counter() - first}


@check("device=cuda prepares the process and carries an index")
def prepares_the_default(device: str) -> dict[str, str]:
    return _prepared(device)


@check("device=cuda:0 prepares the process", needs="cuda")
def prepares_by_index(device: str) -> dict[str, str]:
    del device
    return _prepared("cuda:0")


def _prepared(device: str) -> dict[str, str]:
    from batchlab.training import assembly

    taken = assembly.prepare_process(configured(device))
    where = str(taken)
    wants(where == "cpu" or where.startswith("cuda:"), "a CUDA device has no index", device=where)
    return {"device": where, "facts": str(dict(assembly.device_facts(taken)))}


@check("device=auto takes the GPU where there is one")
def auto_is_the_device(device: str) -> dict[str, str]:
    found = configured("auto").device
    if (device, found) == ("cpu", "cuda"):
        raise LeftOutError("the CPU was requested, and there is CUDA here")
    wants(found == device.split(":")[0], "auto is another device", auto=found, device=device)
    return {"auto": found}


@check("a device that is not there is refused in one sentence", needs="cuda")
def refuses_one_that_is_not_there(device: str) -> dict[str, str]:
    del device
    from batchlab import BadRequest
    from batchlab.training import assembly

    try:
        assembly.prepare_process(configured("cuda:99"))
    except BadRequest as refusal:
        return {"refusal": str(refusal)}
    raise AssertionError("cuda:99 was taken")


@check("NVML finds the device by the UUID that PyTorch gives: its name, the bytes in use, who computes", needs="cuda")
def nvml_knows_it_by_uuid(device: str) -> dict[str, Any]:
    from batchlab.host.nvml import computing_on, full_uuid, read_driver, used_bytes

    made = parts_of(device, "batch_size=64", "steps=4")
    made.update(next(iter(made.batches())))
    uuid = full_uuid(made.state.device.uuid())
    driver = read_driver()
    wants(not isinstance(driver, str), "NVML does not answer", reason=driver)
    names = {gpu.uuid: gpu.name for gpu in driver.gpus}
    wants(names.get(uuid) == made.state.device.name(), "NVML has another name", uuid=uuid, names=names)
    used, computing = used_bytes(uuid), computing_on(uuid)
    wants(used is not None, "NVML does not say what is in use", uuid=uuid)
    return {"uuid": uuid, "names": names, "used_bytes": used, "computing": sorted(computing or ()), "this": os.getpid()}


@check("a child that is given one GPU by CUDA_VISIBLE_DEVICES=<uuid> sees that one alone, as cuda:0", needs="gpu")
def one_gpu_by_uuid(device: str) -> dict[str, Any]:
    del device
    import pynvml
    import torch

    from batchlab.host.nvml import full_uuid

    pynvml.nvmlInit()  # without a context: CUDA must not have been used yet
    last = pynvml.nvmlDeviceGetCount() - 1
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(last))
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    made = parts_of("cuda", "batch_size=64", "steps=4")
    made.update(next(iter(made.batches())))
    wants(torch.cuda.device_count() == 1, "several devices are seen", count=torch.cuda.device_count())
    used = full_uuid(made.state.device.uuid())
    wants(used == uuid, "another device is used", requested=uuid, used=used)
    return {"devices_of_the_machine": last + 1, "uuid": uuid}

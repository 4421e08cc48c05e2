"""Refuses data that is not the same when it is built again: points of a sweep would train on different data."""

import time
from collections.abc import Callable

import torch

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.assembly import Data
from batchlab.training.data.reading import own_random_numbers
from batchlab.training.data.residence import is_tree
from batchlab.training.devices.device import Device

REBUILD_SECONDS = 3.0  # data whose build takes longer are compared with those of each point instead


def built_twice(config: RunConfig, device: Device, clock: Callable[[], float] = time.perf_counter) -> Data:
    """The data, after a second build with an equal fingerprint, unless the first took longer than `REBUILD_SECONDS`.

    The second starts, as in another process, with the same state of PyTorch's random streams, which is equal in all
    new processes, and with another of Python's and NumPy's, which is not.
    """
    # Importing the user's module may seed a stream: it is then the same in each process.
    targets.resolve(config.data["_target_"], Task, what="data", trust=config.trust)
    host, own = torch.get_rng_state(), device.random_state()
    began = clock()
    data = assembly.build_known_data(config, device)
    if clock() - began > REBUILD_SECONDS:
        return data
    with own_random_numbers():
        torch.set_rng_state(host)
        after = device.random_state()
        device.set_random_state(own)
        again = assembly.fingerprint_of_build(config, device)
        device.set_random_state(after)
    if again != data.fingerprint:
        raise _unequal(config)
    return data


def refuse_other_data(config: RunConfig, data: Data, expected: str | None) -> None:
    """BadRequest if the fingerprint is not the one that the sweep's preflight `expected`.

    A Dataset may be read whole or streamed, as the memory of a GPU allows, and then has other fingerprints.
    """
    comparable = config.device == "cpu" or all(is_tree(one) for one in (data.task.train, data.task.val))
    if comparable and expected is not None and data.fingerprint != expected:
        raise _unequal(config)


def _unequal(config: RunConfig) -> BadRequest:
    return BadRequest(
        f"data._target_={config.data['_target_']} gives other data when it is built again (random numbers without a "
        "seed, or files in another order?), so the points of a sweep would train on different data: draw them from "
        "np.random.default_rng(0) or torch.Generator().manual_seed(0), created in the factory, and sort lists of files"
    )

"""Where fp16 makes every step wait for the device, the run says so."""

import pytest
from simulated_device import simulated_cuda
from torture.kth_call import quick
from torture.tiny import RUN_ID, tiny

from batchlab.records import RunIdentity
from batchlab.worker.execute import run
from batchlab.worker.run_log import Listener


class Heard(Listener):
    def __init__(self):
        self.reported = []

    def say(self, text):
        self.reported.append(text)


SGD, RMSPROP = {"_target_": "torch.optim.SGD", "momentum": 0.9}, {"_target_": "torch.optim.RMSprop"}
WAITS = "waits for the device at every step, to know whether the update is skipped"


@pytest.mark.parametrize(
    ("device", "precision", "optimizer", "says"),
    [
        ("cuda", "fp16", RMSPROP, f"precision=fp16 with RMSprop {WAITS}"),
        ("cuda", "fp16", SGD, f"precision=fp16 with SGD {WAITS}"),
        ("cuda", "fp16", SGD | {"fused": True}, None),
        ("cuda", "bf16", SGD, None),
        ("cpu", "fp16", SGD, None),
    ],
)
def test_a_run_says_that_its_steps_wait_where_they_do(device, precision, optimizer, says, tmp_path):
    config = tiny(tmp_path, device=device, precision=precision, optimizer=optimizer, steps=3, model={})
    heard = Heard()
    with quick(), simulated_cuda() as cuda:
        record = run(config, tmp_path / RUN_ID, RunIdentity(RUN_ID, "study", RUN_ID), listener=heard)
        steps_that_waited = [wait for wait in cuda.gpus[0].waits if "_local_scalar_dense" in wait]

    assert (record.status, record.reason) == ("completed", "")
    assert [text.split(", so its speed")[0] for text in heard.reported] == ([says] if says else [])
    if says:
        assert len(steps_that_waited) >= 3

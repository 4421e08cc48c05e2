"""A run sets the precision of fp32 products, whatever a model's file has set before."""

import dataclasses
import re

import pytest
import torch
from faked_cuda import faked_cuda
from simulated_device import simulated_cuda
from torture.tiny import Net, tiny

from batchlab.errors import BadRequest
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.cuda import CudaDevice
from batchlab.training.devices.precision import Precision
from batchlab.worker.preflight import examine

backends = torch.backends
SAYINGS = {  # each is one line of a user's file
    "nothing": lambda: None,
    "backends.fp32_precision = tf32": lambda: setattr(backends, "fp32_precision", "tf32"),
    "backends.fp32_precision = ieee": lambda: setattr(backends, "fp32_precision", "ieee"),
    "set_float32_matmul_precision(high)": lambda: torch.set_float32_matmul_precision("high"),
    "set_float32_matmul_precision(highest)": lambda: torch.set_float32_matmul_precision("highest"),
    "set_float32_matmul_precision(medium)": lambda: torch.set_float32_matmul_precision("medium"),
    "cudnn.allow_tf32 = True": lambda: setattr(backends.cudnn, "allow_tf32", True),
    "cudnn.allow_tf32 = False": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "cudnn.fp32_precision = tf32": lambda: setattr(backends.cudnn, "fp32_precision", "tf32"),
    "cudnn.conv.fp32_precision = tf32": lambda: setattr(backends.cudnn.conv, "fp32_precision", "tf32"),
    "cudnn.conv.fp32_precision = ieee": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "cudnn.rnn.fp32_precision = ieee": lambda: setattr(backends.cudnn.rnn, "fp32_precision", "ieee"),
    "cuda.matmul.allow_tf32 = True": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "cuda.matmul.fp32_precision = tf32": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "mkldnn.matmul.fp32_precision = bf16": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
}
HERE = {  # all of PyTorch's settings
    "all": backends,
    "matmul": backends.cuda.matmul,
    "cudnn": backends.cudnn,
    "conv": backends.cudnn.conv,
    "rnn": backends.cudnn.rnn,
    "cpu": backends.mkldnn,
    "cpu matmul": backends.mkldnn.matmul,
    "cpu conv": backends.mkldnn.conv,
    "cpu rnn": backends.mkldnn.rnn,
}
OF_CUDA = ("matmul", "conv", "rnn")


def switches():
    return {name: where.fp32_precision for name, where in HERE.items()}


@pytest.fixture(autouse=True)
def _as_before():
    matmul, before = torch.get_float32_matmul_precision(), switches()
    yield
    backends.fp32_precision = before["all"]
    torch.set_float32_matmul_precision(matmul)
    for name in ("cudnn", "cpu"):
        HERE[name].fp32_precision = before[name]
    backends.cudnn.allow_tf32 = before["conv"] == "tf32"
    for name, value in before.items():
        HERE[name].fp32_precision = value
    assert switches() == before


def legacy():
    """PyTorch's older getters, which raise if the two kinds of settings disagree; compilers and `flags` use them."""
    return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32


def of_cuda():
    return {switches()[name] for name in OF_CUDA}


@pytest.mark.parametrize("message", SAYINGS)
@pytest.mark.parametrize(
    ("precision", "inside", "getters"),
    [
        ("fp32", "ieee", ("highest", False, False)),
        ("tf32", "tf32", ("high", True, True)),
        ("bf16", "ieee", ("highest", False, False)),
    ],
)
def test_a_run_on_cuda_has_all_three_switches_as_its_precision_says_and_puts_them_back(
    message, precision, inside, getters
):
    SAYINGS[message]()
    before = switches()
    with faked_cuda():
        requested = Precision(precision, CudaDevice(0))
        with requested.training():
            assert of_cuda() == {inside}
            assert legacy() == getters
            with requested.full():  # a validation
                assert of_cuda() == {"ieee"}
                assert legacy() == ("highest", False, False)
            assert of_cuda() == {inside}
            with backends.cudnn.flags(enabled=False):  # a user's forward pass; reads and sets the older ones
                pass
            assert of_cuda() == {inside}
    assert switches() == before


@pytest.mark.parametrize("message", SAYINGS)
def test_a_run_on_the_cpu_keeps_fp32_and_puts_the_switches_back(message):
    SAYINGS[message]()
    before = switches()
    requested = Precision("fp32", CpuDevice())
    with requested.training(), requested.full():
        assert {switches()[name] for name in ("cpu matmul", "cpu conv", "cpu rnn")} == {"ieee"}
    assert switches() == before


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp32", "set_float32_matmul_precision(high)"),
        ("fp32", "cudnn.conv.fp32_precision = tf32"),
        ("bf16", "cudnn.allow_tf32 = True"),
        ("bf16", "cuda.matmul.allow_tf32 = True"),
        ("tf32", "cudnn.allow_tf32 = False"),
        ("tf32", "set_float32_matmul_precision(highest)"),
    ],
)
def test_code_that_switches_what_a_run_trains_in_is_refused(precision, message):
    with faked_cuda():
        device = CudaDevice(0)
        with (
            pytest.raises(BadRequest, match=f"precision={precision} was requested, but the code of the model or the"),
            Precision(precision, device).training(),
        ):
            SAYINGS[message]()


class Threaded(Net):
    """A model that changes the number of threads."""

    def forward(self, x):
        torch.set_num_threads(2)
        return super().forward(x)


class Undetermined(Net):
    """A model that allows nondeterministic kernels."""

    def forward(self, x):
        torch.use_deterministic_algorithms(False)
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            "Threaded",
            r"^threads=1 was requested, but the code .* sets 2 \(torch.set_num_threads\): .* or use threads=2$",
        ),
        ("Undetermined", r"^deterministic=true was requested, .* switches it off .*, or use deterministic=false$"),
    ],
)
def test_preflight_refuses_code_that_changes_what_the_config_promises_of_the_process(model, says, tmp_path):
    config = tiny(tmp_path, deterministic=True)
    threads = torch.get_num_threads()
    try:
        quiet, _ = examine([config])
        (problem,), _ = examine([dataclasses.replace(config, model={"_target_": f"{__name__}.{model}"})])
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)

    assert quiet == []
    assert re.search(says, problem)


class Switching(Net):
    """A model whose forward pass enables TF32."""

    def forward(self, x):
        torch.set_float32_matmul_precision("high")
        return super().forward(x)


def test_preflight_refuses_a_forward_pass_that_switches(tmp_path):
    config = tiny(tmp_path, device="cuda")
    model = {"_target_": f"{__name__}.Switching"}
    with simulated_cuda():
        quiet, _ = examine([config])
        problems, _ = examine([dataclasses.replace(config, model=model)])

    assert quiet == []
    assert problems == [
        "precision=fp32 was requested, but the code of the model or the data changes PyTorch's fp32 precision "
        "during the run (torch.set_float32_matmul_precision, allow_tf32 or fp32_precision): remove that line, and use "
        "precision=tf32 for TF32"
    ]

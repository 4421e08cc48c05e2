"""The steps of scripts/gpu_check, each in a separate process; they report results without judging them."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from json_lines import ROOT, append
from small_runs import OWN

PACKAGES = (
    "torch",
    "triton",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "hydra-core",
    "omegaconf",
    "tensorboard",
)
KEPT = ("status", "reason", "steps", "steps_skipped", "train_seconds", "final", "weights_fingerprint", "resumed_at")
OPTIONS = ("batch_size", "precision", "deterministic", "device", "eval_batch_size")
CPU_BYTES = 7000 * 2**20  # address space, for the step that must run out of memory without a GPU


@dataclass
class Lab:
    """The folder and device of a step, and the file for its results."""

    step: str
    device: str  # cuda or cpu
    small: bool  # no real GPU: everything in its smallest form
    work: Path
    out: Path
    patience: float = 1.0  # factor for each limit

    @property
    def brief(self):
        """Arguments that leave out what takes long without a GPU and shows nothing about one."""
        return ("report=false",) if self.small else ()

    def tell(self, **found):
        append(self.out, step=self.step, found=found)
        print(json.dumps(found, default=str), flush=True)

    def batchlab(self, *words):
        """Runs a batchlab command in the step's folder and returns its exit code.
        In this process, so that one warm server serves all commands of a step: PyTorch is imported once.
        """
        from batchlab.cli.main import main
        from batchlab.sweep.processes.server import keep_warm

        print(f"$ batchlab {' '.join(words)}", flush=True)
        os.chdir(self.work)
        keep_warm()
        code = main(list(words))
        print(f"exit code {code}", flush=True)
        return code

    def sweep(self, study, *words):
        """Runs a sweep, and reports how each run ended."""
        code = self.batchlab("sweep", f"device={self.device}", f"study={study}", *words)
        records = self.records(study)
        self.tell(study=study, words=words, code=code, runs=[shown(record) for record in records])
        return records

    def records(self, study):
        paths = sorted((self.work / "runs" / study).glob("*/record.json"))
        return [json.loads(path.read_text()) for path in paths]


def shown(record):
    """The entries of a record that describe how the run ended."""
    names = {key: record["config"].get(key) for key in OPTIONS}
    return names | {key: record.get(key) for key in KEPT} | {"gpu": record["environment"].get("device_name")}


def machine(lab):
    """Versions, device, idle clocks; and whether all imports of later steps work."""
    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi", "-q"], check=False)
    import torch

    from batchlab.hydra_app import compose

    versions = {"python": platform.python_version(), "cuda": torch.version.cuda, "hip": torch.version.hip}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found = {"versions": versions, "device": None, "cores": os.cpu_count()}
    compose(["device=cpu"])
    from batchlab.training.devices.cuda import visible_devices
    from batchlab.training.devices.named import device_named

    count = visible_devices()
    if count:
        device = device_named("cuda:0")
        found |= {"device": device.facts()["device_name"], "facts": dict(device.facts()), "devices": count}
        found["free_bytes"] = device.free_bytes()
        with contextlib.suppress(Exception):
            found |= at_rest()
    lab.tell(**found)


def at_rest():
    """Driver, clocks and power, by NVML."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    clocks = {name: getattr(pynvml, f"NVML_CLOCK_{name}") for name in ("SM", "MEM")}
    return {
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "mhz": {name: pynvml.nvmlDeviceGetClockInfo(handle, kind) for name, kind in clocks.items()},
        "milliwatts": pynvml.nvmlDeviceGetPowerUsage(handle),
    }


def smoke(lab):
    """scripts/gpu_smoke: each check writes its own line."""
    patience = max(1.0, lab.patience)  # checks keep their limits if little time is left
    command = [sys.executable, str(ROOT / "scripts/gpu_smoke"), "--out", str(lab.out), f"--patience={patience}"]
    subprocess.run(command, check=False)


def precisions(lab):
    """A sweep of every precision with its report, a smaller one with every instrument, and the doctor."""
    if lab.small:
        lab.sweep("precisions", "batch_size=256", "precision=fp32,bf16", "steps=10", *lab.brief)
        return
    precision = "precision=fp32,tf32,bf16,fp16"
    lab.sweep("precisions", "batch_size=64,512", precision, "default_epochs=2")
    lab.sweep("full", "batch_size=256", "precision=fp32,bf16", "instruments=full", "default_epochs=1", "report=false")
    lab.tell(doctor=lab.batchlab("doctor"))


def deterministic(lab):
    """Both values of `deterministic` in one grid; a run that is killed and resumed, and one that is not."""
    (lab.work / "own.py").write_text(OWN)
    lab.sweep("both", "deterministic=false,true", "model=cnn", "batch_size=64", "steps=20", *lab.brief)
    words = (
        *lab.brief,
        "data._target_=own.load",
        "deterministic=true",
        "batch_size=8",
        "epochs=8",
        "checkpoint_every=48",
    )
    undisturbed = lab.sweep("undisturbed", "model._target_=own.Net", *words)
    for _ in range(2):
        resumed = lab.sweep("resumed", "model._target_=own.KilledOnce", *words)
    prints = [[record["weights_fingerprint"] for record in records] for records in (undisturbed, resumed)]
    lab.tell(equal_bits=prints[0] == prints[1], fingerprints=prints)


def find(lab):
    """The largest micro-batch under a limit, and runs at that size and at the next."""
    (lab.work / "own.py").write_text(OWN)
    fat = ("model._target_=own.Fat", "data._target_=own.load", "+data.size=512")
    words = fat if lab.small else ("model=cnn", "data=fake", "data.train_size=4096")
    limit = "16MiB" if lab.small else "1GiB"
    code = lab.batchlab("find", f"device={lab.device}", "study=find", *words, f"memory_limit={limit}")
    for path in (lab.work / "runs/find/find").glob("*.json"):
        kept = json.loads(path.read_text())
        lab.tell(code=code, limit=limit, **{key: value for key, value in kept.items() if key != "config"})
        sizes = [kept["largest"], (kept.get("larger") or {}).get("size")]
        if None not in sizes:
            lab.sweep(
                "at-the-limit", *words, f"batch_size={sizes[0]},{sizes[1]}", "steps=5", "skip_larger=false", *lab.brief
            )


def evaluation(lab):
    """Training fits in memory, but a validation of everything at once does not."""
    (lab.work / "own.py").write_text(OWN)
    from batchlab.training.devices.named import device_named

    total = device_named(lab.device).total_bytes()
    if total is None:  # on the CPU: the following processes inherit the limit
        total = CPU_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (total, total))
    examples = 2 * (2 * total // (4 * 2**20))  # for own.Spacious; `load` splits them in half
    words = ("model._target_=own.Spacious", "data._target_=own.load", f"+data.size={examples}")
    sizes = "4" if lab.small else "2,4,8"
    words += ("eval_batch_size=100000000", f"batch_size={sizes}", "steps=5", *lab.brief)
    lab.sweep("evaluation", *words)


def tests(lab):
    """tests/gpu, without slow tests."""
    words = ["tests/gpu", "-m", "gpu and not slow", "-v", "-rA", "-p", "no:cacheprovider", "-W", "default"]
    words += ["--rootdir", str(ROOT), f"--junitxml={lab.work}/junit.xml"]
    if importlib.util.find_spec("pytest_timeout"):
        words.append("--timeout=40")
    code = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False).returncode
    lab.tell(code=code)

"""Enough to explain a number, nothing that names a person or a machine."""

import getpass
import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy

from batchlab.recording.environment import environment

NO_TORCH = """
import importlib, pkgutil, sys
import batchlab.recording
names = [module.name for module in pkgutil.iter_modules(batchlab.recording.__path__)]
for name in names:
    importlib.import_module(f"batchlab.recording.{name}")
heavy = sorted({"torch", "torchvision", "pandas", "hydra", "tensorflow"} & set(sys.modules))
print(len(names), heavy)
"""


def test_only_allowed_variables_are_recorded_and_nothing_names_the_machine(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("NCCL_HTTP_PROXY", "http://ada:pw@proxy/")
    monkeypatch.setenv("WANDB_API_KEY", "sk-123")
    monkeypatch.setenv("SLURM_JOB_USER", "ada-lovelace")

    facts = environment({"device_name": "H200", "hf_token": "sk-123"})

    assert facts["variables"]["SLURM_ARRAY_TASK_ID"] == "7"
    assert facts["variables"]["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert facts["variables"]["NCCL_HTTP_PROXY"] == "http://proxy/"
    assert facts["device_name"] == "H200"
    text = json.dumps(facts)
    assert "sk-123" not in text
    assert "ada-lovelace" not in text
    assert socket.gethostname() not in text
    assert "/home" not in text
    assert f'"{getpass.getuser()}"' not in text


def test_versions_and_the_machine_are_those_of_this_process():
    facts = environment()

    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["python"] == sys.version.split()[0]
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)
    assert facts["memory_bytes"] > 2**27


def test_the_commit_is_that_of_the_users_folder_and_none_where_it_has_none(tmp_path):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    assert "git_commit" not in environment(code=tmp_path)
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "log", "-1", "--format=%H"], check=True, capture_output=True, text=True).stdout

    assert environment(code=tmp_path)["git_commit"] == head.strip()
    assert "git_commit" not in environment(code=tmp_path / "nowhere")


def test_recording_takes_no_torch_into_the_process():
    answer = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, check=True)

    count, heavy = answer.stdout.split(maxsplit=1)
    assert int(count) >= 12
    assert heavy.strip() == "[]"


def test_a_gpus_uuid_is_a_hash_that_is_the_same_wherever_it_is(monkeypatch):
    uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{uuid},MIG-11111111-d72c-4106-c12f-20bd9faed9f6")

    facts = environment({"device_uuid": uuid})

    first, second = facts["variables"]["CUDA_VISIBLE_DEVICES"].split(",")
    assert facts["device_uuid"] == first == "GPU-" + hashlib.sha256(uuid.encode()).hexdigest()[:8]
    assert second.startswith("MIG-")
    assert "8932f937" not in json.dumps(facts)
    assert "11111111" not in json.dumps(facts)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert environment()["variables"]["CUDA_VISIBLE_DEVICES"] == "0,1"

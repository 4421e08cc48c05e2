"""Small models on generated data for the checks, built like those of a run."""

from pathlib import Path
from typing import Any

# A user's own model and data, for checks that need a whole run or access to its parts.
OWN = """
import torch
from batchlab import Task
from torch import nn


def load(classes=4, wrong_from=None):
    x = torch.randn(512, 12, generator=torch.Generator().manual_seed(0))
    y = x[:, :classes].argmax(dim=1)
    if wrong_from is not None:
        y[wrong_from:] = classes + 7
    return Task.classification((x, y), (x[:64], y[:64] % classes), model_args={"classes": classes})


class Net(nn.Sequential):
    def __init__(self, classes, width=32):
        super().__init__(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, classes))
"""

IMAGES = ("data=fake", "data.train_size=256", "data.val_size=64", "model.width=8")
CNN = (*IMAGES, "model=cnn")
GPT = ("data=text", "data.context=32", "data.train_size=64", "data.val_size=16", "model=gpt", "model.width=32")


def configured(device: str, *words: str) -> Any:
    """A run's configuration on `device`, as from the command line."""
    from batchlab.hydra_app import compose

    return compose([f"device={device}", "threads=1", *words])


def parts_of(device: str, *words: str) -> Any:
    """A session that is ready to start, without instruments."""
    from laboratory import assembled

    return assembled(configured(device, *words))


def own_files(folder: Path) -> tuple[str, str]:
    """Writes the user's file into `folder`, which becomes the current one; returns the overrides for model and data."""
    import os
    import sys

    (folder / "own_smoke.py").write_text(OWN)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    return "model._target_=own_smoke.Net", "data._target_=own_smoke.load"

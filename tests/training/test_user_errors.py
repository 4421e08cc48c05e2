"""Where an error of the user's code is said to come from."""

import re

import torch

from batchlab.training.user_errors import message_and_place


def test_an_error_inside_a_package_names_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that this file is not one of the user's
    try:
        torch.nn.Linear(2, 2)(torch.zeros(1, 3))
    except RuntimeError as error:
        found = message_and_place(error)

    assert re.search(r"^RuntimeError: .* \(torch/nn/modules/linear\.py, line \d+, in forward\)$", found)

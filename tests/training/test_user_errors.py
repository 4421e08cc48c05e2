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


def test_an_error_inside_a_package_names_the_users_line_that_called_it(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "my_net.py").write_text("def forward(layer, x):\n    return layer(x)\n")
    (tmp_path / "link").symlink_to(tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "link")
    file = tmp_path / "link" / "my_net.py"  # as `sys.path` may have it, while the current folder has no links
    scope = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    try:
        scope["forward"](torch.nn.Linear(2, 2), torch.zeros(1, 3))
    except RuntimeError as error:
        found = message_and_place(error)

    assert re.search(r"^RuntimeError: .*shapes.* \(my_net\.py, line 2, in forward\)$", found)

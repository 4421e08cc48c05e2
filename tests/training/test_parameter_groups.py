"""A parameter group that is built at another learning rate than the run's keeps its multiple of it."""

import pytest
import torch
import torch.nn.functional as F
from torture.kth_call import quick
from torture.tiny import SGD, stop_at, tiny, train

from batchlab.training import assembly
from batchlab.training.batches import row
from batchlab.training.devices.cpu import CpuDevice

SHARES = (0.01, 1.0, 0.0)  # of the learning rate: of the first layer, of the last one's weight and of its bias


class ThreeGroups(torch.optim.SGD):
    """The first layer at a hundredth of the learning rate, and the last bias as it is."""

    def __init__(self, params, lr):
        *body, weight, bias = params
        groups = [{"params": body, "lr": lr / 100}, {"params": [weight]}, {"params": [bias], "lr": 0.0}]
        super().__init__(groups, lr=lr, momentum=0.9)


class OwnLearningRates(torch.optim.SGD):
    """Takes no learning rate, and has two of its own."""

    def __init__(self, params):
        *body, last = params
        super().__init__([{"params": body, "lr": 0.003}, {"params": [last]}], lr=0.3)


class InSinglePrecision(torch.optim.Adam):
    def __init__(self, params, lr):
        super().__init__(params, lr=torch.tensor(lr), capturable=True)


def configured(tmp_path, optimizer=ThreeGroups, **changes):
    target = {"_target_": f"test_parameter_groups.{optimizer.__name__}"}
    return tiny(tmp_path, model={"norm": False}, optimizer=target, schedule="linear", warmup=0.25, **changes)


def session_of(config):
    return assembly.assemble(config, assembly.build_data(config, CpuDevice()))


def test_the_groups_are_trained_as_by_a_plain_loop_that_moves_each_learning_rate_by_itself(tmp_path):
    config = configured(tmp_path)
    session, plain = session_of(config), session_of(config).state
    inputs, labels = plain.train
    body, last = plain.model.first, plain.model.last
    groups = [{"params": list(body.parameters())}, {"params": [last.weight]}, {"params": [last.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    before = last.bias.detach().clone()
    for start in range(0, 40, 4):
        done = (start + 2) / 40
        for group, share in zip(optimizer.param_groups, SHARES, strict=True):
            group["lr"] = 0.05 * share * (done / 0.25 if done < 0.25 else 1 - (done - 0.25) / 0.75)
        index = row(40, config.seed, start, 4)
        optimizer.zero_grad()
        F.cross_entropy(plain.model(inputs[index]), labels[index]).backward()
        optimizer.step()

    list(session.train())

    for ours, theirs in zip(session.state.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert torch.equal(session.state.model.last.bias, before)
    assert session.state.learning_rate == pytest.approx(0.05 * (1 - (38 / 40 - 0.25) / 0.75))  # of the run


def test_they_keep_it_when_the_run_is_resumed(tmp_path):
    with quick():
        whole = train(configured(tmp_path / "whole"))
        resumed = configured(tmp_path / "resumed")
        assert train(resumed, stopping=stop_at(5)).status == "interrupted"
        record = train(resumed)

    assert record.resumed_at == (5,)
    assert record.weights_fingerprint == whole.weights_fingerprint


@pytest.mark.parametrize(
    ("optimizer", "learning_rates"),
    [
        (ThreeGroups, [0.0005, 0.05, 0.0]),
        (OwnLearningRates, [0.0005, 0.05]),  # the option lr is honoured: at one learning rate of its own it is 0.05
        (InSinglePrecision, [0.05]),
    ],
)
def test_at_the_peak_each_has_what_it_was_built_with(optimizer, learning_rates, tmp_path):
    session = session_of(tiny(tmp_path, optimizer={"_target_": f"test_parameter_groups.{optimizer.__name__}"}))
    if optimizer is InSinglePrecision:
        session.state.optimizer.param_groups[0]["capturable"] = False  # which is for GPUs

    list(session.train())

    assert [group["lr"] for group in session.state.optimizer.param_groups] == pytest.approx(learning_rates, rel=1e-12)


def test_a_lone_group_has_the_learning_rate_of_the_run_to_the_bit(tmp_path):
    session = session_of(tiny(tmp_path, optimizer=SGD, lr=0.1 + 0.2, schedule="cosine"))
    seen = []
    session.state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append((optimizer.param_groups[0]["lr"], session.state.learning_rate))
    )

    list(session.train())

    assert len(seen) == 10
    assert all(group == run for group, run in seen)

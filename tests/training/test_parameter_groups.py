"""A parameter group with another learning rate than the run's keeps its multiple of it."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torture.kth_call import quick
from torture.tiny import SGD, stop_at, tiny, train

from batchlab.errors import BadRequest
from batchlab.training import assembly, checkpoint
from batchlab.training.data.order import row
from batchlab.training.devices.cpu import CpuDevice

SHARES = (0.01, 1.0, 0.0)  # of the learning rate: the first layer, the last one's weight and its bias


class ThreeGroups(torch.optim.SGD):
    """The first layer at a hundredth of the learning rate, and the last bias at 0 times it."""

    def __init__(self, params, lr):
        *body, weight, bias = params
        groups = [{"params": body, "lr": lr / 100}, {"params": [weight]}, {"params": [bias], "lr": 0.0}]
        super().__init__(groups, lr=lr, momentum=0.9)


class OwnLearningRates(torch.optim.SGD):
    """Takes no learning rate; has two fixed ones."""

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
        (OwnLearningRates, [0.0005, 0.05]),  # the option lr is honoured: its larger learning rate is 0.05
        (InSinglePrecision, [0.05]),
    ],
)
def test_at_the_peak_each_has_what_it_was_built_with(optimizer, learning_rates, tmp_path):
    session = session_of(tiny(tmp_path, optimizer={"_target_": f"test_parameter_groups.{optimizer.__name__}"}))
    if optimizer is InSinglePrecision:
        session.state.optimizer.param_groups[0]["capturable"] = False  # which is for GPUs

    list(session.train())

    assert [group["lr"] for group in session.state.optimizer.param_groups] == pytest.approx(learning_rates, rel=1e-12)


def test_a_single_group_has_bitwise_the_learning_rate_of_the_run(tmp_path):
    session = session_of(tiny(tmp_path, optimizer=SGD, lr=0.1 + 0.2, schedule="cosine"))
    seen = []
    session.state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append((optimizer.param_groups[0]["lr"], session.state.learning_rate))
    )

    list(session.train())

    assert len(seen) == 10
    assert all(group == run for group, run in seen)


# multiples are kept, and changes of them are refused


class EditedSince(torch.optim.SGD):
    """One group; or, if `share` is set later, the last parameter in a second group."""

    share = None  # of the learning rate

    def __init__(self, params, lr):
        *body, last = params
        apart = [{"params": body}, {"params": [last], "lr": lr * (self.share or 1)}]
        super().__init__([*body, last] if self.share is None else apart, lr=lr, momentum=0.9)


@pytest.fixture
def by_an_older_version(monkeypatch):
    """Removes the multiples from checkpoints, as in versions that trained all groups at one learning rate."""
    read = checkpoint.read

    def without_multiples(content):
        found = read(content)
        del found["group_multiples"]
        return found

    monkeypatch.setattr(checkpoint, "read", without_multiples)


def test_a_record_has_the_multiples_of_its_groups(tmp_path):
    with quick():
        assert train(configured(tmp_path)).environment["group_multiples"] == pytest.approx(SHARES)


def test_a_run_is_not_resumed_at_other_multiples(tmp_path, monkeypatch):
    config = configured(tmp_path, optimizer=EditedSince)
    with quick():
        train(config, stopping=stop_at(5))
        monkeypatch.setattr(EditedSince, "share", 0.5)
        record = train(config)

    assert (record.status, record.steps) == ("failed", 0)
    assert (
        "trained at 1 times the learning rate, but the optimizer now has them at 1, 0.5 times the learning rate"
        in record.reason
    )
    assert record.reason.endswith("; use force=true")


@pytest.mark.usefixtures("by_an_older_version")
def test_an_older_checkpoint_is_not_resumed_where_the_multiples_are_not_all_one(tmp_path):
    config = configured(tmp_path)
    with quick():
        train(config, stopping=stop_at(5))
        record = train(config)

    assert record.status == "failed"
    assert (
        "trained at 1, 1, 1 times the learning rate, but the optimizer now has them at 0.01, 1, 0 times"
        in record.reason
    )


@pytest.mark.usefixtures("by_an_older_version")
def test_an_older_checkpoint_of_one_learning_rate_for_all_is_resumed(tmp_path):
    with quick():
        whole = train(configured(tmp_path / "whole", optimizer=EditedSince))
        resumed = configured(tmp_path / "resumed", optimizer=EditedSince)
        train(resumed, stopping=stop_at(5))
        record = train(resumed)

    assert record.resumed_at == (5,)
    assert record.weights_fingerprint == whole.weights_fingerprint


def after_step(session, step, change):
    """Makes the optimizer call `change` at the end of that step, as user code may."""
    steps = itertools.count(1)
    session.state.optimizer.register_step_post_hook(lambda *_: change() if next(steps) == step else None)


def test_groups_that_user_code_replaces_follow_the_learning_rate_of_the_run(tmp_path):
    session = session_of(configured(tmp_path))
    optimizer = session.state.optimizer
    after_step(session, 4, lambda: optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict())))

    list(session.train())

    expected = [share * session.state.learning_rate for share in SHARES]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)


def test_a_group_that_is_added_while_the_run_trains_is_refused(tmp_path):
    session = session_of(configured(tmp_path))
    added = {"params": [torch.nn.Parameter(torch.zeros(3))]}
    after_step(session, 4, lambda: session.state.optimizer.add_param_group(added))

    with pytest.raises(
        BadRequest, match=r"has 4 parameter groups after step 4, but was created with 3: .*create them all"
    ):
        list(session.train())
    assert session.state.step == 4

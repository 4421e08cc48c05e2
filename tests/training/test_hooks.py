"""Parameter groups, losses with parameters and hooks of a task, each against a plain loop in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torture.kth_call import quick
from torture.tiny import Data, Net, stop_at, tiny, train

from batchlab import Task
from batchlab.errors import BadRequest
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.passes.evaluation import by_example
from batchlab.worker.preflight import examine

HERE = "test_hooks."
FLOAT64 = "the model's parameters are float64 and are trained as such: precision=fp32 keeps them"
EXACT = {"rtol": 0, "atol": 1e-10}


class Centres(nn.Module):
    """Cross-entropy, and the squared distance of the outputs to a trained centre; counts its passes in a buffer."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, outputs, batch):
        if self.training:
            self.passes += 1
        own = F.cross_entropy(outputs, batch[1], reduction="none")
        return own + 0.1 * (outputs - self.centre).square().sum(1) / (1 + self.passes)


class Average:
    """An exponential average of the weights, which is validated in their place."""

    def __init__(self):
        self.average = None
        self.steps = []

    def after_step(self, model, step):
        self.steps.append(step)
        with torch.no_grad():
            if self.average is None:
                self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
            for name, p in model.named_parameters():
                self.average[name].lerp_(p, 0.25)

    def evaluate_with(self, model):
        if self.average is None:
            return model
        double = copy.deepcopy(model)
        double.load_state_dict(self.average, strict=False)
        return double

    def state_dict(self):
        return {"average": self.average, "steps": self.steps}

    def load_state_dict(self, state):
        self.average, self.steps = state["average"], state["steps"]


def data(**changes):
    made = Data(dtype="float64")
    return Task(**(vars(made) | changes))


def by_centres():
    return data(loss=Centres())


def averaged():
    hook = Average()
    return data(after_step=hook.after_step, evaluate_with=hook.evaluate_with)


def averaged_in_a_lambda():
    hook = Average()
    return data(after_step=lambda model, step: hook.after_step(model, step))


def averaged_without_state():
    hook = Average()
    hook.state_dict = None
    return data(after_step=hook.after_step)


class Shifts:
    """Shifts the inputs by another random number in each epoch."""

    def __init__(self):
        self.shift, self.calls = None, []

    def on_epoch(self, epoch, seed):
        self.calls.append((epoch, seed))
        self.shift = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def augment(self, batch, draws):
        return batch[0] + self.shift, batch[1]


class Wanders(Shifts):
    """Adds up the shifts, so that an epoch that begins twice makes a difference."""

    def __init__(self):
        super().__init__()
        self.sum = torch.zeros((), dtype=torch.float64)

    def on_epoch(self, epoch, seed):
        super().on_epoch(epoch, seed)
        self.sum = self.sum + self.shift
        self.shift = self.sum

    def state_dict(self):
        return {"sum": self.sum, "shift": self.shift}

    def load_state_dict(self, state):
        self.sum, self.shift = state["sum"], state["shift"]


def wandering():
    hook = Wanders()
    return data(on_epoch=hook.on_epoch, augment=hook.augment)


def shifted():
    hook = Shifts()
    return data(on_epoch=hook.on_epoch, augment=hook.augment)


def grouped():
    """The first layer at a tenth of the learning rate, the last one without weight decay."""

    def groups(model):
        return [
            {"params": model.first.parameters(), "lr": 0.1},
            {"params": [p for n, p in model.named_parameters() if n.startswith("last")], "weight_decay": 0.0},
        ]

    return data(parameter_groups=groups, loss=Centres())


def named_rates(named_parameters, lr, weight_decay):
    del weight_decay
    return torch.optim.SGD(
        [{"params": [p for n, p in named_parameters if n.startswith("first")], "lr": lr / 100}], lr=lr
    )


def configured(tmp_path, task, *, net=None, **changes):
    values = {"model": {"norm": False, "dtype": "float64"} | (net or {}), "schedule": "constant"} | changes
    return tiny(tmp_path, data={"_target_": HERE + task}, **values)


def session_of(config):
    return assembly.assemble(config, assembly.build_data(config, CpuDevice()))


def batches(state, seed, steps=10, size=4):
    inputs, labels = state.train
    for step in range(steps):
        index = row(len(inputs), seed, step * size, size)
        yield step, (inputs[index], labels[index])


def trained_plainly(state, seed, optimizer, *, loss=None, after_step=None, steps=10):
    loss = loss or (lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"))
    for step, batch in batches(state, seed, steps):
        optimizer.zero_grad()
        loss(state.model(batch[0]), batch).mean().backward()
        optimizer.step()
        if after_step is not None:
            after_step(state.model, step + 1)


def assert_equal(ours, theirs):
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def fresh(config):
    """The state of another session, and its optimizer's settings for a plain one."""
    return session_of(config).state


def test_the_parameters_of_a_loss_are_trained_and_counted(tmp_path):
    config = configured(tmp_path, "by_centres")
    session, plain = session_of(config), fresh(config)
    loss = plain.task.loss
    start = loss.centre.detach().clone()
    optimizer = torch.optim.SGD([*plain.model.parameters(), *loss.parameters()], lr=0.05, momentum=0.9)
    trained_plainly(plain, config.seed, optimizer, loss=loss)

    list(session.train())

    assert_equal(session.state.model, plain.model)
    assert_equal(session.state.task.loss, loss)
    assert int(session.state.task.loss.passes) == 10  # rehearsals and validations left no trace
    assert not torch.equal(loss.centre, start)
    with quick():
        record = train(config)
    assert record.parameters == sum(p.numel() for p in plain.model.parameters()) + 3


def test_a_loss_is_drawn_with_the_seed_of_the_run(tmp_path):
    one, again, other = (
        session_of(configured(tmp_path, "by_centres", seed=seed)).state.task.loss.centre for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_groups_train_at_multiples_of_the_learning_rate(tmp_path):
    config = configured(tmp_path, "grouped", schedule="linear", weight_decay=0.01)
    session, plain = session_of(config), fresh(config)
    model, loss = plain.model, plain.task.loss
    groups = [
        {"params": model.first.parameters()},
        {"params": model.last.parameters(), "weight_decay": 0.0},
        {"params": loss.parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)
    for step, batch in batches(plain, config.seed):
        for group, share in zip(optimizer.param_groups, (0.1, 1.0, 1.0), strict=True):
            group["lr"] = share * 0.05 * (1 - (4 * step + 2) / 40)
        optimizer.zero_grad()
        loss(model(batch[0]), batch).mean().backward()
        optimizer.step()

    list(session.train())

    assert session.state.group_multiples == pytest.approx((0.1, 1.0, 1.0))
    assert_equal(session.state.model, model)
    assert_equal(session.state.task.loss, loss)


def test_an_optimizer_that_asks_for_names_gets_them_and_the_rest_is_reported(tmp_path):
    config = configured(tmp_path, "data", optimizer={"_target_": HERE + "named_rates"})
    session, plain = session_of(config), fresh(config)
    optimizer = torch.optim.SGD(plain.model.first.parameters(), lr=0.0005)
    trained_plainly(plain, config.seed, optimizer)

    list(session.train())

    assert_equal(session.state.model, plain.model)
    with quick():
        dtype, note = train(config).notes
    assert dtype == FLOAT64
    assert note == "parameters in no group of the optimizer are not trained: last.weight and last.bias"


def test_groups_and_names_at_once_are_refused(tmp_path):
    config = configured(tmp_path, "grouped", optimizer={"_target_": HERE + "named_rates"})
    with pytest.raises(
        BadRequest, match=r"the task has parameter_groups, but .* takes no 'params': make the groups in"
    ):
        session_of(config)


def test_weights_are_averaged_after_each_step_and_validated_in_place_of_the_model(tmp_path):
    config = configured(tmp_path, "averaged")
    session, plain = session_of(config), fresh(config)
    hook = Average()
    trained_plainly(
        plain,
        config.seed,
        torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9),
        after_step=hook.after_step,
    )
    inputs, labels = plain.val

    list(session.train())

    ours = session.state.task.after_step.__self__
    assert ours.steps == list(range(1, 11))
    assert_equal(session.state.model, plain.model)
    with torch.no_grad():
        expected = F.cross_entropy(hook.evaluate_with(plain.model)(inputs), labels).item()
        unaveraged = F.cross_entropy(plain.model(inputs), labels).item()
    found = by_example(session.state, session.state.val, 8)["loss"].mean
    assert found == pytest.approx(expected, rel=1e-10)
    assert found != pytest.approx(unaveraged, rel=1e-4)


def test_each_epoch_begins_with_its_hook_even_where_batches_straddle_it(tmp_path):
    config = configured(tmp_path, "shifted", batch_size=16, steps=6)  # 96 examples of 40: epochs begin in steps 1, 3, 6
    session, plain = session_of(config), fresh(config)
    hook = Shifts()
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9)
    ours = session.state.task.on_epoch.__self__
    seen = []
    session.state.optimizer.register_step_pre_hook(lambda *_: seen.append(len(ours.calls)))
    list(session.train())
    assert seen == [1, 1, 2, 2, 2, 3]
    assert [epoch for epoch, _ in ours.calls] == [0, 1, 2]
    assert len({seed for _, seed in ours.calls}) == 3

    for step, (x, y) in batches(plain, config.seed, steps=6, size=16):
        hook.on_epoch(*ours.calls[seen[step] - 1])
        optimizer.zero_grad()
        F.cross_entropy(plain.model(x + hook.shift), y).backward()
        optimizer.step()

    assert_equal(session.state.model, plain.model)


@pytest.mark.parametrize("task", ["by_centres", "grouped", "averaged", "averaged_in_a_lambda", "shifted", "wandering"])
def test_it_resumes_to_the_same_bits(tmp_path, task):
    with quick():
        whole = train(configured(tmp_path / "whole", task, steps=25))
        resumed = configured(tmp_path / "resumed", task, steps=25)
        assert train(resumed, stopping=stop_at(13)).status == "interrupted"
        record = train(resumed)

    assert (record.status, record.resumed_at) == ("completed", (13,))
    assert record.weights_fingerprint == whole.weights_fingerprint
    assert record.final == {**whole.final, **timings(record)}
    assert whole.notes == record.notes == (FLOAT64,)


def timings(record):
    return {name: value for name, value in record.final.items() if name.startswith(("speed/", "memory/"))}


def fixed(dtype):
    net = Net(dtype=dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.linspace(-0.5, 0.5, p.numel()).view_as(p))
    return net


@pytest.mark.parametrize(("model", "same"), [("fixed", True), ("Net", False)])
def test_preflight_sees_initial_weights_that_do_not_depend_on_the_seed(tmp_path, model, same):
    grid = [
        tiny(
            tmp_path, data={"_target_": HERE + "data"}, model={"_target_": HERE + model, "dtype": "float64"}, seed=seed
        )
        for seed in (0, 1)
    ]

    problems, facts = examine(grid)

    assert problems == []
    assert [fact.same_weights for fact in facts] == [same, same]
    assert [fact.same_weights for fact in examine(grid[:1])[1]] == [False]


def test_state_that_cannot_be_saved_is_reported(tmp_path):
    with quick():
        _, note = train(configured(tmp_path, "averaged_without_state")).notes
    assert note == (
        "checkpoints do not have what after_step keeps in Average: if it changes in training, give that class "
        "state_dict and load_state_dict, or a resumed run starts without it"
    )


# modules that change how a model is executed


class Recomputed(Net):
    def forward(self, x):
        hidden = checkpoint(lambda x: torch.relu(self.first(x)), x, use_reentrant=False)
        return self.last(hidden)


class Compiled(Net):
    def __init__(self, norm=False, dtype="float64"):
        super().__init__(norm=norm, dtype=dtype)
        self.first = torch.compile(self.first, backend="eager")


@pytest.mark.parametrize("kind", [Recomputed, Compiled])
def test_checkpointed_and_compiled_modules_train_like_a_plain_loop(tmp_path, kind):
    config = configured(tmp_path, "data", net={"_target_": HERE + kind.__name__})
    session, plain = session_of(config), fresh(config)
    trained_plainly(plain, config.seed, torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9))

    list(session.train())

    assert_equal(session.state.model, plain.model)
    assert examine([config])[0] == []
    with quick():
        record = train(config)
    assert record.environment["dtypes"] == ["float64"]

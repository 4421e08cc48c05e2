"""Late gradients, closures, and optimizers with a mode, each against a plain loop in float64."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torture.kth_call import quick
from torture.tiny import Net, stop_at, tiny, train

from batchlab.errors import BadRequest
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker.check.examination import examine as check
from batchlab.worker.check.findings import Level
from batchlab.worker.preflight import examine

HERE = "test_unusual_optimizers."
EXACT = {"rtol": 0, "atol": 1e-10}


class Late(Net):
    """The second layer and its bias take part from the fourth pass in training mode on; `unused` never does."""

    def __init__(self, norm=False, dtype="float64"):
        super().__init__(norm=norm, dtype=dtype)
        self.late = torch.nn.Linear(8, 8, dtype=torch.float64)
        self.unused = torch.nn.Linear(2, 2, dtype=torch.float64)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        self.passes += int(self.training)
        return self.last(self.late(hidden) if self.passes > 3 else hidden)


class Averaging(torch.optim.Optimizer):
    """Schedule-free in small: the weights are z in training, and the mean x of all z in evaluation."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "training": False, "k": 0})

    def train(self):
        self._switch(training=True)

    def eval(self):
        self._switch(training=False)

    @torch.no_grad()
    def _switch(self, *, training):
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for p in group["params"]:
                    if "x" in self.state[p]:
                        change = self.state[p]["z"] - self.state[p]["x"]
                        p.add_(change if training else -change)
                        p.add_(100).sub_(100)  # rounds, which measuring must not leave behind

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if not group["training"]:
                raise RuntimeError("not in train mode")
            group["k"] += 1
            for p in group["params"]:
                p -= group["lr"] * p.grad
                state = self.state[p]
                x = state.setdefault("x", torch.zeros_like(p))
                x += (p - x) / group["k"]
                state["z"] = p.clone()


class Sharpness(torch.optim.SGD):
    """Sharpness-aware minimization, called as its public implementation is: after a backward pass."""

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "requires closure"
        moves = {}
        for group in self.param_groups:
            norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
            for p in group["params"]:
                moves[p] = p.grad * (0.05 / norm)
                p.data.add_(moves[p])  # which no version counter sees
        with torch.enable_grad():
            closure()
        for p, move in moves.items():
            p.sub_(move)
        super().step()


def configured(tmp_path, optimizer, *, model=None, **changes):
    return tiny(
        tmp_path,
        dtype="float64",
        model={"norm": False} | (model or {}),
        optimizer=optimizer,
        schedule="constant",
        **changes,
    )


def session_of(config):
    return assembly.assemble(config, assembly.build_data(config, CpuDevice()))


def batches(state, seed=0, steps=10, size=4):
    inputs, labels = state.train
    for step in range(steps):
        index = row(len(inputs), seed, step * size, size)
        yield inputs[index], labels[index]


def pass_of(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def assert_equal(ours, theirs):
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.3, "weight_decay": 0.01}])
def test_fused_sgd_trains_late_and_unused_parameters_as_the_unfused_one(tmp_path, options):
    options = {"momentum": 0.9, **options}
    given = {k: v for k, v in options.items() if k != "weight_decay"}
    optimizer = {"_target_": "torch.optim.SGD", "fused": True, **given}
    config = configured(
        tmp_path,
        optimizer,
        model={"_target_": HERE + "Late"},
        weight_decay=options.get("weight_decay", 0.0),
        eval_every=400,
    )
    session, plain = session_of(config), session_of(config).state
    other = torch.optim.SGD(plain.model.parameters(), lr=0.05, **options)
    start = plain.model.late.weight.detach().clone(), plain.model.unused.weight.detach().clone()
    for x, y in batches(plain, config.seed):
        pass_of(plain.model, other, x, y)
        other.step()

    list(session.train())

    assert_equal(session.state.model, plain.model)
    assert not torch.equal(session.state.model.late.weight, start[0])
    assert torch.equal(session.state.model.unused.weight, start[1])
    assert all(group["fused"] for group in session.state.optimizer.param_groups)


@pytest.mark.parametrize(("model", "stop"), [("Late", 2), ("SparseLate", 5)])
def test_a_run_with_late_or_sparse_gradients_resumes_to_the_same_bits(tmp_path, model, stop):
    config = partial(
        configured,
        optimizer={"_target_": "torch.optim.SGD", "momentum": 0.9, "fused": True},
        model={"_target_": HERE + model},
    )
    with quick():
        whole = train(config(tmp_path / "whole"))
        train(config(tmp_path / "resumed"), stopping=stop_at(stop))
        record = train(config(tmp_path / "resumed"))

    assert (whole.status, record.status, record.resumed_at) == ("completed", "completed", (stop,))
    assert record.weights_fingerprint == whole.weights_fingerprint


class SparseLate(Net):
    """Rows of a table, whose gradients are sparse, are added; those of `late` from the fourth pass on."""

    def __init__(self, norm=False, dtype="float64"):
        super().__init__(norm=norm, dtype=dtype)
        self.rows = torch.nn.Embedding(7, 8, sparse=True, dtype=torch.float64)
        self.late = torch.nn.Embedding(7, 8, sparse=True, dtype=torch.float64)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        index = (x[:, 0].abs() * 2).long().clamp(max=6)
        hidden = torch.relu(self.first(x)) + self.rows(index)
        self.passes += int(self.training)
        return self.last(hidden + self.late(index) if self.passes > 3 else hidden)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_fused_sgd_trains_sparse_gradients_as_the_unfused_one(tmp_path, options):
    config = configured(
        tmp_path,
        {"_target_": "torch.optim.SGD", "fused": True, **options},
        model={"_target_": HERE + "SparseLate"},
        eval_every=400,
    )
    session, plain = session_of(config), session_of(config).state
    other = torch.optim.SGD(plain.model.parameters(), lr=0.05, fused=False, **options)
    for x, y in batches(plain, config.seed):
        pass_of(plain.model, other, x, y)
        other.step()

    list(session.train())

    assert_equal(session.state.model, plain.model)
    assert examine([config])[0] == []


@pytest.mark.parametrize("fused", [True, False])
def test_sparse_momentum_has_each_row_once(tmp_path, fused):
    config = configured(
        tmp_path,
        {"_target_": "torch.optim.SGD", "momentum": 0.9, "fused": fused},
        model={"_target_": HERE + "SparseLate"},
    )
    session = session_of(config)

    list(session.train())

    state = session.state.optimizer.state[session.state.model.rows.weight]
    assert 0 < state["momentum_buffer"]._nnz() <= 7


class Rows(torch.nn.Embedding):
    def __init__(self, gain=1.0):
        super().__init__(7, 3, sparse=True)
        self.gain = gain  # large: the gradients overflow in fp16

    def forward(self, x):
        found = super().forward((x[:, 0].abs() * 2).long().clamp(max=6))
        return found if self.gain == 1.0 else found.half() * self.gain


def test_fp16_skips_an_overflow_of_sparse_gradients(tmp_path):
    config = replace(
        tiny(
            tmp_path,
            optimizer={"_target_": "torch.optim.SGD", "momentum": 0.9, "fused": True},
            steps=4,
            precision="fp16",
        ),
        model={"_target_": HERE + "Rows", "gain": 1e4},
    )
    session = session_of(config)
    start = session.state.model.weight.detach().clone()

    list(session.train())

    assert session.state.precision.loss_scale() < 65536  # it overflowed
    assert torch.isfinite(session.state.model.weight).all()
    assert torch.equal(session.state.model.weight, start)


def test_hooks_of_fused_sgd_are_removed_after_the_first_step(tmp_path):
    optimizer = {"_target_": "torch.optim.SGD", "fused": True}
    for momentum in (0.0, 0.9):
        session = session_of(configured(tmp_path, optimizer | {"momentum": momentum}))
        before = len(session.state.optimizer._optimizer_step_pre_hooks)

        list(session.train())

        assert (before, len(session.state.optimizer._optimizer_step_pre_hooks)) == (1, 0)


@pytest.mark.parametrize(
    ("model", "optimizer", "weight_decay", "sentence"),
    [
        (
            "SparseLate",
            "torch.optim.AdamW",
            0.0,
            "optimizer._target_=torch.optim.AdamW cannot use the sparse gradients of rows.weight (Adam does not "
            "support sparse gradients, please consider SparseAdam instead): use optimizer=sgd, or let the model make "
            "dense gradients (sparse=False in nn.Embedding)",
        ),
        (
            "Rows",
            "torch.optim.Adam",
            0.0,
            "optimizer._target_=torch.optim.Adam cannot use the sparse gradients of weight (Adam does not support "
            "sparse gradients, please consider SparseAdam instead): use optimizer._target_=torch.optim.SparseAdam or "
            "optimizer=sgd, or let the model make dense gradients (sparse=False in nn.Embedding)",
        ),
        (
            "Rows",
            "torch.optim.SGD",
            0.01,
            "weight_decay=0.01 with optimizer._target_=torch.optim.SGD cannot use the sparse gradients of weight "
            "(add(sparse, dense) is not supported. Use add(dense, sparse) instead): use weight_decay=0, or let the "
            "model make dense gradients (sparse=False in nn.Embedding)",
        ),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_preflight_and_check_say_what_takes_sparse_gradients(tmp_path, model, optimizer, weight_decay, sentence, fused):
    made = tiny(tmp_path, optimizer={"_target_": optimizer, "fused": fused}, weight_decay=weight_decay)
    config = replace(made, model={"_target_": HERE + model})
    data = {"dtype": "float64"} if model == "SparseLate" else {}
    config = replace(config, data=config.data | data)
    what, _, advice = sentence.rpartition(": ")

    assert examine([config])[0] == [sentence]
    if not data:  # the check is in fp32
        wrongs = [finding for finding in check(config).findings if finding.level is Level.WRONG]
        assert [(finding.name, finding.what, finding.advice) for finding in wrongs] == [("learns", what, advice)]


def test_weights_are_those_of_training_in_steps_and_averaged_in_validation(tmp_path):
    config = configured(tmp_path, {"_target_": HERE + "Averaging"})
    session, plain = session_of(config), session_of(config).state
    other = Averaging(plain.model.parameters(), 0.05)
    inputs, labels = plain.val
    expected = []

    def validate():
        other.eval()
        with torch.no_grad():
            expected.append(F.cross_entropy(plain.model(inputs), labels).item())
        other.train()

    validate()
    for step, (x, y) in enumerate(batches(plain, config.seed), 1):
        pass_of(plain.model, other, x, y)
        other.step()
        if step in (4, 8, 10):
            validate()
    losses = [m.value for m in session.train(PeriodicValidation(16)) if m.name == "probe/val"]

    assert_equal(session.state.model, plain.model)
    assert losses == pytest.approx(expected, rel=1e-10)


class PeriodicValidation:
    """An instrument that validates."""

    instrument_name, quantities = "probe", ()

    def __init__(self, every):
        self.every = every

    def watch(self, outcome):
        pass

    def measure(self, state):
        from batchlab.training.passes.evaluation import by_example

        yield state.measurement("probe/val", by_example(state, state.val, 64)["loss"].mean)

    def conclude(self, state):
        yield from ()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_measuring_and_resuming_leave_the_weights_of_such_an_optimizer_bitwise(tmp_path):
    optimizer = {"_target_": HERE + "Averaging"}
    with quick():
        often = train(configured(tmp_path / "often", optimizer, eval_every=4))
        seldom = train(configured(tmp_path / "seldom", optimizer, eval_every=400))
        resumed = configured(tmp_path / "resumed", optimizer, eval_every=4)
        train(resumed, stopping=crash_at(5))  # so the last checkpoint is one that was taken between measurements
        record = train(resumed)

    assert often.weights_fingerprint == seldom.weights_fingerprint == record.weights_fingerprint
    assert record.resumed_at == (3,)


def crash_at(step):
    """A `stopping` that raises before the step after that many."""
    requested = itertools.count()

    def stopping():
        if next(requested) >= step:
            raise RuntimeError("crashed")
        return False

    return stopping


def test_lbfgs_gets_a_closure(tmp_path):
    optimizer = {"_target_": "torch.optim.LBFGS", "max_iter": 4, "history_size": 3}
    config = configured(tmp_path, optimizer, model={"norm": True})
    session, plain = session_of(config), session_of(config).state
    other = torch.optim.LBFGS(plain.model.parameters(), lr=0.05, max_iter=4, history_size=3)
    for x, y in batches(plain, config.seed):
        other.step(lambda x=x, y=y: pass_of(plain.model, other, x, y))

    list(session.train())

    assert_equal(session.state.model, plain.model)
    assert session.state.model.norm.num_batches_tracked == plain.model.norm.num_batches_tracked > 10  # no pass more


def test_a_sharpness_aware_optimizer_gets_gradients_and_a_closure(tmp_path):
    config = configured(tmp_path, {"_target_": HERE + "Sharpness", "momentum": 0.9})
    session, plain = session_of(config), session_of(config).state
    other = Sharpness(plain.model.parameters(), lr=0.05, momentum=0.9)
    for x, y in batches(plain, config.seed):
        pass_of(plain.model, other, x, y)
        other.step(lambda x=x, y=y: pass_of(plain.model, other, x, y))

    list(session.train())

    assert_equal(session.state.model, plain.model)


@pytest.mark.parametrize("optimizer", ["torch.optim.LBFGS", HERE + "Sharpness"])
def test_preflight_refuses_where_no_closure_can_be_given(tmp_path, optimizer):
    accumulated = configured(tmp_path, {"_target_": optimizer}, accumulate=2)
    half = configured(tmp_path, {"_target_": optimizer}, precision="fp16")
    fine = configured(tmp_path, {"_target_": optimizer})

    name = optimizer.rpartition(".")[2]
    assert examine([fine])[0] == []
    (problem,) = examine([fine, accumulated])[0]
    assert problem.startswith(f"more than one micro-batch per step does not work with {name}")
    assert problem.endswith("use accumulate=1, or another optimizer")
    (problem,) = examine([half])[0]
    assert problem.startswith(f"precision=fp16 does not work with {name}")
    with pytest.raises(BadRequest, match="accumulate=1"):
        list(session_of(accumulated).train())


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (
            {"_target_": "torch.optim.SGD", "nesterov": "yes", "momentum": 0.9},
            "optimizer.nesterov=yes is a text, but torch.optim.SGD takes true or false: use for example "
            "optimizer.nesterov=true",
        ),
        (
            {"_target_": "torch.optim.SGD", "momentum": "abc"},
            "optimizer.momentum=abc is a text, but torch.optim.SGD takes a number: "
            "use for example optimizer.momentum=0",
        ),
        (
            {"_target_": "torch.optim.SGD", "fused": "on"},
            "optimizer.fused=on is a text, but torch.optim.SGD takes true or false: use for example "
            "optimizer.fused=true",
        ),
        (
            {"_target_": "torch.optim.SparseAdam"},
            "optimizer._target_=torch.optim.SparseAdam fails in its first step: SparseAdam does not support dense "
            "gradients, please consider Adam instead: change its options, or use another optimizer",
        ),
    ],
)
def test_preflight_makes_a_step_and_names_the_option(tmp_path, optimizer, sentence):
    assert examine([configured(tmp_path, optimizer)])[0] == [sentence]


def test_the_step_of_preflight_is_no_step_of_the_run(tmp_path):
    config = configured(tmp_path, {"_target_": "torch.optim.SGD", "momentum": 0.9})
    with quick():
        first = train(tiny_named(config, tmp_path / "one"))
        examine([config])
        second = train(tiny_named(config, tmp_path / "two"))

    assert first.weights_fingerprint == second.weights_fingerprint


def tiny_named(config, runs_dir):
    from dataclasses import replace

    return replace(config, runs_dir=str(runs_dir))


class Factors(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = torch.nn.Embedding(7, 3, sparse=True, dtype=torch.float64)

    def forward(self, x):
        return self.rows((x[:, 0].abs() * 2).long().clamp(max=6))


def test_an_optimizer_for_sparse_gradients_needs_no_closure_and_may_accumulate(tmp_path):
    config = tiny(
        tmp_path, dtype="float64", optimizer={"_target_": "torch.optim.SparseAdam"}, micro_batch_size=3,
        model={"_target_": f"{HERE}Factors"}, weight_decay=0.0,
    )  # fmt: skip
    config = replace(config, model={"_target_": f"{HERE}Factors"})
    session = assembly.assemble(config, assembly.build_data(config, CpuDevice()))

    list(session.train())

    plain = assembly.build_model(config, session.state.task, CpuDevice())
    optimizer = torch.optim.SparseAdam(plain.parameters(), lr=config.lr)
    inputs, labels = session.state.train
    for start in range(0, 40, 4):
        index = row(40, config.seed, start, 4)
        optimizer.param_groups[0]["lr"] = config.lr
        optimizer.zero_grad()
        F.cross_entropy(plain(inputs[index]), labels[index]).backward()
        optimizer.step()
    torch.testing.assert_close(session.state.model.rows.weight, plain.rows.weight, **EXACT)

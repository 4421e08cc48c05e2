"""What the user's code decides stays so: modules in eval mode, the data, and what a forward pass changes.

The oracle is a plain PyTorch loop over the same batches, or a run that measures less often, bit for bit.
"""

import collections

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torture.tiny import tiny

from batchlab import Task
from batchlab.errors import BadRequest
from batchlab.instruments.gradient.gradient_norm import Gradient
from batchlab.instruments.gradient.gradient_statistics import GradientStatistics
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale
from batchlab.instruments.memory import Memory
from batchlab.instruments.validation import Validation
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.passes.no_trace import leaving_no_trace
from batchlab.worker.verify.trial import Trial

pytestmark = pytest.mark.long  # several runs for each kind of model


class Net(nn.Module):
    """Two layers with BatchNorm between them."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


# Modes


class FrozenNorm(Net):
    """Its BatchNorm is left in eval mode."""

    def __init__(self):
        super().__init__()
        self.norm.eval()


class FrozenByTrain(Net):
    """The usual way to keep a part in eval mode."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


def pretrained():
    """As functions that load weights return a model: all of it is in eval mode."""
    return Net().eval()


# In-place


class InPlace(Net):
    """Changes its input. `way`: how; `since`: from which value in the batch."""

    def __init__(self, way="sub_", least=-torch.inf, only_training=False):
        super().__init__()
        self.way, self.least, self.only_training = way, least, only_training

    def forward(self, x):
        if x.max() < self.least or (self.only_training and not self.training):
            return super().forward(x)
        if self.way == "sub_":
            x.sub_(0.1)
        elif self.way == "data":
            x.data.sub_(0.1)
        elif self.way == "numpy":
            x.numpy()[...] -= 0.1
        else:
            x = x - 0.1
        return super().forward(x)


# What a forward pass changes


class Reassigned(Net):
    """Reassigns a registered buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(6))

    def forward(self, x):
        self.centre = self.centre.lerp(x.detach().mean(0), 0.1)
        return super().forward(x - self.centre)


class Moved(Net):
    """Changes a parameter in place, without autograd: a momentum encoder."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(6, 8).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.first.parameters(), strict=True):
                self.move(slow, fast)
        return self.last(torch.relu(self.norm(self.first(x) + self.teacher(x))))

    def move(self, slow, fast):
        slow.mul_(0.9).add_(fast, alpha=0.1)


class MovedByData(Moved):
    def move(self, slow, fast):
        slow.data.mul_(0.9).add_(fast.data, alpha=0.1)


class GivenOtherData(Moved):
    def move(self, slow, fast):
        slow.data = 0.9 * slow.data + 0.1 * fast.data


class Constrained(Net):
    """Limits the norm of trained weights in forward, to a limit that falls."""

    def __init__(self):
        super().__init__()
        self.limit = 1.0

    def forward(self, x):
        self.limit *= 0.9
        self.last.weight.data = torch.renorm(self.last.weight.data, p=2, dim=0, maxnorm=self.limit)
        return super().forward(x)


class Attributes(Net):
    """Keeps its state in plain Python attributes."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.means = [torch.zeros(6)]
        self.table = {"mean": torch.zeros(6), "calls": {"all": 0}}
        self.recent = collections.deque(maxlen=3)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        mean = x.detach().mean(0)
        self.calls += 1
        self.means.append(self.means[-1].lerp(mean, 0.1))
        self.table["mean"].mul_(0.9).add_(mean, alpha=0.1)
        self.table["calls"]["all"] += 1
        self.recent.append(mean)
        if not hasattr(self, "first_mean"):
            self.first_mean = mean
        shift = self.means[-1] + self.table["mean"] + sum(self.recent) + self.first_mean
        noise = torch.rand(6, generator=self.generator)
        return super().forward(x - 0.1 * shift - noise) * (1 + 0.01 * self.calls + 0.01 * self.table["calls"]["all"])


KINDS = (Reassigned, Moved, MovedByData, GivenOtherData, Constrained, Attributes)


class MovesLater(Moved):
    """Begins to move its teacher after some passes in training mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def move(self, slow, fast):
        self.steps += self.training
        if self.steps > 6:
            super().move(slow, fast)


class Wide(Task):
    """The tiny data in float64."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(56, 6, generator=generator, dtype=torch.float64)
        made = Task.classification((x[:40], x[:40, :3].argmax(1)), (x[40:], x[40:, :3].argmax(1)))
        super().__init__(**vars(made))


def wide():
    return Net().double()


def session_of(tmp_path, model, instruments=(), note=lambda text: None, **changes):
    options = {key: changes.pop(key) for key in ("way", "least", "only_training") if key in changes}
    config = tiny(tmp_path, model={"_target_": f"test_nothing_overruled.{model.__name__}", **options}, **changes)
    data = assembly.build_data(config, CpuDevice())
    return assembly.assemble(config, data, lambda *_: list(instruments), note=note)


def validation(every=8):
    validation = Validation(eval_every=every, eval_batch_size=6)
    validation.instrument_name = "validation"
    return validation


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plainly_trained(session, *, steps=10):
    """The model of a session, trained by a plain loop; the session has not begun."""
    state = session.state
    inputs, labels = state.train
    for step in range(steps):
        index = row(len(inputs), session.config.seed, step * 4, 4)
        state.optimizer.zero_grad()
        F.cross_entropy(state.model(inputs[index]), labels[index]).backward()
        state.optimizer.step()
    return state.model


@pytest.mark.parametrize(("model", "frozen"), [(FrozenNorm, True), (FrozenByTrain, True), (pretrained, False)])
def test_modules_in_eval_mode_stay_so_and_train_as_in_a_plain_loop(tmp_path, model, frozen):
    notes = []
    session = session_of(tmp_path, model, [validation()], note=notes.append)
    begun = weights(session.state.model)

    list(session.train())

    trained = session.state.model
    assert [module.training for module in trained.modules()] == [True, True, not frozen, True]
    if frozen:
        assert torch.equal(trained.norm.running_mean, begun["norm.running_mean"])
        assert notes == ["in eval mode during training, as the model's code left them: norm"]
    else:
        assert int(trained.norm.num_batches_tracked) == 10
        assert not notes
    plain = plainly_trained(session_of(tmp_path, model))
    for name, value in weights(plain).items():
        assert torch.allclose(trained.state_dict()[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("model", [FrozenNorm, FrozenByTrain])
def test_verify_passes_frozen_modules_as_training_does(tmp_path, model):
    session = session_of(tmp_path, model)
    state = session.state
    trial = Trial(state.model, state.task, state.precision, [state.train], (8,) * 5, "fp32", 0)

    assert trial.difference().worst < 1e-5  # with BatchNorm in training mode it is about 1


@pytest.mark.parametrize("way", ["sub_", "data", "numpy"])
@pytest.mark.parametrize("least", [-torch.inf, 2.0])  # the second one: some batches only
def test_a_model_that_changes_its_input_leaves_the_data_as_they_are(tmp_path, way, least):
    def measured(way):
        session = session_of(tmp_path, InPlace, [validation()], way=way, least=least)
        given = [t.clone() for t in (*session.state.train, *session.state.val)]
        found = [(m.name, m.step, m.value) for m in session.train()]
        for tensor, before in zip((*session.state.train, *session.state.val), given, strict=True):
            assert torch.equal(tensor, before)
        return found, weights(session.state.model)

    found, trained = measured(way)
    expected, expected_weights = measured("none")

    assert len(found) == 2 * 6
    assert found == expected
    assert same(trained, expected_weights)


def test_one_that_begins_to_change_its_input_after_the_first_validation_is_refused(tmp_path):
    session = session_of(tmp_path, InPlace, [validation()], least=torch.inf)
    session.state.model.requires_grad_(True)
    training = session.train()
    next(training)
    session.state.model.least = -torch.inf

    with pytest.raises(BadRequest, match=r"not in the first validation.* write x = x - 0\.1 instead of"):
        list(training)


def test_sharpness_and_the_noise_scale_of_such_a_model_are_those_of_one_that_does_not(tmp_path):
    from batchlab.instruments.curvature.hessian import loss_surface

    def curvature(way):
        session = session_of(tmp_path, InPlace, [validation()], way=way)
        list(session.train())
        with loss_surface(session.state, session.state.val, chunk=5, double=False) as surface:
            vector = torch.linspace(-1, 1, surface.weights.numel(), dtype=surface.dtype)
            products = [surface.hessian_product(vector) for _ in range(3)]
        assert torch.equal(products[0], products[2])
        return products[0]

    assert torch.equal(curvature("sub_"), curvature("none"))


def everything():
    made = {
        "validation": validation(2),
        "gradient": Gradient(eval_every=4, every=4, batch_size=4, micro_batch_size=2, seed=0),
        "memory": Memory(micro_batch_size=4),
        "statistics": GradientStatistics(batch_size=4, micro_batch_size=2, budget=40, clip_norm=None, seed=0, every=8),
        "noise": GradientNoiseScale(
            batch_size=4, micro_batch_size=2, eval_every=8, budget=40, seed=0, method="micro_batches"
        ),
    }
    for name, instrument in made.items():
        instrument.instrument_name = name
    return made.values()


def state_of(model):
    own = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    own.pop("generator", None)
    return repr(own)


@pytest.mark.parametrize("model", KINDS)
def test_measuring_more_often_does_not_change_what_a_forward_pass_changes(tmp_path, model):
    bare, measured = session_of(tmp_path, model), session_of(tmp_path, model, everything())
    list(bare.train())
    list(measured.train())

    assert same(weights(measured.state.model), weights(bare.state.model))
    assert state_of(measured.state.model) == state_of(bare.state.model)


@pytest.mark.parametrize("model", KINDS)
def test_such_a_model_trains_as_in_a_plain_loop(tmp_path, model):
    session = session_of(tmp_path, model, [validation()])
    list(session.train())

    plain = plainly_trained(session_of(tmp_path, model))

    for name, value in weights(plain).items():
        assert torch.allclose(session.state.model.state_dict()[name], value, rtol=1e-5, atol=1e-6), name


def test_one_that_begins_to_move_parameters_later_is_refused_at_the_next_measurement(tmp_path):
    session = session_of(tmp_path, MovesLater, [validation(4)])

    with pytest.raises(BadRequest, match=r"forward has changed the parameter 'teacher\.weight' while it was measured"):
        list(session.train())


def test_a_function_that_a_model_compiles_at_its_first_use_is_kept():
    class Compiling(Net):
        compiled = 0

        def forward(self, x):
            if not hasattr(self, "fast"):
                self.compiled += 1
                self.fast = super().forward
            return self.fast(x)

    model = Compiling()
    for _ in range(2):
        with leaving_no_trace(model, CpuDevice()):
            model(torch.ones(2, 6))
            kept = model.fast

    assert model.fast is kept


def test_a_float64_model_is_trained_and_evaluated_in_float64(tmp_path):
    session = session_of(tmp_path, wide, [validation()], data={"_target_": "test_nothing_overruled.Wide"})
    last = [m.value for m in session.train() if m.name == "val/loss"][-1]

    plain = plainly_trained(session_of(tmp_path, wide, data={"_target_": "test_nothing_overruled.Wide"}))
    for name, value in weights(plain).items():
        assert torch.allclose(session.state.model.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    inputs, labels = session.state.val
    assert last == pytest.approx(F.cross_entropy(plain.eval()(inputs), labels).item(), rel=1e-12)

"""`verify` measures what a plain loop measures, and names what was planted, by taking it out."""

import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured, read
from torch import nn

from batchlab import BadRequest, Task
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.worker.verify.causes import find_causes
from batchlab.worker.verify.examination import examine
from batchlab.worker.verify.findings import Cause, Difference, Findings, Kind
from batchlab.worker.verify.trial import Trial
from batchlab.worker.verify.wording import lines

CPU = CpuDevice()
ROUNDING = 1e-12


def images(n, classes=3, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=generator, dtype=dtype)
    return inputs, torch.randint(0, classes, (n,), generator=generator)


def net(*layers, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), *layers, nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def trial_of(model, sizes=(8, 8, 8, 8), task=None, batches=None, dtype="float64"):
    wide = dtype == "float64"
    made = batches or [images(sum(sizes), seed=s, dtype=torch.float64 if wide else torch.float32) for s in (1, 2)]
    return Trial(
        model=model,
        task=task or Task.classification(made[0], made[0]),
        precision=Precision("fp32", CPU),
        batches=made,
        micro_batch_sizes=tuple(sizes),
        dtype=dtype,
        seed=5,
    )


def diagnosed(trial):
    """The worst difference of a trial, and its causes."""
    worst = trial.difference().worst
    return worst, find_causes(trial, worst)


def by_a_plain_loop(model, batch, sizes):
    """|g_accumulated - g_whole| / |g_whole|, with nothing of batchlab in it."""
    inputs, labels = batch
    parameters = list(model.parameters())
    whole = torch.autograd.grad(F.cross_entropy(model(inputs), labels), parameters)
    total = [torch.zeros_like(p) for p in parameters]
    for x, y in zip(inputs.split(list(sizes)), labels.split(list(sizes)), strict=True):
        part = torch.autograd.grad(F.cross_entropy(model(x), y) * len(x) / len(inputs), parameters)
        total = [a + b for a, b in zip(total, part, strict=True)]
    difference = sum(float((a - b).square().sum()) for a, b in zip(total, whole, strict=True))
    return math.sqrt(difference / sum(float(b.square().sum()) for b in whole))


# The number


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (12, 12, 8), (10, 10, 10, 2)], ids=str)
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_the_difference_is_that_of_a_plain_loop(norm, sizes):
    model = net(norm(16))
    trial = trial_of(model, sizes)

    measured = trial.difference()

    expected = [by_a_plain_loop(copy.deepcopy(model), batch, sizes) for batch in trial.batches]
    assert measured.each == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert (measured.worst, measured.mean) == pytest.approx((max(expected), sum(expected) / 2), rel=1e-9, abs=1e-14)
    assert (measured.worst > 1e-2) is (norm is nn.BatchNorm1d)


def test_the_smaller_the_micro_batch_the_further_off_is_batch_norm_and_layer_norm_never():
    """Of the order of another net's with BatchNorm at 256 examples: 0.21, 0.37, 0.80; LayerNorm 1e-7 in fp32."""
    batches = [images(256, seed=s) for s in (1, 2)]
    off = [trial_of(net(nn.BatchNorm1d(16)), (micro,) * (256 // micro), batches=batches).difference().worst
           for micro in (64, 16, 4)]  # fmt: skip
    assert off == sorted(off)
    assert all(1 / 3 < seen / expected < 3 for seen, expected in zip(off, (0.21, 0.37, 0.80), strict=True)), off

    single = trial_of(net(nn.LayerNorm(16), dtype=torch.float32), (4,) * 64, dtype="fp32",
                      batches=[images(256, dtype=torch.float32)])  # fmt: skip
    assert 1e-9 < single.difference().worst < 2e-6


def test_a_layer_is_measured_by_itself_and_one_without_a_gradient_by_a_share_of_the_whole():
    # The bias before BatchNorm has a gradient of nothing but rounding.
    model = nn.Sequential(nn.Linear(6, 16, bias=False), Shift(), nn.BatchNorm1d(16), nn.Linear(16, 3)).double()
    trial = trial_of(model)

    layers = trial.difference().layers

    assert set(layers) == {"0", "1", "2", "3"}
    assert layers["1"] < 1e-6
    assert max(layers, key=layers.get) in ("0", "2", "3")


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.zeros(16))

    def forward(self, x):
        return x + self.by


# The causes


def only(causes):
    (cause,) = causes
    return cause


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (10, 10, 10, 2)], ids=str)
def test_batch_norm_is_named_and_frozen_nothing_is_left(sizes):
    _, causes = diagnosed(trial_of(net(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.BatchNorm1d(16)), sizes))

    cause = only(causes)
    assert (cause.kind, cause.what, cause.paths) == (Kind.MIXES, "BatchNorm1d", ("1", "3"))
    assert (cause.frozen, cause.is_batch_norm) == (True, True)
    assert cause.remains < ROUNDING


def test_batch_norm_without_running_statistics_is_no_better_in_eval_mode():
    _, causes = diagnosed(trial_of(net(nn.BatchNorm1d(16, track_running_stats=False))))

    cause = only(causes)
    assert (cause.what, cause.frozen) == ("BatchNorm1d", False)
    assert cause.remains < ROUNDING  # once the whole batch, too, passes it in micro-batches


def test_dropout_is_named_and_makes_no_other_gradient_on_average():
    # One alone draws the same numbers in pieces as at once.
    difference, causes = diagnosed(trial_of(net(nn.Dropout(0.5), nn.Linear(16, 16), nn.Dropout(0.5))))

    cause = only(causes)
    assert (cause.kind, cause.what, cause.paths, cause.frozen) == (Kind.RANDOM, "Dropout", ("1", "3"), True)
    assert cause.remains < ROUNDING
    assert 0.3 < cause.redrawn / difference < 3


class Careless(nn.Module):
    """Drops in its own forward, with no layer for it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x):
        return F.dropout(self.inner(x), 0.5, self.training)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Scaled(nn.Module):
    """Draws from a stream that is not PyTorch's."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x * (1 + self.draw()) if self.training else x


def test_a_layer_that_works_in_place_is_named():
    _, causes = diagnosed(
        trial_of(net(nn.Dropout(0.5, inplace=True), nn.Linear(16, 16), nn.Dropout(0.5, inplace=True)))
    )

    assert (only(causes).what, only(causes).paths) == ("Dropout", ("1", "3"))


def test_what_is_inside_a_suspect_is_a_suspect_of_its_own():
    class Around(Careless):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16))

    _, causes = diagnosed(trial_of(net(Around(), nn.Tanh(), Around())))

    assert [cause.what for cause in causes] == ["Around", "BatchNorm1d"]
    assert causes[0].remains > 1e-2
    assert causes[1].remains < ROUNDING


def test_a_forward_that_drops_by_itself_is_named_by_its_class():
    _, causes = diagnosed(trial_of(net(Careless(), nn.Tanh(), Careless())))

    assert (only(causes).kind, only(causes).what, only(causes).paths) == (Kind.RANDOM, "Careless", ("1", "3"))
    assert only(causes).remains < ROUNDING


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_the_streams_of_python_and_numpy_are_random_numbers_too(draw):
    _, causes = diagnosed(trial_of(net(Scaled(draw))))

    assert (only(causes).what, only(causes).kind) == ("Scaled", Kind.RANDOM)
    assert only(causes).remains < ROUNDING


def test_noise_that_eval_mode_does_not_stop_is_named_and_cannot_be_taken_out():
    _, causes = diagnosed(trial_of(net(Noise(), nn.BatchNorm1d(16))))

    assert (only(causes).what, only(causes).remains) == ("Noise", None)


class Centred(nn.Module):
    """Subtracts the mean of whatever examples came along."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x, *, scale=1.0):
        x = self.inner(x)
        return scale * (x - x.mean(dim=0, keepdim=True))


def test_a_module_that_mixes_examples_is_named_and_taken_out_by_micro_batches():
    trial = trial_of(net(nn.Sequential(nn.Tanh(), Centred())), (10, 10, 10, 2))
    _, causes = diagnosed(trial)

    cause = only(causes)
    assert trial.frozen == []  # what eval mode did not help is measured without it
    assert (cause.kind, cause.what, cause.paths) == (Kind.MIXES, "Centred", ("1.1",))
    assert (cause.frozen, cause.is_batch_norm) == (False, False)
    assert cause.remains < ROUNDING


class Whitens(nn.Module):
    """The model itself mixes, between its layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x / x.std(dim=0, keepdim=True))


def test_a_model_that_mixes_between_its_layers_is_named_itself():
    _, causes = diagnosed(trial_of(Whitens().double()))

    assert (only(causes).what, only(causes).paths) == ("Whitens", ("",))
    assert only(causes).remains < ROUNDING


def test_a_state_that_moves_with_every_pass_is_named():
    """Spectral normalisation turns its vectors a little in each pass, and the weights with them."""
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
    _, causes = diagnosed(trial_of(net(normed)))

    cause = only(causes)
    assert (cause.what, cause.paths) == ("_SpectralNorm", ("1.parametrizations.weight.0",))
    assert cause.frozen
    assert cause.remains < ROUNDING


class CentredInTime(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=1, keepdim=True)


class TimeFirst(nn.Module):
    """Examples are the second axis inside."""

    def __init__(self):
        super().__init__()
        self.embed, self.centre, self.mix, self.last = (
            nn.Linear(1, 8),
            CentredInTime(),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.embed(x.unsqueeze(-1).transpose(0, 1))  # (6, examples, 8)
        return self.last(torch.tanh(self.mix(self.centre(torch.tanh(x)))).mean(dim=0))


def test_examples_are_found_on_another_axis():
    _, causes = diagnosed(trial_of(TimeFirst().double()))

    assert (only(causes).what, only(causes).paths) == ("CentredInTime", ("centre",))
    assert only(causes).remains < ROUNDING


def planted(**changes):
    batch = images(32)
    return Task.classification(batch, batch, **changes)


def divided(outputs, batch):
    return F.cross_entropy(outputs, batch[1], reduction="none") / len(outputs)


def contrasted(outputs, batch):
    """Each example against all others: the loss of a batch, whatever that is."""
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="none")


def test_a_loss_that_divides_by_the_batch_is_named_and_is_off_by_the_number_of_micro_batches():
    difference, causes = diagnosed(trial_of(net(), task=planted(loss=divided)))

    cause = only(causes)
    assert difference == pytest.approx(3, abs=1e-9)  # accumulated is 4 times too large
    assert (cause.kind, cause.what, cause.paths, cause.divides) == (Kind.MIXES, "loss", (), True)
    assert cause.remains < ROUNDING


def test_a_loss_that_compares_examples_is_named():
    _, causes = diagnosed(trial_of(net(), task=planted(loss=contrasted)))

    cause = only(causes)
    assert (cause.what, cause.paths, cause.divides) == ("loss", (), False)
    assert cause.remains < ROUNDING


def test_a_forward_of_the_task_that_mixes_is_named():
    task = planted(forward=lambda model, batch: model(batch[0] - batch[0].mean(dim=0)) * 2)
    _, causes = diagnosed(trial_of(net(), task=task))

    assert (only(causes).what, only(causes).paths) == ("forward", ())
    assert only(causes).remains < ROUNDING


def test_a_count_that_does_not_add_up_is_named_with_its_numbers():
    difference, causes = diagnosed(trial_of(net(), task=planted(count=lambda batch: len(batch[0]) + 1)))

    assert difference == pytest.approx(1 - 33 / 36, abs=1e-9)
    cause = only(causes)
    assert (cause.kind, cause.counts) == (Kind.COUNT, (33, 9, 9, 9, 9))
    assert cause.remains < ROUNDING


def test_tokens_of_unequal_number_are_no_cause():
    def count(batch):
        return int((batch[1] != 0).sum())

    def loss(outputs, batch):
        kept = batch[1] != 0
        return F.cross_entropy(outputs[kept], batch[1][kept], reduction="none")

    difference, causes = diagnosed(trial_of(net(), task=planted(count=count, loss=loss)))

    assert difference < ROUNDING
    assert causes == []


def test_several_causes_are_taken_out_one_after_the_other():
    model = net(nn.Dropout(0.3), nn.BatchNorm1d(16), Centred())
    difference, causes = diagnosed(trial_of(model, task=planted(loss=divided)))

    assert [cause.what for cause in causes] == ["Dropout", "BatchNorm1d", "Centred", "loss"]
    assert all(cause.remains > 1e-3 for cause in causes[:-1])
    assert causes[-1].remains < ROUNDING
    assert difference > 1e-3


class Backwards(torch.autograd.Function):
    """Mixes in its backward pass, where nothing is seen of it in a forward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient - gradient.mean(dim=0, keepdim=True)


class Hidden(nn.Module):
    def forward(self, x):
        return Backwards.apply(x)


def test_what_is_not_found_is_not_named():
    difference, causes = diagnosed(trial_of(net(Hidden())))

    assert difference > 1e-2
    assert causes == []


def test_the_model_is_left_as_it_was():
    model = net(nn.Dropout(0.5), nn.BatchNorm1d(16), Centred())
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    random.seed(3)
    streams = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    diagnosed(trial_of(model))

    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert (random.getstate(), str(np.random.get_state())) == streams[1:]
    assert torch.get_default_dtype() == torch.float32


# The whole examination


def config_of(**changes):
    return configured(device="cpu", **changes)


def test_the_shipped_mlp_accumulates_to_rounding():
    found = examine(config_of(accumulate=4))

    assert [d.dtype for d in found.differences] == ["fp32", "float64"]
    assert [len(d.each) for d in found.differences] == [5, 5]
    assert found.deciding.worst < 1e-12
    assert 1e-9 < found.differences[0].worst < 1e-5
    assert (found.same, found.is_rounding, found.causes) == (True, True, ())
    whole, micro = found.saved_bytes
    assert whole > 3.5 * micro > 0


def test_the_shipped_cnn_does_not_because_of_batch_norm():
    found = examine(config_of(accumulate=4, model=read("model/cnn.yaml"), precision="bf16"))

    assert [d.dtype for d in found.differences] == ["fp32", "bf16", "float64"]
    assert all(0.03 < d.worst < 1 for d in found.differences)
    assert (only(found.causes).what, only(found.causes).remains < ROUNDING) == ("BatchNorm2d", True)
    assert (found.same, found.explained) == (False, True)


@pytest.mark.parametrize(
    ("ghost_batch", "changes", "same"),
    [
        (8, {"accumulate": 4}, True),
        (4, {"accumulate": 4}, True),
        (5, {"accumulate": 4}, False),
        (16, {"batch_size": 50, "micro_batch_size": 16}, True),
        (16, {"batch_size": 50, "micro_batch_size": 24}, False),
    ],
)
def test_with_ghosts_that_divide_the_micro_batch_it_does(ghost_batch, changes, same):
    """Two parts of batchlab that share no code agree on what a ghost is."""
    found = examine(config_of(model=read("model/cnn.yaml") | {"ghost_batch": ghost_batch}, **changes))

    assert found.same is same
    assert (found.deciding.worst < 1e-12) is same
    named = [(cause.what, cause.paths) for cause in found.causes]
    assert named == ([] if same else [("GhostBatchNorm2d", ("layers.1", "layers.5"))])


class SingleForGood(nn.Module):
    """Makes its own fp32 numbers, which float64 does not fit."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(64), nn.Linear(64, num_classes)
        self.turn = [torch.eye(64)]

    def forward(self, x):
        return self.layer(self.norm(x.flatten(1)) @ self.turn[0])


def test_a_model_that_does_not_bear_float64_is_judged_in_fp32():
    found = examine(config_of(accumulate=4, model={"_target_": f"{__name__}.SingleForGood"}))

    assert [d.dtype for d in found.differences] == ["fp32"]
    assert found.float64_failed.startswith("RuntimeError: ")
    assert only(found.causes).what == "BatchNorm1d"
    assert only(found.causes).remains < 1e-5
    assert any("Not possible in float64 (RuntimeError: " in line for line in lines(found, config_of(accumulate=4)))


class NotANumber(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1)) / 0


class Spread(nn.Linear):
    """Divides by the spread over the batch: of one example there is none."""

    def __init__(self, input_shape, num_classes):
        super().__init__(64, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x) / ((x - x.mean(0)).square().sum() / (len(x) - 1)).sqrt()


class Huge(NotANumber):
    """Its gradient is a number in float64, and the square of it is none."""

    def forward(self, x):
        return self.layer(x.flatten(1)) * 1e200


@pytest.mark.parametrize(
    ("model", "changes", "reported"),
    [
        (NotANumber, {"accumulate": 4}, "in float64 the gradient of the whole batch is nan or inf at layer.weight, "),
        (
            Spread,
            {"batch_size": 4, "micro_batch_size": 1},
            "in float64 the gradient of its micro-batches, not that of the whole, is nan or inf at weight, bias, at",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_gradient_that_is_none_is_refused_and_it_is_reported_which(model, changes, reported):
    with pytest.raises(BadRequest, match=f"{reported}.*: look for a division by zero"):
        examine(config_of(**changes, model={"_target_": f"{__name__}.{model.__name__}"}))


def test_a_gradient_whose_square_is_no_number_is_refused():
    with pytest.raises(
        BadRequest, match=r"^in float64 the gradient at the initial weights is so large that its square overflows"
    ):
        examine(config_of(accumulate=4, model={"_target_": f"{__name__}.Huge"}))


# The words


def found_with(*causes, worst=0.3, single=0.3, failed=""):
    differences = [Difference("fp32", (single, single / 2), {"layers.0": single})]
    if not failed:
        differences.append(Difference("float64", (worst, worst / 2), {"layers.0": worst, "layers.4": worst / 2}))
    return Findings((8, 8, 8, 8), tuple(differences), failed, tuple(causes), (4 * 2**20, 2**20))


NORM = Cause(Kind.MIXES, "BatchNorm2d", ("layers.1", "layers.5"), 3e-16, frozen=True, is_batch_norm=True)
DROPOUT = Cause(Kind.RANDOM, "Dropout", ("a", "b", "c", "d", "e"), 2e-16, frozen=True, redrawn=0.4)


@pytest.mark.parametrize(
    ("found", "model", "reported"),
    [
        (found_with(worst=1e-16, single=2e-7), {}, ["The same gradient up to rounding: an update over these micro-"]),
        (found_with(worst=1e-14, single=0.1), {}, ["In fp32 rounding alone changes it by 0.1: at these weights"]),
        (
            found_with(NORM),
            {"batch_norm": True},
            [
                "Not the same gradient: an update over these micro-batches differs from one on the whole batch.",
                "Cause: BatchNorm2d (layers.1 and layers.5) computes mean and variance over the examples of one "
                "pass: 8 in a micro-batch, 32 in the whole batch. With it in eval mode in both, 3e-16 remains.",
                "model.ghost_batch=8 computes them over 8 examples in both, model.batch_norm=false removes",
                "Saved for backward: 4.000 MiB for the whole batch, 1.000 MiB for a micro-batch of 8.",
            ],
        ),
        (
            found_with(NORM),
            {"ghost_batch": 5},
            [
                "over ghost batches of 5, which split a micro-batch of 8 and the whole batch of 32 at",
                "such as accumulate=null micro_batch_size=5.",
            ],
        ),
        (found_with(NORM), {"ghost_batch": 3}, ["such as accumulate=null micro_batch_size=6."]),
        (
            found_with(DROPOUT),
            {},
            [
                "The same gradient, except for the random numbers, which differ from pass to pass.",
                "Cause: Dropout (a, b, c and 2 more) uses random numbers",
                "two passes of one whole batch differ by 0.4 for the same reason",
            ],
        ),
        (
            found_with(Cause(Kind.RANDOM, "Noise", ("a",), redrawn=0.4)),
            {},
            ["Not the same gradient", "It could not be removed, so there may be other causes."],
        ),
        (
            found_with(Cause(Kind.MIXES, "loss", remains=1e-16, divides=True)),
            {},
            ["it is already averaged, or divided by their number.", "not averaged (reduction='none')"],
        ),
        (
            found_with(Cause(Kind.MIXES, "Mixer", ("",), 1e-16)),
            {},
            [
                "Cause: Mixer (the model itself) gives the same examples another output",
                "in eval mode too. With micro-batches passed to it",
            ],
        ),
        (
            found_with(Cause(Kind.COUNT, "count", remains=1e-16, counts=(33, 9, 9, 9, 9))),
            {},
            ["Cause: the task's count gives 33 terms for a whole batch, but 36 for its parts together."],
        ),
        (found_with(), {}, ["Not explained: 0.3."]),
        (found_with(Cause(Kind.MIXES, "A", ("a",), 0.02, frozen=True)), {}, ["0.02 remains.", "Not explained: 0.02."]),
        (
            found_with(failed="TypeError: no\x1b[31m"),
            {},
            ["Not possible in float64 (TypeError: no[31m), so this relies"],
        ),
    ],
)
def test_it_says_what_it_means_and_what_to_type(found, model, reported):
    output = lines(found, config_of(accumulate=4, model=read("model/cnn.yaml") | model))

    for sentence in reported:
        assert any(sentence in line for line in output), "\n".join(output)


def test_the_numbers_are_in_a_table():
    output = lines(found_with(NORM, worst=0.3, single=0.25), config_of(accumulate=4, model=read("model/cnn.yaml")))

    assert output[:5] == [
        "cnn on digits: 2 batches of 32 examples, whole and as 4 micro-batches of 8, at the initial weights of seed 0.",
        "Relative difference of the gradients, |accumulated - whole| / |whole|:",
        "                      worst of  which",
        "         mean  worst   a layer  layer",
        "fp32     0.19   0.25      0.25  layers.0",
    ]

"""Each instrument compared with an independent oracle."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from batchlab import Task
from batchlab.errors import Diverged
from batchlab.instruments.gradient.gradient_norm import Gradient
from batchlab.instruments.health import Health
from batchlab.instruments.memory import Memory, saved_for_backward_bytes
from batchlab.instruments.throughput import Throughput
from batchlab.instruments.training_loss import FOLD, TrainingLoss
from batchlab.instruments.validation import Validation
from batchlab.training.clock.meter import Meter
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.passes.evaluation import by_example
from batchlab.training.state import RunState
from batchlab.training.updates.update import Outcome

CPU = CpuDevice()


def state_of(model, data, *, task=None, val=None, precision="fp32"):
    return RunState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        task=task or Task.classification(data, val or data),
        train=data,
        val=val or data,
        device=CPU,
        precision=Precision(precision, CPU),
        meter=Meter(peaks=SimpleNamespace(read=dict, reset=lambda: None)),
        budget=1000,
    )


def data_of(n, features=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, features, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def values(measurements):
    return {m.name: m.value for m in measurements}


def outcome(mean, count=1, skipped=None):
    return Outcome(torch.tensor(mean * count, dtype=torch.float32), torch.tensor(count), count, skipped)


# validation


@pytest.mark.parametrize("eval_batch_size", [1, 7, 10, 23, 100])
def test_validation_is_exact_over_the_whole_set_however_it_is_cut(eval_batch_size):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.9), torch.nn.Linear(8, 3)).double()
    inputs, labels = data_of(23)
    inputs = inputs.double()
    state = state_of(model, (inputs, labels))
    model.train()

    seen = values(Validation(eval_every=1, eval_batch_size=eval_batch_size).measure(state))

    model.eval()
    outputs = model(inputs)
    assert seen["val/loss"] == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-12)
    assert seen["val/accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item(), rel=1e-12)


def test_validation_weighs_tokens_not_batches():
    # 3 terms of loss 1 in the first example, 1 term of loss 5 in the second: the mean over terms is 2.
    data = (torch.tensor([[1.0, 1.0, 1.0], [5.0, 0.0, 0.0]]),)
    task = Task(
        train=data,
        val=data,
        forward=lambda model, batch: batch[0],
        loss=lambda outputs, batch: outputs[outputs > 0],
        count=lambda batch: int((batch[0] > 0).sum()),
    )
    state = state_of(torch.nn.Linear(1, 1), data, task=task)
    assert by_example(state, data, eval_batch_size=1)["loss"].mean == 2.0


# training loss


def test_training_loss_is_the_count_weighted_mean_of_its_window():
    instrument = TrainingLoss(log_every=10)
    state = state_of(torch.nn.Linear(4, 3), data_of(5))
    assert list(instrument.measure(state)) == []
    instrument.watch(outcome(2.0, count=3))
    instrument.watch(outcome(8.0, count=1))
    assert values(instrument.measure(state))["train/loss"] == pytest.approx(3.5)
    instrument.watch(outcome(1.0))
    assert values(instrument.measure(state))["train/loss"] == 1.0


def test_a_long_window_is_folded_without_changing_its_mean():
    instrument = TrainingLoss(log_every=10)
    for i in range(3 * FOLD + 5):
        instrument.watch(outcome(float(i)))
    assert len(instrument._sums) <= FOLD
    expected = (3 * FOLD + 4) / 2
    assert values(instrument.measure(state_of(torch.nn.Linear(4, 3), data_of(5))))["train/loss"] == pytest.approx(
        expected
    )


def test_a_window_in_which_a_run_was_stopped_is_weighted_as_a_whole_one():
    before, after = TrainingLoss(log_every=10), TrainingLoss(log_every=10)
    before.watch(outcome(2.0, count=3))
    kept = before.state_dict()
    after.load_state_dict(kept)
    after.watch(outcome(8.0, count=1))

    assert kept["count"] == 3  # a number, as always in checkpoints
    assert values(after.measure(state_of(torch.nn.Linear(4, 3), data_of(5))))["train/loss"] == pytest.approx(3.5)


def test_skipped_fp16_updates_are_counted_over_the_run():
    instrument = TrainingLoss(log_every=10)
    state = state_of(torch.nn.Linear(4, 3), data_of(5), precision="fp16")
    seen = []
    for window in ([True, False, True], [False], [True]):
        for skipped in window:
            instrument.watch(outcome(1.0, skipped=torch.tensor(skipped)))
        seen.append(values(instrument.measure(state))["train/steps_skipped"])
    assert seen == [2, 2, 3]


# throughput


def test_throughput_is_the_median_of_windows_without_the_warm_up():
    now = [0.0]
    instrument = Throughput(log_every=10)
    state = state_of(torch.nn.Linear(4, 3), data_of(5))
    state.meter = Meter(peaks=SimpleNamespace(read=dict, reset=lambda: None), clock=lambda: now[0])
    state.meter.start()
    list(instrument.measure(state))
    for seconds in [100.0, *[2.0] * 8, 50.0]:  # a slow first window, and a disturbed one
        now[0] += seconds
        state.step += 5
        state.examples += 10
        list(instrument.measure(state))
    final = {m.name: m for m in instrument.conclude(state)}
    speed = final["speed/examples_per_second"]
    assert (speed.value, speed.low, speed.high, speed.n) == (5.0, 5.0, 5.0, 9)
    assert final["speed/seconds_per_step"].value == pytest.approx(0.4)


def test_a_run_of_one_window_still_has_a_speed_but_no_interval():
    now = [0.0]
    instrument = Throughput(log_every=10)
    state = state_of(torch.nn.Linear(4, 3), data_of(5))
    state.meter = Meter(peaks=SimpleNamespace(read=dict, reset=lambda: None), clock=lambda: now[0])
    state.meter.start()
    now[0] += 4.0
    state.step, state.examples = 1, 20
    list(instrument.measure(state))
    speed, _ = instrument.conclude(state)
    assert (speed.value, speed.low, speed.high, speed.n) == (5.0, None, None, 1)


# memory


@pytest.mark.parametrize("n", [1, 8, 64])
def test_saved_bytes_are_those_a_linear_relu_chain_must_keep(n):
    model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5))
    inputs = torch.randn(n, 10)
    data = (inputs, torch.zeros(n, 5))
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs.sum(dim=1))
    saved = saved_for_backward_bytes(state_of(model, data, task=task), data)
    # saved: the input of the first layer, and ReLU's output, which is also the input of the second
    assert saved == 4 * n * (10 + 20)


def test_the_peak_is_the_meters_while_training():
    state = state_of(torch.nn.Linear(4, 3), data_of(5))
    state.meter = SimpleNamespace(peak_bytes={"memory/peak_resident_bytes": 12345}, seconds=0.0)
    assert values(Memory(micro_batch_size=2).conclude(state))["memory/peak_resident_bytes"] == 12345


def test_memory_before_training_is_counted_separately_with_each_storage_once():
    # 5 examples of 4 numbers of 4 bytes and a label of 8, for both training and validation; and a second view.
    data = data_of(5)
    state = state_of(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)), data, val=(data[0], data[1]))
    state.meter = SimpleNamespace(peak_bytes={}, seconds=0.0)

    assert values(Memory(micro_batch_size=2).conclude(state)) == {
        "memory/resident_data_bytes": 5 * (4 * 4 + 8),
        "memory/resident_model_bytes": 4 * (4 * 3 + 3 + 2 * 3 + 2 * 3) + 8,  # the norm counts its batches in an int64
    }


# gradient


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gradient_norm_of_a_full_batch_is_that_of_the_mean_loss(precision):
    data = data_of(12)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    plain = torch.nn.Linear(4, 3)
    plain.load_state_dict(model.state_dict())
    F.cross_entropy(plain(data[0]), data[1]).backward()
    expected = math.sqrt(sum(p.grad.double().square().sum().item() for p in plain.parameters()))

    instrument = Gradient(eval_every=1, batch_size=12, micro_batch_size=5, seed=0)
    seen = values(instrument.measure(state_of(model, data, precision=precision)))

    tolerance = 1e-6 if precision == "fp32" else 5e-3  # fp16 has 11 bits
    assert seen["train/gradient_norm"] == pytest.approx(expected, rel=tolerance)


# health


def looked_at(losses, *, step=0, instrument=None):
    state = state_of(torch.nn.Linear(4, 3), data_of(5))
    state.step, state.learning_rate = step + len(losses), 0.25
    instrument = instrument or Health(log_every=10)
    for loss in losses:
        instrument.watch(outcome(loss, count=2))
    list(instrument.measure(state))
    return instrument


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_learning_rate():
    instrument = looked_at([1.0, 2.0])
    with pytest.raises(Diverged, match=r"the training loss is nan at step 4 \(lr 0.25\)"):
        looked_at([3.0, math.nan, 1.0], step=2, instrument=instrument)


def test_a_bad_step_is_found_in_a_window_in_which_a_run_was_stopped():
    before, after = Health(log_every=10), Health(log_every=10)
    for count in (2, 3):
        before.watch(outcome(1.0, count=count))
    kept = before.state_dict()
    after.load_state_dict(kept)

    assert kept["counts"] == [2, 3]  # numbers, as always in checkpoints
    with pytest.raises(Diverged, match=r"inf at step 3 "):
        looked_at([math.inf], step=2, instrument=after)


def test_a_bad_step_is_found_after_folding():
    with pytest.raises(Diverged, match=rf"inf at step {FOLD + 7} "):
        looked_at([1.0] * (FOLD + 6) + [math.inf] + [1.0] * 20)


@pytest.mark.parametrize(("initial", "bound"), [(0.1, 1000.0), (3.0, 3000.0)])
def test_a_finite_loss_that_exploded_is_divergence(initial, bound):
    looked_at([initial, initial]), looked_at([bound], instrument=looked_at([initial]))
    with pytest.raises(Diverged, match=rf"over steps 2 to 2, above {bound:.3g}".replace("+", r"\+")):
        looked_at([bound * 1.01], step=1, instrument=looked_at([initial]))


def test_a_weight_that_is_not_finite_at_the_end_is_divergence():
    model = torch.nn.Linear(4, 3)
    state = state_of(model, data_of(5))
    assert list(Health(log_every=10).conclude(state)) == []
    with torch.no_grad():
        model.bias[0] = math.inf
    with pytest.raises(Diverged, match="a weight is not finite after step 0"):
        list(Health(log_every=10).conclude(state))


def test_a_run_whose_every_fp16_update_was_skipped_has_diverged():
    state = state_of(torch.nn.Linear(4, 3), data_of(5), precision="fp16")
    for skips, diverged in (([True, True], True), ([True, False], False)):
        instrument = Health(log_every=10)
        for skipped in skips:
            instrument.watch(outcome(1.0, skipped=torch.tensor(skipped)))
        state.step = len(skips)
        list(instrument.measure(state))
        if diverged:
            with pytest.raises(Diverged, match="0 of 2 updates were applied"):
                list(instrument.conclude(state))
        else:
            assert list(instrument.conclude(state)) == []


def test_a_collapsed_loss_scale_is_divergence():
    state = state_of(torch.nn.Linear(4, 3), data_of(5), precision="fp16")
    state.precision.scaler.scale(torch.zeros(1))
    state.precision.scaler.update(1e-5)
    instrument = Health(log_every=10)
    instrument.watch(outcome(1.0, skipped=torch.tensor(False)))
    with pytest.raises(Diverged, match="loss scale fell to 1e-05"):
        list(instrument.measure(state))

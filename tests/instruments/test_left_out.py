"""An instrument that cannot measure a model says so once, and the run goes on without it, with the same weights."""

import json
from dataclasses import replace

import pytest
import torch
from still_life import by_name, classified, run_state
from torch import nn
from torture.tiny import folder_of, tiny, train

from batchlab import Task
from batchlab.instruments import Instrument
from batchlab.instruments.gradient.gradient_norm import Gradient
from batchlab.instruments.gradient.gradient_statistics import GradientStatistics
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale

SIZES = {"batch_size": 8, "micro_batch_size": 8, "seed": 0}


class Broken(Instrument):
    """Measures until it fails, as a part of PyTorch would."""

    def __init__(self, eval_every: int, until: int = 0, essential: bool = False) -> None:
        self.every, self.until, self.essential = eval_every, until, essential

    def measure(self, state):
        yield state.measurement("broken/measured", 1)
        if state.examples >= self.until:
            torch.ones(1, requires_grad=True).sum().backward()
            backends = ", ".join(f"backend {number}" for number in range(100))
            raise RuntimeError(f"reshape is not implemented for sparse tensors, only for {backends}")


class Odd(nn.Module):
    """Takes a branch that depends on values, and no validation once `fails_after` passes have trained it."""

    def __init__(self, fails_after: int = 10**9) -> None:
        super().__init__()
        self.layer, self.left = nn.Linear(6, 3), fails_after

    def forward(self, x):
        self.left -= self.training
        if self.left <= 0 and not self.training:
            raise ValueError("no more")
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def point(tmp_path, model=None, **instruments):
    config = tiny(tmp_path, eval_every=8, checkpoint_every=None)
    named = {name: {"_target_": target, **keys} for name, (target, keys) in instruments.items()}
    model = {"_target_": f"{__name__}.Odd", **(model or {})}
    return replace(config, model=model, instruments={**config.instruments, **named})


def test_an_instrument_that_fails_is_left_out_from_there_on_with_one_sentence(tmp_path):
    expected = train(point(tmp_path / "a"))
    config = point(tmp_path / "b", broken=(f"{__name__}.Broken", {"until": 16}))
    record = train(config)

    assert (record.status, record.reason, record.steps) == ("completed", "", 10)
    assert record.weights_fingerprint == expected.weights_fingerprint
    lines = map(json.loads, (folder_of(config) / "metrics.jsonl").read_text().splitlines())
    assert [line["examples"] for line in lines if line["name"] == "broken/measured"] == [0, 8, 16]
    (note,) = record.notes
    assert note.startswith("instrument broken cannot measure this run (RuntimeError: reshape is not implemented for ")
    assert " ... " in note
    assert note.endswith("backend 99 (test_left_out.py, line 32, in measure)): left out after 16 examples")
    assert len(note) < 500


def test_an_essential_instrument_that_fails_ends_the_run(tmp_path):
    record = train(point(tmp_path, broken=(f"{__name__}.Broken", {"until": 16, "essential": True})))

    assert (record.status, record.steps) == ("failed", 4)
    assert record.reason.startswith("RuntimeError: reshape is not implemented")


def test_a_model_that_fails_in_validation_ends_the_run(tmp_path):
    record = train(point(tmp_path, {"fails_after": 4}))

    assert (record.status, record.reason, record.steps) == ("failed", "ValueError: no more", 4)


def test_a_run_measures_the_noise_scale_from_micro_batches_where_single_examples_have_no_gradient(tmp_path):
    noise = ("batchlab.instruments.gradient.noise_scale.GradientNoiseScale", {})
    record = train(point(tmp_path, noise_scale=noise))

    assert record.status == "completed"
    assert "noise/gradient_variance" in record.final
    (note,) = record.notes
    assert note.startswith(
        "instruments.noise_scale compares micro-batches instead of single examples: torch.func cannot compute this "
        "model's gradients per example ("
    )
    assert "use instruments" not in note

    asked = train(point(tmp_path / "b", noise_scale=(noise[0], {"method": "per_example"})))
    assert asked.status == "completed"
    assert "noise/gradient_variance" not in asked.final
    assert asked.notes[0].endswith("use instruments.noise_scale.method=micro_batches): left out from the start")


def measured(model, task, instrument, step=0):
    seen = by_name(instrument.measure(run_state(model, task, step=step)))
    return {name: [v for v in (m.value, m.low, m.high) if v is not None] for name, m in seen.items()}


def agree(found, expected):
    assert found.keys() == expected.keys() != set()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-9), name


class Bag(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 3)
        self.double()

    def forward(self, words):
        return self.last(self.table(words).mean(dim=1))


class Wave(nn.Module):
    """Complex weights, or the same as pairs of real ones."""

    def __init__(self, as_complex):
        super().__init__()
        weights = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.weights = nn.Parameter(torch.view_as_complex(weights) if as_complex else weights)

    def forward(self, x):
        w = torch.view_as_real(self.weights) if self.weights.is_complex() else self.weights
        real, imaginary = x @ w[..., 0].T, x.sin() @ w[..., 1].T
        return real * imaginary + real


def of_words():
    words = torch.randint(9, (40, 3), generator=torch.Generator().manual_seed(1))
    return Task.classification((words, words[:, 0] % 3), (words, words[:, 0] % 3))


ALIKE = {
    "sparse": (lambda: Bag(True), lambda: Bag(False), of_words()),
    "complex": (lambda: Wave(True), lambda: Wave(False), classified(40)),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_sparse_and_complex_gradients_are_measured_like_their_dense_and_real_copies(kind):
    model, copy, task = ALIKE[kind]
    for build in (
        lambda: (Gradient(eval_every=8, **SIZES), 0),
        lambda: (GradientStatistics(budget=64, clip_norm=0.3, **SIZES), 1),
        lambda: (GradientNoiseScale(eval_every=8, budget=64, method="micro_batches", **SIZES), 0),
    ):
        agree(measured(model(), task, *build()), measured(copy(), task, *build()))


def test_complex_weights_have_a_noise_scale_from_single_examples():
    def build():
        return GradientNoiseScale(eval_every=8, budget=64, method="per_example", **SIZES)

    _, _, task = ALIKE["complex"]
    agree(measured(Wave(True), task, build()), measured(Wave(False), task, build()))


def test_the_noise_scale_that_changed_its_method_is_that_method_then_and_after_resuming():
    changing = GradientNoiseScale(eval_every=8, budget=64, **SIZES)
    asked = GradientNoiseScale(eval_every=8, budget=64, method="micro_batches", **SIZES)
    asked._generator.set_state(changing._generator.get_state())

    agree(measured(Bag(True), of_words(), changing), measured(Bag(False), of_words(), asked))
    resumed = GradientNoiseScale(eval_every=8, budget=64, **SIZES)
    resumed.load_state_dict(changing.state_dict())
    assert resumed.method == "micro_batches"  # or it would say so again
    agree(measured(Bag(True), of_words(), resumed), measured(Bag(False), of_words(), asked))

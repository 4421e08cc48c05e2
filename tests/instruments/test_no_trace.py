"""Instruments leave no trace: weights, buffers, optimizer and random streams are bit-identical with and without."""

import re

import pytest
import torch
from instrument_catalogue import CATALOGUE, trained

from batchlab.instruments.memory import Memory


@pytest.fixture(scope="module")
def undisturbed():
    return {precision: trained([], precision) for precision in ("fp32", "bf16", "fp16")}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_run_is_the_same_with_and_without_it(name, precision, undisturbed):
    tensors, rest, _ = undisturbed[precision]
    seen_tensors, seen_rest, measured = trained([CATALOGUE[name]()], precision)

    assert len(seen_tensors) == len(tensors)
    for seen, expected in zip(seen_tensors, tensors, strict=True):
        assert torch.equal(seen, expected)
    assert seen_rest == rest
    assert measured or name == "health"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_is_the_same_with_and_without_its_rehearsal(precision, undisturbed):
    tensors, rest, _ = undisturbed[precision]
    unrehearsed, unrehearsed_rest, _ = trained([], precision, rehearsing=False)
    assert all(torch.equal(a, b) for a, b in zip(unrehearsed, tensors, strict=True))
    assert unrehearsed_rest == rest


def test_the_catalogue_is_all_there_is(repository):
    modules = (repository / "batchlab" / "instruments").rglob("*.py")
    named = {name for path in modules for name in re.findall(r"^class (\w+)\(Instrument\)", path.read_text(), re.M)}
    assert named == {type(make()).__name__ for make in CATALOGUE.values()}


def test_the_comparison_detects_an_unprotected_forward_pass(undisturbed):
    # The comparison above can fail: one forward pass in training mode changes dropout's stream and BatchNorm's buffers.
    class Careless(Memory):
        def measure(self, state):
            if state.step == 0:
                state.model(state.train[0])
            yield from ()

    tensors, _, _ = undisturbed["fp32"]
    seen, _, _ = trained([Careless(micro_batch_size=4)], "fp32")
    assert not all(torch.equal(a, b) for a, b in zip(seen, tensors, strict=True))

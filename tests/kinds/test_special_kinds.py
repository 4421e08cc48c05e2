"""Nine more kinds of public training code: they train as their own loops, and every command takes them."""

from dataclasses import replace

import pytest
import torch
from harness import (
    Commands,
    Kind,
    check_finds_nothing_wrong,
    finds,
    is_in_the_table,
    session_of,
    sweeps_and_reports,
    trains_as_its_own_loop,
    verifies,
)
from torture.kth_call import quick
from torture.tiny import stop_at, tiny, train

from batchlab.worker.verify.examination import examine
from batchlab.worker.verify.wording import lines

SPARSE_ADAM = {"optimizer": {"_target_": "torch.optim.SparseAdam"}, "weight_decay": 0.0}
KINDS = [
    Kind("tabular", "a tabular network: embeddings and numbers, batches are dicts"),
    Kind(
        "autoencoder",
        "a variational autoencoder: draws in forward, a sum as its loss",
        divides=False,
        sums=True,
        lr=0.002,
    ),
    Kind("physics", "a physics-informed network: second derivatives in the loss, two sets of points"),
    Kind("clip", "CLIP: contrastive pairs within the batch", more={"accumulate": 1}),
    Kind("triplets", "triplets: an anchor, a positive and a negative example"),
    Kind("diffusion", "a diffusion model: draws times and noise in the loss", divides=False),
    Kind("recommender", "a recommender: sparse embeddings, `SparseAdam`", more=SPARSE_ADAM),
    Kind("lora", "LoRA: factors beside a frozen base in eval mode"),
    Kind(
        "lookahead",
        "an optimizer like timm's: groups by name, lookahead",
        more={"optimizer": {"_target_": "lookahead.make"}},
    ),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture
def commands(lab, tmp_path, capfd):
    return Commands(tmp_path, lab.server, capfd)


@each_kind
def test_it_trains_as_its_own_loop_in_float64(kind):
    trains_as_its_own_loop(kind)


@each_kind
def test_check_finds_nothing_wrong(kind):
    check_finds_nothing_wrong(kind)


@pytest.mark.slow
@each_kind
def test_it_sweeps_and_reports(kind, commands):
    sweeps_and_reports(kind, commands)


NOT_DIVIDED = {  # (arguments, exit code, what verify says)
    "autoencoder": ((), 1, "Cause: Net (the model itself) uses random numbers, which differ between passes."),
    "clip": ((), 2, "the task's loss is of the batch as a whole (reduction=batch), so accumulating would change the"),
    "diffusion": ((), 1, "Cause: the task's training_loss uses random numbers, which differ between passes."),
}


@each_kind
def test_it_verifies(kind, commands):
    if kind.name not in NOT_DIVIDED:
        verifies(kind, commands)
        return
    arguments, code, said = NOT_DIVIDED[kind.name]
    assert said in commands.run("verify", kind, "batch_size=10", "micro_batch_size=4", *arguments, ends_with=code)


@pytest.mark.slow
@each_kind
def test_it_finds_its_largest_micro_batch(kind, commands):
    finds(kind, commands)


@each_kind
def test_the_page_tells_how_many_lines_are_written(kind):
    is_in_the_table(kind)


def trained(kind, **changes):
    """The measurements, the final state and the notes of a run."""
    notes = []
    session = session_of(kind.config(**changes), notes)
    return list(session.train()), session.state.model.state_dict(), notes


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in ("autoencoder", "diffusion")], ids=str)
def test_what_draws_in_validation_draws_the_same_each_time_and_leaves_no_trace(kind):
    often, weights, _ = trained(kind, eval_every=10)
    seldom, same_weights, _ = trained(kind, eval_every=200)
    still, _, _ = trained(kind, eval_every=10, lr=1e-30)

    seen = [[m.value for m in run if m.name == "val/loss"] for run in (often, seldom, still)]
    assert (len(seen[0]), len(seen[1]), len(set(seen[2]))) == (21, 2, 1)
    assert seen[0][-1] == seen[1][-1]
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)


def test_verify_names_the_loss_where_the_changed_objective_is_accepted():
    clip = next(kind for kind in KINDS if kind.name == "clip")
    config = clip.config(micro_batch_size=4, accumulate=None, accept_changed_objective=True)

    printed = "\n".join(lines(examine(config), config))

    assert "Cause: the task's loss is of the batch as a whole (reduction=batch): it is not a mean over its" in printed
    assert "Not explained" not in printed


def test_lora_trains_its_factors_alone():
    lora = next(kind for kind in KINDS if kind.name == "lora")
    base = lora.module.pretrained().state_dict()

    _, weights, notes = trained(lora, seed=1)

    kept = {name.removeprefix("body.").replace(".base.", "."): tensor for name, tensor in weights.items()}
    assert all(torch.equal(kept[name], tensor) for name, tensor in base.items())
    assert weights["body.0.up"].abs().max() > 0
    assert "in eval mode during training, as the model's code left them: body" in notes


def test_lookahead_resumes_between_two_moves_of_its_slow_weights(tmp_path):
    def configured(folder):
        targets = {part: {"_target_": f"lookahead.{name}"} for part, name in (("data", "load"), ("optimizer", "make"))}
        return replace(tiny(folder, **targets), model={"_target_": "lookahead.Net"})

    with quick():
        whole = train(configured(tmp_path / "whole"))
        assert train(configured(tmp_path / "resumed"), stopping=stop_at(8)).status == "interrupted"
        resumed = train(configured(tmp_path / "resumed"))

    assert resumed.resumed_at == (8,)
    assert resumed.weights_fingerprint == whole.weights_fingerprint

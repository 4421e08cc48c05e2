"""What is special about kinds of public training code that draw, freeze, look ahead, or take the batch as a whole."""

from dataclasses import replace

import pytest
import torch
from every_kind import KINDS
from harness import session_of
from torture.kth_call import quick
from torture.tiny import stop_at, tiny, train

from batchlab.worker.verify.examination import examine
from batchlab.worker.verify.wording import lines


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

"""A user's own instrument, in twenty lines, by `_target_`: its measurements are kept, and it changes nothing."""

import pytest
import torch
from sweep_runs import Lab

PROBE = '''\
import torch
from batchlab.instruments import Instrument, Quantity


class Weights(Instrument):
    """`mine/norm`: the norm of the weights, and how often it was called before."""
    quantities = (Quantity("mine/norm", "1", "norm of the weights", False, keep_best=True),)
    def __init__(self, eval_every, power=2.0):
        self.every, self.power, self.calls = eval_every, power, 0

    def measure(self, state):
        flat = torch.cat([p.detach().flatten() for p in state.model.parameters()])
        yield state.measurement("mine/norm", flat.norm(self.power).item(), n=self.calls)
        self.calls += 1

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]
'''
POINT = ("batch_size=64", "examples=640", "eval_every=320", "model.width=8")
MINE = ("+instruments.mine._target_=my_probe.Weights", "+instruments.mine.power=1.0")


@pytest.fixture(autouse=True)
def probe(lab: Lab) -> None:
    assert len(PROBE.splitlines()) == 20
    (lab.runs_dir.parent / "my_probe.py").write_text(PROBE)


def test_it_measures_at_the_requested_times_and_its_values_are_kept(lab: Lab) -> None:
    point = lab.point(*POINT, *MINE)
    (record,) = lab.run(point).records

    found = [m for m in lab.metrics(point) if m.name == "mine/norm"]

    assert (record.status, record.reason) == ("completed", "")
    assert [(m.examples, m.n) for m in found] == [(0, 0), (320, 1), (640, 2)]
    assert record.final["mine/norm"] == found[-1].value
    assert [(declared.name, declared.meaning) for declared in record.quantities] == [
        ("mine/norm", "norm of the weights")
    ]
    assert record.best["mine/norm"]["value"] == min(m.value for m in found)
    assert found[0].value == pytest.approx(_norm_at_the_start(), rel=1e-6)


def _norm_at_the_start() -> float:
    """The norm of the run's initial weights, from a newly built model."""
    from batchlab.models.mlp import MLP
    from batchlab.training.data.order import stream_seed

    torch.manual_seed(stream_seed(0, "weights"))
    model = MLP(input_shape=(1, 8, 8), num_classes=10, width=8, depth=2)
    return float(sum(p.abs().sum().item() for p in model.parameters()))


def test_the_run_ends_at_the_same_bits_without_it(lab: Lab) -> None:
    with_it, without = lab.one(*POINT, *MINE), lab.one(*POINT)

    assert with_it.weights_fingerprint == without.weights_fingerprint
    assert with_it.run_id != without.run_id  # the instruments are part of a run's identity


def test_a_key_that_it_does_not_take_is_refused_before_the_start(lab: Lab) -> None:
    from batchlab.errors import BadRequest

    with pytest.raises(BadRequest, match=r"unknown key 'instruments.mine.powr': did you mean 'instruments.mine.power'"):
        lab.check(lab.point(*POINT, *MINE[:1], "+instruments.mine.powr=1.0"))

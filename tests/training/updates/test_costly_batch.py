"""Where examples differ in length, the costliest are rehearsed and probed: the peak is not that of the first batch."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torture.forks import in_a_child
from torture.tiny import tiny, train

from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.data.costliest import costliest
from batchlab.training.updates.costly_batch import costly_batch
from batchlab.worker.probe import probe

MIB = 2**20
LONG, SHORT, PLACES = (150, 170), 2, 64  # indices of the long examples, and lengths


class Padded(Task):
    """200 sequences, padded with 0; two of them are long, and come late in the data order of seed 0."""

    def __init__(self, cost: bool = False, alike: bool = False) -> None:
        words = torch.randint(1, 9, (200, PLACES), generator=torch.Generator().manual_seed(0))
        words[:, -1] = torch.arange(200) % 7 + 1
        lengths = torch.full((200,), PLACES if alike else SHORT)
        lengths[list(LONG)] = PLACES
        words[torch.arange(PLACES) >= lengths[:, None]] = 0
        data = {"words": words, "labels": words[:, 0] % 3}
        super().__init__(
            train=data,
            val={name: values[:20] for name, values in data.items()},
            forward=lambda model, batch: model(batch["words"]),
            loss=lambda outputs, batch: F.cross_entropy(outputs, batch["labels"], reduction="none"),
            cost=(lambda example: -float(example["words"][0])) if cost else None,
        )


class Trimmed(nn.Module):
    """Takes 64 KiB for each place of an example, in a batch as long as its longest."""

    longest: ClassVar[list[int]] = []  # of each batch that it was trained on

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(9, 3), nn.Linear(3, 3)

    def forward(self, words):
        words = words[:, : int((words != 0).sum(1).max())]
        if self.training:
            self.longest.append(words.shape[1])
        wide = words[..., None].float().expand(-1, -1, 2**14).contiguous()
        return self.last(self.table(words).mean(1)) + 0 * wide.sum(dim=(1, 2))[:, None]


def point(tmp_path, *, alike=False, **changes):
    config = tiny(tmp_path, **({"batch_size": 16, "steps": 2, "checkpoint_every": None} | changes))
    data = {"_target_": f"{__name__}.Padded", "alike": alike}
    return replace(config, model={"_target_": f"{__name__}.Trimmed"}, data=data)


def test_the_costliest_examples_are_the_longest_or_those_of_the_tasks_cost():
    assert set(costliest(Padded().train, 3).tolist()[:2]) == set(LONG)
    task = Padded(cost=True)
    words = task.train["words"][:, 0]
    assert (words[costliest(task.train, 5, task.cost)] == words.min()).all()
    assert costliest(Padded().train, 500).shape == (500,)
    assert len(costliest(Padded(alike=True).train, 3)) == 0
    assert len(costliest((torch.randn(9, 4), torch.zeros(9)), 3)) == 0


@pytest.mark.parametrize(("accumulate", "micro_batches"), [(1, 1), (4, 2)])
def test_a_costly_batch_is_a_micro_batch_and_two_where_gradients_are_held(accumulate, micro_batches, tmp_path):
    config = point(tmp_path, accumulate=accumulate)
    session = assembly.assemble(config, assembly.build_data(config, assembly.prepare_process(config)))

    made = costly_batch(session.state, session.batches())()

    assert [len(batch["words"]) for batch in made] == [16 // accumulate] * micro_batches
    assert all((batch["words"][:2, -1] != 0).all() for batch in made)


def test_the_peak_of_a_run_includes_its_costliest_batch_and_a_note_says_so(tmp_path):
    def trained():
        Trimmed.longest.clear()
        record = train(point(tmp_path))
        return [record.status, list(record.notes), record.final["memory/peak_growth_bytes"], Trimmed.longest]

    status, notes, peak, longest = in_a_child(trained).reported

    assert status == "completed"
    assert notes == [
        "memory may vary from batch to batch, because the training examples differ in size or cost: the peak includes "
        "a batch of the costliest ones, which was rehearsed"
    ]
    assert max(longest[-2:]) == SHORT  # the two steps of the run
    assert 64 * MIB * 0.95 < peak < 64 * MIB * 3  # 16 examples of 64 places: one tensor, and what PyTorch adds


def test_examples_of_equal_length_are_not_rehearsed_twice(tmp_path):
    record = train(point(tmp_path, alike=True))

    assert (record.status, record.notes) == ("completed", ())


def test_a_probe_takes_the_costliest_examples(tmp_path):
    def probed():
        made, _ = probe(point(tmp_path), 16, allowed=1000 * MIB, headroom=0, exact=True, steps=3, seconds=0.0)
        return [made.outcome.value, made.peak_bytes]

    outcome, peak = in_a_child(probed).reported

    assert outcome == "fits"
    assert peak > 64 * MIB * 0.95

"""Nine kinds of public training code: they train as their own loops, and every command takes them."""

import pytest
from harness import (
    Commands,
    Kind,
    check_finds_nothing_wrong,
    finds,
    is_in_the_table,
    sweeps_and_reports,
    trains_as_its_own_loop,
    verifies,
)

KINDS = [
    Kind("mnist_script", "a script for MNIST: convolutions, dropout, `nll_loss`", still={"dropout": 0.0}),
    Kind(
        "cifar_resnet",
        "a ResNet for CIFAR, and a data set that crops and flips",
        model="ResNet",
        divides=False,
        draws=True,
    ),
    Kind(
        "gpt_trainer",
        "a GPT that returns its logits and its loss",
        model="GPT",
        terms=lambda batch: batch[1].numel(),
    ),
    Kind(
        "unet",
        "a U-Net, with 255 for pixels that are ignored",
        model="UNet",
        terms=lambda batch: (batch["mask"] != 255).sum(),
    ),
    Kind("graph_network", "a graph network, whose batch is an object with `to`", model="GCN"),
    Kind("detector", "a detector that returns a dict of losses", model="Detector", lr=0.01),
    Kind(
        "token_classifier",
        "a token classifier, with labels of -100 for padding",
        model="Tagger",
        terms=lambda batch: (batch["labels"] != -100).sum(),
    ),
    Kind(
        "packed_seq2seq",
        "a sequence-to-sequence model with packed sequences",
        model="Seq2Seq",
        terms=lambda batch: (batch[2][:, 1:] != 0).sum(),
    ),
    Kind("ctc_speech", "speech recognition with CTC", model="Listener"),
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


@each_kind
def test_it_verifies(kind, commands):
    verifies(kind, commands)


@pytest.mark.slow
@each_kind
def test_it_finds_its_largest_micro_batch(kind, commands):
    finds(kind, commands)


@each_kind
def test_the_page_tells_how_many_lines_are_written(kind):
    is_in_the_table(kind)

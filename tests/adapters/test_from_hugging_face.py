"""`Task.from_hugging_face`: a real model of transformers, made from a config, trains as in a plain loop."""

import pytest
import torch
import torch.nn.functional as F

from batchlab import BadRequest, Task
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import row
from batchlab.training.data.residence import prepare_set
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager

pytestmark = pytest.mark.long  # imports transformers

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
CPU = CpuDevice()
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def texts(n, seed=0):
    """Tokens, of which a prompt of unequal length has no loss."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        ids = torch.randint(0, 20, (7,), generator=generator)
        prompt = int(torch.randint(0, 6, (), generator=generator))
        made.append({"input_ids": ids, "labels": ids.masked_fill(torch.arange(7) < prompt, -100)})
    return made


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=7, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).double()


def test_a_language_model_trains_as_a_plain_loop_with_unequal_micro_batches(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # transformers' loss is in float32 otherwise
    task = Task.from_hugging_face(transformers.GPT2LMHeadModel, texts(30), texts(6, seed=1), reduction="mean")
    mine, theirs = gpt2(), gpt2()
    theirs.load_state_dict(mine.state_dict())
    update = Eager(Losses(mine, task, Precision("fp32", CPU)), torch.optim.SGD(mine.parameters(), lr=0.1))
    data = prepare_set(task.train, CPU, name="train", collate=task.collate)
    for micro_batches in Batches(data, micro_batch_sizes=(4, 2), seed=5, total=120):
        update(micro_batches)

    examples = texts(30)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for indices in row(30, 5, 0, 120).split(6):
        ids = torch.stack([examples[i]["input_ids"] for i in indices.tolist()])
        labels = torch.stack([examples[i]["labels"] for i in indices.tolist()])
        optimizer.zero_grad()
        # The output at a place predicts the next token.
        F.cross_entropy(theirs(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
        optimizer.step()

    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)
    assert not torch.allclose(mine.lm_head.weight, gpt2().lm_head.weight, atol=1e-2)


def test_metrics_get_the_output_of_the_model():
    bert = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=20, num_labels=2, **SMALL))
    examples = [{"input_ids": torch.tensor([1, 2, i]), "label": i % 2} for i in range(6)]
    task = Task.from_hugging_face(
        transformers.AutoModelForSequenceClassification,
        examples,
        examples,
        metrics=lambda outputs, batch: {"accuracy": (outputs.logits.argmax(-1) == batch["labels"]).float()},
        reduction="mean",
    )
    batch = task.collate(examples)  # Trainer's own: it renames `label`

    found = Losses(bert, task, Precision("fp32", CPU)).quantities(batch)

    assert task.count(batch) == 6
    assert found["accuracy"].shape == (6,)
    assert found["loss"].shape == ()


@pytest.mark.parametrize(
    ("name", "labels", "terms"),
    [
        ("AutoModelForCausalLM", torch.tensor([[1, 2, -100, 3]]), 2),
        ("GPT2LMHeadModel", torch.tensor([[1, 2, -100, 3]]), 2),
        ("BartForCausalLM", torch.tensor([[1, 2, -100, 3]]), 3),
        ("XLNetLMHeadModel", torch.tensor([[1, 2, -100, 3]]), 3),
        ("DetrForObjectDetection", [{"class_labels": torch.tensor([1])}] * 5, 5),
        ("LlavaForConditionalGeneration", torch.tensor([[1, 2, -100, 3]]), 2),
        ("T5ForConditionalGeneration", torch.tensor([[1, 2, -100, 3]]), 3),
        ("BertForMaskedLM", torch.tensor([[1, 2, -100, 3]]), 3),
        ("BertForSequenceClassification", torch.tensor([0, 1, 1]), 3),
        ("BertForSequenceClassification", torch.tensor([[0.0, 1.0], [1.0, 1.0]]), 2),
        ("BertForQuestionAnswering", None, 5),
    ],
)
def test_the_terms_are_the_labels_of_which_the_loss_is_the_mean(name, labels, terms):
    task = Task.from_hugging_face(getattr(transformers, name), [], [])
    examples = 5 if labels is None else len(labels)
    batch = {"input_ids": torch.zeros(examples, 4, dtype=torch.long)} | ({} if labels is None else {"labels": labels})

    assert int(task.count(batch)) == terms


def test_what_has_no_loss_is_refused():
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=20, **SMALL))
    task = Task.from_hugging_face(transformers.BertModel, [], [], reduction="mean")
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.long)}

    with pytest.raises(
        BadRequest, match=r"without a loss for a batch of input_ids: .* as BertForSequenceClassification"
    ):
        Losses(bert, task, Precision("fp32", CPU))(batch)
    with pytest.raises(BadRequest, match="was given 'gpt2': give the class of the model, such as BertForMaskedLM"):
        Task.from_hugging_face("gpt2", [], [])

"""The kinds of public training code that are tried; the module of each has what a user writes."""

from harness import Kind

SPARSE_ADAM = {"optimizer": {"_target_": "torch.optim.SparseAdam"}, "weight_decay": 0.0}
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
    Kind("lightning_net", "a LightningModule that logs its accuracy", needs="lightning"),
    Kind(
        "bert_tagger",
        "a model of Hugging Face's transformers, and a data collator",
        model="build",
        needs="transformers",
        terms=lambda batch: (batch["labels"] != -100).sum(),
    ),
]

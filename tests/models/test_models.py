"""The larger models: compared with independent computations, and measured by every instrument."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import CONFIGS, read
from torch import Tensor, nn

from batchlab import BadRequest, targets
from batchlab.hydra_app import compose
from batchlab.models import hugging_face
from batchlab.models import torchvision as of_torchvision
from batchlab.models.cnn import CNN
from batchlab.models.gpt import GPT
from batchlab.models.mlp import MLP
from batchlab.models.norms import NORMS, norm_layer
from batchlab.models.resnet import ResNet
from batchlab.models.transformer import Attention
from batchlab.models.vit import ViT
from batchlab.sweep.points import Point
from batchlab.training.ghost_batch_norm import give_ghosts
from batchlab.worker.verify.examination import examine

IMAGE = {"input_shape": (1, 8, 8), "num_classes": 3}
LARGER = {"input_shape": (1, 32, 32)}
SMALL_GPT = {"vocabulary": 7, "context": 6, "width": 8, "depth": 2, "heads": 2}
SMALL_VIT = {**IMAGE, "width": 8, "depth": 2, "heads": 2, "patch": 4}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(*shape: int, vocabulary: int = 7) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))


def numbers_in(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def learnt(model: nn.Module, inputs: Tensor, targets_: Tensor, *, steps: int, lr: float = 3e-3) -> float:
    """The mean loss after some steps of Adam on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs.flatten(0, -2), targets_.flatten())
        loss.backward()
        optimizer.step()
    return loss.item()


# Transformers


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_softmax_of_the_products_over_the_square_root_of_the_width_of_a_head(causal: bool) -> None:
    attention = Attention(6, 2, causal=causal, dropout=0.0).double()
    x = drawn(2, 4, 6)

    expected = torch.zeros(2, 4, 6, dtype=torch.float64)
    query, key, value = (attention.query_key_value(x)[..., part : part + 6] for part in (0, 6, 12))
    for head in (slice(0, 3), slice(3, 6)):
        for example in range(2):
            for position in range(4):
                last = position + 1 if causal else 4
                products = key[example, :last, head] @ query[example, position, head] / math.sqrt(3)
                weights = products.exp() / products.exp().sum()
                expected[example, position, head] = weights @ value[example, :last, head]

    assert torch.allclose(attention(x), attention.outer(expected), atol=1e-12)


def test_a_gpt_does_not_use_later_tokens() -> None:
    model, text = GPT(**SMALL_GPT).double(), tokens(1, 6)
    changed = text.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 7

    differs = (model(text) != model(changed)).any(dim=-1)[0]

    assert differs.tolist() == [False, False, False, True, True, True]


def test_a_vit_without_positions_does_not_depend_on_the_order_of_patches() -> None:
    model, images = ViT(**SMALL_VIT).double(), drawn(2, 1, 8, 8)
    halves_swapped = torch.cat([images[:, :, 4:], images[:, :, :4]], dim=2)

    assert not torch.allclose(model(images), model(halves_swapped), rtol=1e-4, atol=0)
    nn.init.zeros_(model.positions)
    assert torch.allclose(model(images), model(halves_swapped), rtol=1e-10, atol=0)


def test_transformers_have_the_number_of_parameters_counted_by_hand() -> None:
    # A block: two norms of 2 w, attention of 3 w + w outputs, 4 w and back, each with its biases.
    block = 4 * 8 + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)
    assert numbers_in(GPT(**SMALL_GPT)) == 2 * block + 2 * 8 + 7 * 8 + 6 * 8 + (8 * 7 + 7)
    assert numbers_in(ViT(**SMALL_VIT)) == 2 * block + 2 * 8 + (16 * 8 + 8) + 4 * 8 + (8 * 3 + 3)


def test_a_new_gpt_knows_nothing_and_learns_what_repeats() -> None:
    text = (torch.arange(7).repeat(4))[None, :]
    inputs, following = text[:, :6], text[:, 1:7]
    model = GPT(**SMALL_GPT)

    at_first = F.cross_entropy(model(inputs).flatten(0, 1), following.flatten()).item()

    assert at_first == pytest.approx(math.log(7), abs=0.1)
    assert learnt(model, inputs, following, steps=60, lr=1e-2) < 0.2


def test_dropout_is_drawn_in_training_only() -> None:
    images = drawn(2, 1, 8, 8).float()
    for model, inputs in ((GPT(**SMALL_GPT, dropout=0.5), tokens(2, 6)), (ViT(**SMALL_VIT, dropout=0.5), images)):
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))


# Residual networks


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_a_resnet_has_the_layers_and_the_parameters_of_the_paper(depth: int) -> None:
    model = ResNet((3, 32, 32), 10, depth=depth)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    n = (depth - 2) // 6
    grown = sum(9 * a * b + 9 * b * b for a, b in ((16, 16), (16, 32), (32, 64)))
    others = sum(2 * 9 * b * b for b in (16, 32, 64)) * (n - 1)
    norms = 2 * 16 + sum(2 * 2 * b for b in (16, 32, 64)) * n
    assert len(layers) == depth
    assert numbers_in(model) == 9 * 3 * 16 + grown + others + norms + 64 * 10 + 10
    # Table 6 of the paper, in millions.
    assert round(numbers_in(model) / 1e6, 2) == {8: 0.08, 20: 0.27, 32: 0.46, 56: 0.85}[depth]


@pytest.mark.parametrize(("depth", "norm"), [(8, "batch"), (56, "none")])
def test_a_resnets_shortcuts_take_every_other_pixel_and_add_channels_of_zero(depth: int, norm: str) -> None:
    """With all branches at 0, as in a new network without norm, only the shortcuts remain."""
    model = ResNet((2, 8, 8), 3, depth=depth, width=4, norm=norm).double().eval()
    for block in model.blocks if norm == "batch" else ():
        nn.init.zeros_(block.norm_2.weight)  # type: ignore[union-attr, arg-type]
    images = drawn(2, 2, 8, 8)

    seen = F.relu(model.norm(model.convolution(images)))[:, :, ::4, ::4].mean(dim=(2, 3))

    expected = model.head(torch.cat([seen, torch.zeros(2, 12, dtype=torch.float64)], dim=1))
    assert torch.allclose(model(images), expected, atol=1e-12)


@pytest.mark.slow
def test_a_resnet_without_norm_learns() -> None:
    model, images = ResNet(**IMAGE, depth=20, width=4, norm="none"), drawn(3, 1, 8, 8).float()

    assert learnt(model, images, torch.tensor([0, 1, 2]), steps=40, lr=1e-2) < 0.5


# Norms


@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_makes_an_example_depend_on_others(norm: str) -> None:
    images = drawn(4, 1, 8, 8)
    models: list[nn.Module] = [
        ResNet(**IMAGE, depth=8, width=4, norm=norm),
        CNN(**IMAGE, width=4, norm=norm),
    ]
    for model in models:
        if norm == "ghost":
            give_ghosts(model, 2)
        model.double()
        together, alone = model(images), torch.cat([model(images[:2]), model(images[2:])])
        assert torch.allclose(together, alone, rtol=1e-9, atol=1e-12) is (norm != "batch")
        each = torch.cat([model(image) for image in images.split(1)])
        assert torch.allclose(together, each, rtol=1e-9, atol=1e-12) is (norm in ("group", "layer", "none"))


@pytest.mark.parametrize(
    ("norm", "channels", "groups"),
    [("layer", 12, 1), ("group", 16, 8), ("group", 64, 32), ("group", 512, 32), ("group", 12, 2), ("group", 3, 1)],
)
def test_norms_of_an_example_make_its_groups_of_channels_normal(norm: str, channels: int, groups: int) -> None:
    x = 3 + 5 * drawn(2, channels, 4, 4)

    seen = norm_layer(norm, channels).double()(x).view(2, groups, -1)

    parts = x.view(2, groups, -1)
    expected = (parts - parts.mean(dim=-1, keepdim=True)) / parts.std(dim=-1, keepdim=True, unbiased=False)
    assert torch.allclose(seen, expected, atol=1e-4)


def test_norm_ghost_without_ghost_batch_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^model\.norm=ghost needs .*: add model\.ghost_batch=32"):
        ResNet(**IMAGE, depth=8, norm="ghost")(drawn(2, 1, 8, 8).float())


def test_null_leaves_a_cnn_as_it_was() -> None:
    def built(**keys: Any) -> list[str]:
        return list(CNN(**IMAGE, width=2, **keys).state_dict())

    assert built() == built(norm="batch") != built(norm="none")
    assert built(batch_norm=False) == built(norm="none") == built(batch_norm=False, norm="none")
    with pytest.raises(BadRequest, match=r"model\.norm=batch contradicts model\.batch_norm=false"):
        built(batch_norm=False, norm="batch")


# torchvision


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_model_of_torchvision_is_fitted_to_the_data(channels: int) -> None:
    torch.manual_seed(0)
    model = of_torchvision.build("squeezenet1_1", 7, (channels, 32, 32))
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    original = next(p for p in of_torchvision.build("squeezenet1_1", 7, (3, 32, 32)).parameters())

    assert model.training
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 7)
    assert first.weight.shape == (64, channels, 3, 3)
    # 64 filters of 9 weights per channel: their deviation is known to about 1 / sqrt(2 x 576)
    assert first.weight.std().item() == pytest.approx(original.std().item(), rel=0.1)


def test_norms_replace_torchvisions_batch_norm() -> None:
    model = of_torchvision.build("mobilenet_v3_small", 3, (3, 32, 32), norm="group")

    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert sum(isinstance(m, nn.GroupNorm) for m in model.modules()) == 34
    model.eval()
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(model(images), torch.cat([model(image) for image in images.split(1)]), atol=1e-5)


def test_batch_and_ghost_leave_the_layers_of_torchvision_as_they_are() -> None:
    """It has its own eps of 0.001 and momentum of 0.01; PyTorch's defaults are 0.00001 and 0.1."""

    def built(norm: str | None) -> nn.Module:
        torch.manual_seed(0)
        return of_torchvision.build("mobilenet_v3_small", 3, (3, 32, 32), norm=norm)

    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen = []
    for norm in (None, "batch", "ghost"):
        model = built(norm)
        assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {(0.001, 0.01)}
        if norm == "ghost":
            with pytest.raises(BadRequest, match=r"add model\.ghost_batch=32"):
                model(images)
            give_ghosts(model, 8)
        torch.manual_seed(2)  # for dropout
        seen.append(model(images))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_an_inception_with_trained_weights_gives_nothing_but_logits_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision.models import Inception_V3_Weights
    from torchvision.models.inception import Inception3

    kept = Inception3(init_weights=False).state_dict()
    monkeypatch.setattr(Inception_V3_Weights, "get_state_dict", lambda self, **_: kept)

    model = of_torchvision.build("inception_v3", 7, (3, 75, 75), weights="DEFAULT")

    assert model.training
    assert model(torch.randn(2, 3, 75, 75)).shape == (2, 7)
    assert not any(name.startswith("AuxLogits") for name, _ in model.named_parameters())
    assert torch.equal(model.get_parameter("Mixed_7c.branch_pool.bn.weight"), kept["Mixed_7c.branch_pool.bn.weight"])


def test_pretrained_weights_come_from_the_file_and_the_head_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    kept = squeezenet1_1()
    torch.save(kept.state_dict(), folder / SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2])

    model = of_torchvision.build("squeezenet1_1", 7, (3, 32, 32), weights="DEFAULT")

    kept_weights, weights = kept.state_dict(), model.state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], kept_weights[name])]
    assert changed == ["classifier.1.weight", "classifier.1.bias"]
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(BadRequest, match=r"model\.weights=DEFAULT needs images of 3 channels, but the data's have 1"):
        of_torchvision.build("squeezenet1_1", 7, (1, 32, 32), weights="DEFAULT")


def test_without_a_network_it_says_which_file_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)

    with pytest.raises(BadRequest, match=r"no route to host.*download https://\S+\.pth elsewhere, put it into \S+hub"):
        of_torchvision.build("squeezenet1_1", 7, (3, 32, 32), weights="DEFAULT")


FAMILIES = [
    *("alexnet", "vgg11_bn", "squeezenet1_1", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
    *("convnext_tiny", "swin_t", "swin_v2_t", "vit_b_32", "regnet_y_400mf", "mnasnet0_5", "googlenet", "inception_v3"),
    *("shufflenet_v2_x0_5", "resnext50_32x4d"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_is_fitted(name: str) -> None:
    images = torch.randn(2, 1, 96, 96)

    logits = of_torchvision.build(name, 7, (1, 96, 96))(images)

    assert logits.shape == (2, 7)
    assert bool(logits.isfinite().all())


# What cannot be


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        (
            GPT,
            {"vocabulary": None},
            r"^model=gpt predicts the next token of a text, but this data is not text: use data=te",
        ),
        (GPT, {"width": 9}, r"^model\.width=9 must be divisible by model\.heads=2: .* model\.width=10"),
        (GPT, {"heads": 0}, r"^model\.heads=0 is invalid: it must be an integer of at least 1"),
        (GPT, {"depth": -1}, r"^model\.depth=-1 is invalid: it must be an integer of at least 0"),
        (GPT, {"dropout": 1.0}, r"^model\.dropout=1\.0 is invalid"),
        (ViT, {"patch": 3}, r"^model\.patch=3 must divide the 8x8 images: use model\.patch=2"),
        (ViT, {"input_shape": (64,)}, r"^model=vit needs images .*\(64,\): use model=mlp"),
        (ViT, {"num_classes": None}, r"^model=vit gives one row of outputs .* neither classes nor number"),
        (ResNet, {"depth": 10}, r"^model\.depth=10 is invalid: it must be 6n \+ 2, so model\.depth=8 or model\.depth="),
        (ResNet, {"depth": 2}, r"^model\.depth=2 is invalid: it must be an integer of at least 8"),
        (ResNet, {"width": 0}, r"^model\.width=0 is invalid"),
        (ResNet, {"norm": "instance"}, r"^model\.norm=instance is unknown: use one of batch, ghost, group, layer"),
        (ResNet, {"input_shape": (1, 3, 8)}, r"^model=resnet8 needs images .* of at least 4x4, .*\(1, 3, 8\): use mo"),
        (ResNet, {"input_shape": None}, r"^model=resnet8 needs images, but this data does not give"),
        (MLP, {"input_shape": None}, r"^model=mlp needs examples of a fixed shape, .* model=gpt for text"),
        (MLP, {"num_outputs": (3, 4)}, r"^model=mlp gives one row of outputs .* targets of shape \(3, 4\)"),
        (of_torchvision.build, {"name": "resnet19"}, r"is not a classifier of torchvision .*: did you mean model"),
        (
            of_torchvision.build,
            {"name": "alexnet"},
            r"^model\.name=alexnet cannot process images of 1x8x8 \(.*\): use l",
        ),
        (of_torchvision.build, {"norm": "what"}, r"^model\.norm=what is unknown"),
        (of_torchvision.build, {**LARGER, "name": "squeezenet1_1", "norm": "group"}, "has no BatchNorm: use"),
        (
            of_torchvision.build,
            {"weights": "DEFAULT", "norm": "group"},
            r"^model\.norm=group would discard .*weights=nul",
        ),
        (of_torchvision.build, {"weights": "MINE"}, r"^model\.weights=MINE is unknown: .* has .*DEFAULT"),
        (of_torchvision.build, {"colour": 1}, r"^model\.name=shufflenet_v2_x0_5 cannot be built \(.*colour"),
    ],
)
def test_invalid_options_are_refused_with_what_to_type(model: Any, keys: dict[str, Any], message: str) -> None:
    possible = {
        GPT: SMALL_GPT,
        ViT: SMALL_VIT,
        ResNet: {**IMAGE, "depth": 8},
        MLP: {**IMAGE, "width": 2, "depth": 1},
        of_torchvision.build: {**IMAGE, "name": "shufflenet_v2_x0_5"},
    }[model]
    with pytest.raises(BadRequest, match=message) as caught:
        model(**possible | keys)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_models_of_images_and_numbers_take_a_regression(num_outputs: int) -> None:
    x = torch.randn(2, 1, 8, 8)
    wanted = {"input_shape": (1, 8, 8), "num_outputs": num_outputs}

    for model in (MLP(**wanted, width=2, depth=1), CNN(**wanted, width=2), ResNet(**wanted, depth=8, width=2)):
        assert model(x).shape == (2, num_outputs)


# Every instrument, verify and accumulation, on each

DIGITS = "data=digits data.train_size=48"
SMALL = {
    "gpt": "data=text data.context=8 data.train_size=48 data.val_size=16 model.width=8 model.heads=2 model.depth=1",
    "vit": f"{DIGITS} model.width=8 model.heads=2 model.depth=1",
    "resnet8": f"{DIGITS} model.width=4",
    "torchvision": "data=fake data.train_size=48 data.val_size=16 model.name=shufflenet_v2_x0_5",
}
QUICKLY = (
    "instruments.sharpness.examples=16 instruments.sharpness.products=3 instruments.sharpness.probes=2 "
    "instruments.noise_scale.examples=16 instruments.noise_scale_micro_batches.examples=16 "
    "instruments.gradient_statistics.steps=1 +instruments.gradient_statistics.pairs=2"
)
MEASURED = (
    "train/gradient_norm",
    "gradient/variance",
    "gradient/cosine_successive",
    "noise/gradient_variance",
    "noise_micro_batches/gradient_variance",
    "sharpness/lambda_max",
    "sharpness/trace",
    "sharpness/keskar",
    "gap/loss",
    "val/hardest_decile_loss",
    "memory/saved_for_backward_bytes",
)


@pytest.mark.parametrize(
    "model", ["gpt", *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name != "gpt")]
)
def test_every_instrument_measures_it(model: str, lab: Any) -> None:
    point = lab.point(f"model={model}", *SMALL[model].split(), "instruments=full", *QUICKLY.split(), "batch_size=16",
                      "accumulate=2", "steps=3", "eval_every=48")  # fmt: skip

    lab.check(point)
    (record,) = lab.run(point).records

    assert (record.status, record.steps) == ("completed", 3), record.reason
    last = {m.name: m.value for m in lab.metrics(point)}
    assert [name for name in MEASURED if not math.isfinite(last.get(name, math.nan))] == []
    assert last["noise/gradient_variance"] > 0
    # Two estimates of one trace, from 16 of 48 examples ten times, at the end: BatchNorm differs between them.
    if model in ("gpt", "vit"):
        assert 1 / 3 < last["noise_micro_batches/gradient_variance"] / last["noise/gradient_variance"] < 3


@pytest.mark.parametrize(
    ("model", "keys", "same"),
    [
        ("gpt", "", True),
        ("vit", "", True),
        ("resnet8", "", False),
        ("resnet8", "model.norm=ghost model.ghost_batch=4", True),
        ("resnet8", "model.norm=group", True),
    ],
)
def test_verify_knows_whether_accumulating_is_the_large_batch(model: str, keys: str, same: bool) -> None:
    found = examine(compose([f"model={model}", *SMALL[model].split(), *keys.split(), "device=cpu", "batch_size=8",
                             "micro_batch_size=4"]))  # fmt: skip

    assert found.same is same
    assert [cause.is_batch_norm for cause in found.causes] == ([] if same else [True])


def test_a_micro_batch_of_one_is_refused_for_batch_norm_with_norms_that_work(lab: Any) -> None:
    requested = [
        "data=fake",
        "data.train_size=8",
        "data.val_size=4",
        "model=torchvision",
        "model.name=shufflenet_v2_x0_5",
    ]

    with pytest.raises(BadRequest, match=r"BatchNorm \(layer '.*'\) cannot train on one: .*, or model\.norm=group"):
        lab.check(lab.point(*requested, "batch_size=1"))
    lab.check(lab.point(*requested, "batch_size=1", "model.norm=group"))


def test_every_shipped_model_is_tested_here() -> None:
    """Otherwise a broken config would be found by its first user."""
    elsewhere = {"cnn", "mlp", "own"}  # in test_data_models
    tried = {*elsewhere, *SMALL, "resnet20", "resnet32", "resnet56", "resnet18", "resnet50"}
    assert {path.stem for path in CONFIGS.glob("model/*.yaml")} == tried


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet56", "torchvision", "resnet18"])
def test_the_other_shipped_configs_build_and_pass(name: str) -> None:
    keys = {key: value for key, value in read(f"model/{name}.yaml").items() if key != "ghost_batch"}
    model = targets.build(keys, nn.Module, what="model", offered={**IMAGE, "device": "cpu"})

    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)


# Other packages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("timm", "model=timm_resnet10t trust=[timm] data.train_size=64 batch_size=16 accumulate=2"),
        ("transformers", "model=gpt2 data=text data.context=16 data.train_size=64 data.val_size=16 batch_size=16"),
    ],
)
def test_a_model_of_another_package_runs_by_config_alone(package: str, words: str, lab: Any, repository: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'batchlab[examples]'")
    requested = [*words.split(), "epochs=6", "optimizer=adamw", "lr=0.003", "device=cpu", f"runs_dir={lab.runs_dir}"]
    point = Point(compose(requested, str(repository / "docs/examples")), tuple(requested))

    lab.check(point)
    (record,) = lab.run(point).records

    assert record.status == "completed", record.reason
    losses = lab.values(point, "train/loss")
    assert losses[-1] < 0.9 * losses[0]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(BadRequest, match=r"^model\.kind=gpt2 .* not installed here: pip inst"):
        hugging_face.build("gpt2", vocabulary=7, context=6)

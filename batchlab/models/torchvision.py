"""The image classifiers of torchvision, fitted to the data."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import image, outputs
from batchlab.models.norms import check_norm, replace_batch_norm

RGB = 3


def build(
    name: str,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    weights: str | None = None,
    norm: str | None = None,
    num_outputs: int | None = None,
    **settings: Any,
) -> nn.Module:
    """Torchvision's model `name`, with its head and first convolution fitted to the data.

    Initial weights are torchvision's own, random unless `weights` names pre-trained ones, which are downloaded; then
    the head is new. `norm` replaces every BatchNorm, and null leaves the model unchanged; with `weights` it must be
    null, batch or ghost. Other `settings` go to torchvision's builder. Images are used as the data has them, but
    pre-trained weights expect torchvision's normalisation.

    Maps images (examples, channels, height, width) to logits (examples, num_classes).
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        instead = f"did you mean model.name={near[0]}?" if near else "use one such as resnet18, vgg11_bn or vit_b_16"
        raise BadRequest(f"model.name={name} is not a classifier of torchvision {torchvision.__version__}: {instead}")
    shape = image(f"torchvision model.name={name}", input_shape)
    wanted = outputs(f"torchvision model.name={name}", num_classes, num_outputs)
    if norm is not None:
        check_norm(norm)
        if weights is not None and norm not in ("batch", "ghost"):
            raise BadRequest(
                f"model.norm={norm} would discard the BatchNorm weights of model.weights={weights}: use "
                "model.norm=null, batch or ghost, or model.weights=null"
            )
    settings = _of_its_own(name, shape) | settings
    if weights is None:
        model = _called(name, lambda: torchvision.models.get_model(name, num_classes=wanted, weights=None, **settings))
    else:
        model = _pretrained(name, weights, wanted, settings)
    _fit_channels(model, name, shape[0], weights)
    _refuse_unless_it_passes(model, name, shape)
    if norm is not None and not replace_batch_norm(model, norm):
        raise BadRequest(f"model.norm={norm} has no effect, because {name} has no BatchNorm: use model.norm=null")
    return model


def _of_its_own(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Settings that some builders need, to accept these images and to return only logits."""
    if name.startswith("vit_"):
        return {"image_size": shape[1]}
    if name.startswith("maxvit"):
        return {"input_size": shape[1:]}
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _called(name: str, builder: Callable[[], nn.Module]) -> nn.Module:
    try:
        return builder()
    except (TypeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadRequest(f"model.name={name} cannot be built ({reason}): change or remove a key") from None


def _pretrained(name: str, weights: str, wanted: int, settings: dict[str, Any]) -> nn.Module:
    import torchvision

    there_are = torchvision.models.get_model_weights(name).__members__
    if weights not in there_are:
        raise BadRequest(
            f"model.weights={weights} is unknown: {name} has {', '.join(there_are) or 'none'}; null: random weights"
        )
    chosen = there_are[weights]
    settings = {key: value for key, value in settings.items() if key not in ("aux_logits", "init_weights")}
    try:
        model = _called(name, lambda: torchvision.models.get_model(name, weights=chosen, **settings))
    except OSError as error:
        raise BadRequest(
            f"model.weights={weights} could not be downloaded ({error}): download {chosen.url} elsewhere, "
            f"put it into {torch.hub.get_dir()}/checkpoints, and run the same command again"
        ) from None
    _fit_head(model, len(chosen.meta["categories"]), wanted)
    if name == "inception_v3":
        # Its weights can only be loaded with the second head, but then it returns a pair in training.
        with_two: Any = model
        with_two.aux_logits, with_two.AuxLogits = False, None
    return model


def _fit_head(model: nn.Module, trained: int, wanted: int) -> None:
    """Gives the last layer, which has `trained` outputs, `wanted` outputs and new weights."""
    for layer in reversed(list(model.modules())):
        if isinstance(layer, nn.Linear) and layer.out_features == trained:
            layer.out_features = wanted
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == trained:  # SqueezeNet's
            layer.out_channels = wanted
        else:
            continue
        layer.weight = nn.Parameter(torch.empty(wanted, *layer.weight.shape[1:]))
        if layer.bias is not None:
            layer.bias = nn.Parameter(torch.empty(wanted))
        layer.reset_parameters()
        return


def _fit_channels(model: nn.Module, name: str, channels: int, weights: str | None) -> None:
    """Gives the first convolution new weights if the images do not have three channels."""
    if channels == RGB:
        return
    if weights is not None:
        raise BadRequest(
            f"model.weights={weights} needs images of {RGB} channels, but the data's have {channels}: use "
            "model.weights=null"
        )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == RGB:
            # With the same spread as those they replace: each model has its own initialisation.
            spread = layer.weight.detach().std()
            filters, _, *kernel = layer.weight.shape
            layer.in_channels = channels
            layer.weight = nn.Parameter(torch.randn(filters, channels, *kernel) * spread)
            return
    raise BadRequest(f"model.name={name} has no convolution of {RGB} channels that could be adapted to {channels}")


def _refuse_unless_it_passes(model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """BadRequest if the model needs larger images than these."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BadRequest(
            f"model.name={name} cannot process images of {'x'.join(map(str, shape))} ({reason}): use larger images, "
            "or a model for small ones, such as model=resnet20"
        ) from None
    model.train(was_training)

"""Checks that instruments measure the same on the device as on the CPU."""

from typing import Any

from smoke.runner import LeftOutError, check, wants
from smoke.tasks import CNN, GPT, parts_of

APART = 1e-3  # relative, between fp32 on two devices


def _state(device: str, *words: str) -> Any:
    return parts_of(device, "batch_size=16", "steps=4", *words).state


@check("the gradients of single examples, by vmap, are those of the CPU", limit=20.0)
def per_example_norms(device: str) -> dict[str, float]:
    return {name: _norms_apart(device, *words) for name, words in (("cnn", CNN), ("gpt", GPT))}


def _norms_apart(device: str, *words: str) -> float:
    import torch

    from batchlab.instruments.gradient.per_example import examples_at_once, freeze_statistics
    from batchlab.instruments.gradient.per_example import per_example_norms as norms
    from batchlab.training.data.batches import gather
    from batchlab.training.losses import Losses

    found = []
    for where in ("cpu", device):
        state = _state(where, *words)
        batch = gather(state.train, torch.arange(16))
        trained = [p for p in state.model.parameters() if p.requires_grad]
        with state.precision.full() as fp32:
            chunk = examples_at_once(state, gather(state.train, torch.arange(2)))
            freeze_statistics(state.model)
            seen = norms(Losses(state.model, state.task, fp32), batch, trained, [None], chunk=min(chunk, 16))
        found.append(seen.double().cpu())
    apart = float((found[0] - found[1]).norm() / found[0].norm())
    wants(apart < APART, "the norms differ from the CPU's", relative_difference=apart)
    return apart


@check("a product with the Hessian is the CPU's", limit=20.0)
def hessian_product(device: str) -> dict[str, float]:
    return {name: _products_apart(device, *words) for name, words in (("cnn", CNN), ("gpt", GPT))}


def _products_apart(device: str, *words: str) -> float:
    import torch

    from batchlab.instruments.curvature.hessian import loss_surface
    from batchlab.training.data.batches import gather

    found = []
    for where in ("cpu", device):
        state = _state(where, *words)
        with loss_surface(state, gather(state.train, torch.arange(32)), chunk=8, double=False) as surface:
            generator = torch.Generator().manual_seed(0)
            vector = torch.randn(surface.weights.numel(), generator=generator).to(surface.weights)
            found.append(surface.hessian_product(vector).double().cpu())
    apart = float((found[0] - found[1]).norm() / found[0].norm())
    wants(apart < APART, "the product differs from the CPU's", relative_difference=apart)
    return apart


@check("a validation has the CPU's loss")
def validation(device: str) -> dict[str, Any]:
    from batchlab.training.passes.evaluation import validated

    seen = {where: validated(_state(where, *CNN), 1000) for where in ("cpu", device)}
    losses = {where: next(q.mean for name, q in found.items() if "loss" in name) for where, found in seen.items()}
    apart = abs(losses["cpu"] - losses[device]) / losses["cpu"]
    wants(apart < APART, "the losses differ", **losses)
    return {"relative_difference": apart}


@check("the share of time that the device is busy is measured, between 0 and 1", needs="gpu", alone=True, limit=20.0)
def device_busy_share(device: str) -> dict[str, Any]:
    from laboratory import laboratory

    from smoke.tasks import configured

    found = {}
    for name, words in {"small": ("batch_size=8",), "large": (*CNN, "model.width=64", "batch_size=256")}.items():
        _, measurements, _ = laboratory(configured(device, "steps=200", *words))
        shares = [m.value for m in measurements if m.name == "speed/device_busy_share"]
        if not shares:
            raise LeftOutError("nothing measures speed/device_busy_share yet")
        wants(all(0 < share <= 1.01 for share in shares), "a share is none", **{name: shares})
        found[name] = shares[-1]
    return found

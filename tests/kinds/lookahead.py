"""An optimizer as timm makes them: groups by name, no decay for biases and norms, slow weights around it."""

import torch
from lora import datasets, training_step  # noqa: F401 - the harness takes them from each kind
from torch import nn

from batchlab import Task


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


class Lookahead(torch.optim.Optimizer):
    """Every `every` steps the weights move back, to a point between them and those of the last time."""

    def __init__(self, base, alpha=0.5, every=6):
        self.base, self.alpha, self.every = base, alpha, every
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
        for group in self.param_groups:
            group.setdefault("steps", 0)

    @torch.no_grad()
    def step(self, closure=None):
        loss = self.base.step(closure)
        for group in self.param_groups:
            group["steps"] += 1
            if group["steps"] % self.every == 0:
                self.update_slow(group)
        return loss

    def update_slow(self, group):
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.base.state[p]
            if "slow" not in state:
                state["slow"] = p.detach().clone()
            p.copy_(state["slow"].lerp_(p, self.alpha))

    def state_dict(self):
        return self.base.state_dict()

    def load_state_dict(self, state_dict):
        self.base.load_state_dict(state_dict)
        self.param_groups = self.base.param_groups


def plain_optimizer(model, lr):
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.01}]
    return Lookahead(torch.optim.AdamW(groups, lr=lr))


# What you write:
def load():
    train, val = datasets()
    return Task.classification(train, val)


def make(named_parameters, lr, weight_decay):
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": weight_decay}]
    for _, p in named_parameters:
        groups[p.ndim > 1]["params"].append(p)
    return Lookahead(torch.optim.AdamW(groups, lr=lr))

"""A graph network: a batch of graphs is one large graph, an object with a `to` method."""

import torch
import torch.nn.functional as F
from torch import nn

from batchlab import Task


class Graphs:
    """Nodes of all graphs, edges between them, and the graph of each node."""

    def __init__(self, x, edge_index, graph, y):
        self.x, self.edge_index, self.graph, self.y = x, edge_index, graph, y

    def to(self, device, non_blocking=False):
        parts = (part.to(device, non_blocking=non_blocking) for part in vars(self).values())
        return Graphs(*parts)


def collate(graphs):
    sizes = torch.tensor([len(x) for x, _, _ in graphs])
    first = sizes.cumsum(0) - sizes
    return Graphs(
        torch.cat([x for x, _, _ in graphs]),
        torch.cat([edges + start for (_, edges, _), start in zip(graphs, first, strict=True)], dim=1),
        torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        torch.tensor([y for _, _, y in graphs]),
    )


class GCN(nn.Module):
    def __init__(self, width=8, classes=3):
        super().__init__()
        self.conv1, self.conv2, self.out = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, classes)

    def passed(self, x, edges):
        source, target = edges
        return x + torch.zeros_like(x).index_add_(0, target, x[source])

    def forward(self, data):
        x = F.relu(self.conv1(self.passed(data.x, data.edge_index)))
        x = F.relu(self.conv2(self.passed(x, data.edge_index)))
        summed = torch.zeros(len(data.y), x.size(1), dtype=x.dtype, device=x.device).index_add_(0, data.graph, x)
        return self.out(summed / torch.bincount(data.graph, minlength=len(data.y)).unsqueeze(1))


def graphs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        nodes = int(torch.randint(2, 9, (), generator=generator))
        edges = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
        y = int(torch.randint(0, 3, (), generator=generator))
        made.append((torch.rand(nodes, 4, generator=generator), edges, y))
    return made


def datasets():
    return graphs(40, 0), graphs(20, 1)


def training_step(model, batch):
    return F.cross_entropy(model(batch), batch.y)


# What you write:
def load():
    train, val = datasets()
    return Task(
        train=train,
        val=val,
        collate=collate,
        loss=lambda out, batch: F.cross_entropy(out, batch.y, reduction="none"),
        metrics=lambda out, batch: {"accuracy": (out.argmax(1) == batch.y).float()},
    )

"""A detector as those of torchvision: images of unequal size and a dict of boxes for each. Called with targets in
training mode it returns a dict of losses, and in eval mode the boxes that it found."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from batchlab import Task


class Detector(nn.Module):
    """For each place of a grid: whether it is the centre of a box of each class, and how large that is."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.centres, self.sizes = nn.Conv2d(6, num_classes, 1), nn.Conv2d(6, 2, 1)

    def forward(self, images, targets=None):
        if self.training and targets is None:
            raise ValueError("targets should not be none when in training mode")
        features = [self.backbone(image.unsqueeze(0)) for image in images]
        heads = [(self.centres(one)[0], self.sizes(one)[0]) for one in features]
        if self.training:
            losses = [self.losses(*head, target) for head, target in zip(heads, targets, strict=True)]
            return {name: sum(one[name] for one in losses) / len(losses) for name in losses[0]}
        return [self.detections(*head) for head in heads]

    def losses(self, centres, sizes, target):
        boxes = target["boxes"]
        middle = ((boxes[:, :2] + boxes[:, 2:]) / 8).long()
        wanted = torch.zeros_like(centres)
        wanted[target["labels"], middle[:, 1], middle[:, 0]] = 1
        missed = sizes[:, middle[:, 1], middle[:, 0]].T - (boxes[:, 2:] - boxes[:, :2]) / 4
        return {
            "classification": F.binary_cross_entropy_with_logits(centres, wanted, reduction="sum") / max(1, len(boxes)),
            "bbox_regression": missed.abs().sum() / max(1, len(boxes)),
        }

    def detections(self, centres, sizes):
        label, y, x = (centres.sigmoid() > 0.5).nonzero().T
        half = 2 * sizes[:, y, x].T
        middle = 4 * torch.stack((x, y), dim=1)
        return {"boxes": torch.cat((middle - half, middle + half), dim=1), "labels": label}


class Boxes(Dataset):
    def __init__(self, n, seed):
        self.n, self.seed = n, seed

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        height, width = torch.randint(3, 6, (2,), generator=generator).tolist()
        many = int(torch.randint(0, 4, (), generator=generator))  # 0 for some
        start = torch.rand(many, 2, generator=generator) * 6
        boxes = torch.cat((start, start + 1 + 4 * torch.rand(many, 2, generator=generator)), dim=1)
        labels = torch.randint(0, 2, (many,), generator=generator)
        image = torch.rand(3, 4 * height, 4 * width, generator=generator)
        return image, {"boxes": boxes, "labels": labels, "image_id": index}


def collate(examples):
    return tuple(zip(*examples, strict=True))


def datasets():
    return Boxes(40, 0), Boxes(20, 1)


def training_step(model, batch):
    images, targets = batch
    return sum(model(images, targets).values())


# What you write:
def load():
    train, val = datasets()
    return Task(train=train, val=val, collate=collate, training_loss=training_step)

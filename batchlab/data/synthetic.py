"""Labels from a fixed random network: data of any size, without download or disk."""

import torch
from torch import Tensor

from batchlab import BadRequest, Task
from batchlab.data.label_noise import with_wrong_labels

TEACHER_SEED, TRAIN_SEED, VAL_SEED, NOISE_SEED = 20250201, 20250202, 20250203, 20250204
TEACHER_WIDTH = 32  # hidden units


def load(
    train_size: int,
    val_size: int,
    features: int,
    classes: int,
    label_noise: float = 0.0,
    device: torch.device | str = "cpu",
) -> Task:
    """Normal inputs (examples, features) and the class (examples,) that a fixed two-layer network assigns to them.

    Generated on the device, depending on its kind: CPU and CUDA draw different examples for the same teacher.
    """
    for name, value, least in (
        ("train_size", train_size, 1),
        ("val_size", val_size, 1),
        ("features", features, 1),
        ("classes", classes, 2),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadRequest(
                f"data.{name}={value} is invalid: give an integer of at least {least}, such as data.{name}={least}"
            )
    # The teacher is drawn on the CPU, so that it is the same on every device.
    generator = torch.Generator().manual_seed(TEACHER_SEED)
    hidden = (torch.randn(features, TEACHER_WIDTH, generator=generator) / features**0.5).to(device)
    outputs = torch.randn(TEACHER_WIDTH, classes, generator=generator).to(device)

    def draw(size: int, seed: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(size, features, generator=torch.Generator(device).manual_seed(seed), device=device)
        return inputs, (torch.tanh(inputs @ hidden) @ outputs).argmax(dim=1)

    inputs, labels = draw(train_size, TRAIN_SEED)
    noisy, corrupted = with_wrong_labels(labels, label_noise, classes=classes, seed=NOISE_SEED)
    return Task.classification(
        train=(inputs, noisy),
        val=draw(val_size, VAL_SEED),
        corrupted=corrupted,
        uncorrupted=(inputs, labels),
        model_args={"num_classes": classes, "input_shape": (features,)},  # a rare class may have no examples
    )

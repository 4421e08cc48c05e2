"""What other programs call batchlab's options and their values: for the message about a name that is unknown."""

from collections.abc import Iterable

from batchlab.config.options import option_names
from batchlab.errors import did_you_mean

SYNONYMS = {
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size", "per_device_train_batch_size"), "batch_size"),
    **dict.fromkeys(("learning_rate", "learningrate", "base_lr", "rate"), "lr"),
    **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs"), "epochs"),
    **dict.fromkeys(("iterations", "iters", "max_steps", "num_steps", "max_iters"), "steps"),
    **dict.fromkeys(("amp", "fp16", "bf16", "mixed_precision", "autocast", "dtype"), "precision"),
    **dict.fromkeys(
        ("grad_accum", "grad_accumulation", "accum", "accumulation_steps", "gradient_accumulation_steps"), "accumulate"
    ),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation"), "accumulate"),
    **dict.fromkeys(("micro_batch", "microbatch", "mbs"), "micro_batch_size"),
    **dict.fromkeys(("num_workers", "dataloader_num_workers"), "workers"),
    **dict.fromkeys(("seeds", "random_seed", "random_state"), "seed"),
    **dict.fromkeys(("grad_clip", "clip", "max_grad_norm", "clip_grad_norm", "gradient_clip_val"), "clip_norm"),
    **dict.fromkeys(("scheduler", "lr_schedule", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "warmup_ratio"), "warmup"),
    **dict.fromkeys(("gpu", "cuda", "accelerator"), "device"),
    **dict.fromkeys(("dataset", "datasets"), "data"),
    **dict.fromkeys(("net", "network", "arch"), "model"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("output_dir", "out_dir", "save_dir"), "runs_dir"),
    "name": "study",
    **{key: f"optimizer.{key}" for key in ("momentum", "nesterov", "betas", "eps")},
}
VALUES = {
    **dict.fromkeys(("square", "square_root", "root"), "sqrt"),
    **dict.fromkeys(("float32", "single", "full"), "fp32"),
    **dict.fromkeys(("float16", "half"), "fp16"),
    "bfloat16": "bf16",
}


def meant(name: str) -> str:
    """`": did you mean 'batch_size'?"` for an unknown name at the root of a config; `""` if none is close."""
    synonym = SYNONYMS.get(name.lower().replace("-", "_"))
    return f": did you mean '{synonym}'?" if synonym else did_you_mean(name, option_names())


def meant_value(value: str, choices: Iterable[str]) -> str:
    """The same for a value that is none of `choices`."""
    synonym = VALUES.get(value.lower())
    return f": did you mean '{synonym}'?" if synonym in (known := [*choices]) else did_you_mean(value, known)

"""For each claim a study in which it is true (1), in which the opposite is (-1), and in which nothing can be shown (0).

Written only from SCIENCE 1: formulas for what a run would have measured, with noise from its seed.
"""

import math
import random
from collections.abc import Callable
from typing import Any

from invented.tables import N_TRAIN, missed, reached, run, study

from batchlab.report.tables.study import Study

SIZES, SEEDS = (8, 32, 128, 512), range(8)
Plant = Callable[[int], Study]


def wiggle(truth: int, *seed: object) -> float:
    """A noise factor: of 3% if there is something to see, otherwise so large that nothing is."""
    return math.exp(random.Random(repr(seed)).gauss(0, 0.03 if truth else 0.8))


def power(truth: int, size: int, seed: int, p: float, *key: object) -> float:
    """(B/8)^(p truth), wiggled."""
    return (size / 8) ** (p * truth) * wiggle(truth, size, seed, *key)


def everywhere(of_run: Callable[[int, int], dict[str, Any]], sizes: tuple[int, ...] = SIZES) -> Study:
    return study([of_run(size, seed) for size in sizes for seed in SEEDS])


def epoch_time(truth: int) -> Study:
    return everywhere(lambda b, s: run(b, s, train_seconds=10 * power(truth, b, s, -0.5)))


def updates(truth: int) -> Study:
    if truth == 0:
        return everywhere(lambda b, s: run(b, s), sizes=(32,))
    return everywhere(lambda b, s: run(b, s) if truth > 0 else run(b, s, steps=b * 10, examples=20 * N_TRAIN))


def throughput(truth: int) -> Study:
    return everywhere(lambda b, s: run(b, s, {"speed/examples_per_second": 1e4 * power(truth, b, s, 0.3)}))


def early_progress(truth: int) -> Study:
    # Examples to the target rise with B, or fall.
    return everywhere(lambda b, s: run(b, s, **reached(8000 / b * power(truth, b, s, 0.5), b)))


def steps_to_target(truth: int) -> Study:
    def steps(b: int, s: int) -> float:
        return (200 + 12800 / b if truth > 0 else 200 * (b / 8) ** 0.3 if truth < 0 else 800) * wiggle(truth, b, s)

    return everywhere(lambda b, s: run(b, s, **reached(steps(b, s), b)))


def gradient_noise(truth: int) -> Study:
    def variance(b: int, s: int) -> float:
        return 50 * (1 / b - 1 / N_TRAIN) ** truth * wiggle(truth, b, s) ** (1 if truth else 4)

    return everywhere(lambda b, s: run(b, s, {"start:gradient/variance": variance(b, s)}))


def smoothness(truth: int) -> Study:
    def losses(b: int, s: int) -> list[tuple[int, float]]:
        draw, size = random.Random(f"{b} {s}"), 0.05 * power(truth, b, s, -0.5)
        every = 512 // b
        return [(i * every, math.exp(-0.05 * i + size * draw.gauss(0, 1))) for i in range(1, 51)]

    return everywhere(lambda b, s: run(b, s, curve={"train/loss": losses(b, s)}))


def generalisation(truth: int) -> Study:
    # Already as good within the steps of the largest batch as at the end: equal examples and equal steps agree.
    def curve(b: int, s: int) -> list[tuple[int, float]]:
        return [(step, 0.2 * power(truth, b, s, 0.2)) for step in (20, 28_672 // b)]

    return everywhere(lambda b, s: run(b, s, curve={"val/loss": curve(b, s)}))


def sharpness(truth: int) -> Study:
    names = [f"{g}/{n}" for g in ("sharpness", "sharpness_at_loss_0.2") for n in ("lambda_max", "trace", "sam", "asam")]
    return everywhere(lambda b, s: run(b, s, {name: 5 * power(truth, b, s, 0.4, name, 1) for name in names}))


def memorisation(truth: int) -> Study:
    def learnt(b: int, s: int) -> float:
        return 0.5 + 0.05 * truth * math.log2(b / 64) + 0.1 * math.log(wiggle(truth, b, s))

    return everywhere(lambda b, s: run(b, s, {"clean_train/corrupted_accuracy": learnt(b, s)}))


def nuance(truth: int) -> Study:
    def worse(b: int) -> float:
        return 0.03 * math.log2(b / 64)

    return everywhere(
        lambda b, s: run(
            b,
            s,
            {
                "val/hardest_decile_loss": 1.5 * power(truth, b, s, 0.2),
                "val/worst_class_accuracy": 0.7
                - 0.03 * truth * math.log2(b / 64)
                + 0.1 * math.log(wiggle(truth, b, s)),
            },
        )
    )


def escape(truth: int) -> Study:
    def got_there(b: int, s: int) -> bool:
        return random.Random(f"{b} {s}").random() < 0.5 if truth == 0 else (b < 100) == (truth > 0)

    return everywhere(lambda b, s: run(b, s, **(reached(100, b) if got_there(b, s) else missed())))


def memory(truth: int) -> Study:
    sizes = SIZES if truth else (32,)
    return everywhere(
        lambda b, s: run(b, s, {"memory/saved_for_backward_bytes": 1e6 * (b / 8) ** (0.9 * truth)}), sizes=sizes
    )


def lr_scaling(truth: int) -> Study:
    lrs = [0.0125 * 2.0**i for i in range(9)] if truth else [0.02]

    def loss(b: int, lr: float) -> float:
        return 0.3 + 0.02 * math.log2(lr / (0.2 * (b / 64) ** (0.5 * truth))) ** 2

    return study(
        [
            run(
                b,
                s,
                {"val/loss": loss(b, lr)},
                requested={"lr": lr},
            )
            for b in SIZES
            for s in range(3)
            for lr in lrs
        ]
    )


def warmup(truth: int) -> Study:
    def loss(b: int, s: int, wait: float) -> float:
        return 0.2 * (1 + 0.3 * truth * (b > 100) * (wait == 0)) * wiggle(truth, b, s, wait)

    return study(
        [
            run(b, s, {"val/loss": loss(b, s, w)}, requested={"warmup": w})
            for b in (32, 512)
            for s in SEEDS
            for w in (0.0, 0.1)
        ]
    )


def accumulation(truth: int) -> Study:
    def of(s: int, count: int | None) -> dict[str, Any]:
        worse = 1.3 if truth < 0 and count else 1.0
        saved = 4e6 if not count else 1e6 if truth >= 0 else 8e6
        loss = 0.2 * worse * (math.exp(random.Random(f"{s} {count}").gauss(0, 0.005 if truth else 0.8)))
        return run(
            512, s, {"val/loss": loss, "memory/saved_for_backward_bytes": saved}, requested={"accumulate": count}
        )

    return study([of(s, count) for s in SEEDS for count in (None, 4)])


def mixed_precision(truth: int) -> Study:
    def of(s: int, precision: str) -> dict[str, Any]:
        low = precision == "bf16"
        saved = 4e6 if not low else 2e6 if truth >= 0 else 5e6
        loss = (
            0.2
            * (1.3 if truth < 0 and low else 1)
            * math.exp(random.Random(f"{s} {precision}").gauss(0, 0.005 if truth else 0.8))
        )
        return run(
            128, s, {"val/loss": loss, "memory/saved_for_backward_bytes": saved}, requested={"precision": precision}
        )

    return study([of(s, precision) for s in SEEDS for precision in ("fp32", "bf16")])


def largest_fit(truth: int) -> Study:
    runs = [run(b, s, {"speed/examples_per_second": 1e4 * power(truth, b, s, 0.4)}) for b in SIZES for s in SEEDS]
    return study([*runs, run(1024, 0, status="oom", steps=0, examples=0, epochs=0.0, train_seconds=0.0)])


def best_batch(p: float, by: str, option: str, truth: int) -> Study:
    sizes = (8, 16, 32, 64, 128, 256, 512)
    return study(
        [
            run(
                b,
                s,
                {
                    "val/loss": (0.3 + 0.02 * math.log2(b / (64 * (amount / 720) ** (p * truth))) ** 2)
                    * (1 + 0.01 * math.log(wiggle(1, b, s, amount)) if truth else wiggle(0, b, s, amount))
                },
                requested={option: amount},
                **{by: amount},
            )
            for b in sizes
            for s in SEEDS
            for amount in (360, 720, 1437)
        ]
    )


def dataset_size(truth: int) -> Study:
    return best_batch(0.6, "n_train", "data.train_size", truth)


def model_size(truth: int) -> Study:
    return best_batch(-0.6, "parameters", "model.width", truth)


def domain(truth: int) -> Study:
    def steps(b: int, s: int, text: bool) -> float:
        # If there is nothing to see, the text task has the larger one in every other seed.
        larger = (truth > 0) == text if truth else (s % 2 == 0) == text
        return 100 * (1 + (200 if larger else 40) / b) * (1 + 0.01 * math.log(wiggle(1, b, s, text)))

    return study(
        [
            run(
                b,
                s,
                requested={"data._target_": f"my_{task}.load"},
                **reached(steps(b, s, task == "text"), b),
            )
            for b in SIZES
            for s in SEEDS
            for task in ("images", "text")
        ]
    )


PLANTS: dict[str, Plant] = {  # by claim, in the report's order
    "epoch-time": epoch_time,
    "updates": updates,
    "throughput": throughput,
    "early-progress": early_progress,
    "steps-to-target": steps_to_target,
    "gradient-noise": gradient_noise,
    "smoothness": smoothness,
    "generalisation": generalisation,
    "sharpness": sharpness,
    "memorisation": memorisation,
    "nuance": nuance,
    "escape": escape,
    "memory": memory,
    "lr-scaling": lr_scaling,
    "small-lr": lambda truth: lr_scaling(-truth),
    "warmup": warmup,
    "accumulation": accumulation,
    "mixed-precision": mixed_precision,
    "largest-fit": largest_fit,
    "dataset-size": dataset_size,
    "model-size": model_size,
    "domain": domain,
}

"""The learning rate over a run, as a function of the fraction of the budget that is used."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchlab.errors import BadRequest

Curve = Callable[[float], float]  # from the fraction of the budget that is used to the multiple of the peak
ROUNDING = 1e-12


@dataclass(frozen=True)
class Schedule:
    """One built-in schedule; its options are called `schedule_` and the name in `uses`."""

    curve: Callable[..., Curve]  # of the options that it uses
    uses: tuple[str, ...] = ()
    after_warmup: bool = True  # the curve is over what the warm-up leaves, not over the whole budget
    warms_up: bool = False  # by itself
    falls_at: Callable[..., float] = lambda **_: 1.0  # the fraction of the budget at which it leaves the peak


def learning_rate(progress: float, *, peak: float, warmup: float, start: float, curve: Curve) -> float:
    """The learning rate at `progress` in [0, 1]: a straight line from `start` to `peak` over the first `warmup`
    of the budget (Goyal et al. 2017, arXiv:1706.02677, section 2.2), then the curve.

    `progress` and `warmup` are fractions of the budget; nothing here counts steps, so that every batch size
    follows the same curve over the examples.
    """
    if progress < warmup:
        return start + (peak - start) * progress / warmup
    if warmup >= 1:
        return peak
    return peak * curve(progress)


def curve_of(name: str, options: Mapping[str, Any], warmup: float) -> Curve:
    """The curve of a built-in schedule after a `warmup`, a fraction of the budget."""
    schedule = SCHEDULES[name]
    curve = schedule.curve(**{key: options[key] for key in schedule.uses})
    return after_warmup(curve, warmup) if schedule.after_warmup else curve


def after_warmup(curve: Curve, warmup: float) -> Curve:
    """`curve` over the fraction of the budget that follows the warm-up."""
    return lambda progress: curve(min(1.0, (progress - warmup) / (1.0 - warmup)))


def check_options(name: str | None, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """BadRequest for milestones that do not rise, and for an option that the schedule does not use.

    `name` is None for a schedule of the user's own.
    """
    uses = SCHEDULES[name].uses if name is not None else ()
    asked = f"schedule={name}" if name is not None else "a schedule of your own"
    for key, value in options.items():
        if key not in uses and value != defaults[key]:
            users = " or ".join(f"schedule={other}" for other, one in SCHEDULES.items() if key in one.uses)
            raise BadRequest(f"{asked} does not use schedule_{key}={_shown(value)}: leave it out, or use {users}")
    milestones = options["milestones"]
    rising = all(a < b for a, b in zip((0.0, *milestones), (*milestones, 1.0), strict=True))
    if not milestones or not rising:
        raise BadRequest(
            f"schedule_milestones={_shown(milestones)} is invalid: give fractions of the budget above 0 and below 1 in "
            "rising order, such as [0.5,0.75]"
        )


def check_warmup(name: str, options: Mapping[str, Any], warmup: float) -> None:
    """BadRequest for a warm-up, a fraction of the budget, that does not fit the schedule."""
    schedule = SCHEDULES[name]
    if schedule.warms_up and warmup > 0:
        raise BadRequest(
            f"schedule={name} warms up by itself: use warmup=0, and schedule_peak_at for the fraction of the budget at "
            "which the peak is reached"
        )
    falls_at = schedule.falls_at(**{key: options[key] for key in schedule.uses})
    if warmup > falls_at + ROUNDING:
        raise BadRequest(
            f"the warm-up takes {warmup:.4g} of the budget, but schedule={name} leaves the peak at {falls_at:.4g}: use "
            f"a shorter warmup, or another schedule_{schedule.uses[0]}"
        )


def _constant(progress: float) -> float:
    return 1.0


def _falling(down: Curve, floor: float) -> Curve:
    """`down`, which goes from 1 to 0, with `floor` as its end."""
    return lambda progress: floor + (1.0 - floor) * down(progress)


def _linear(floor: float) -> Curve:
    return _falling(lambda progress: 1.0 - progress, floor)


def _cosine(floor: float) -> Curve:
    """Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts."""
    return _falling(lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)), floor)


def _step(milestones: tuple[float, ...], factor: float) -> Curve:
    """Multiplies by `factor` at each of the milestones."""
    return lambda progress: factor ** bisect_right(milestones, progress)


def _one_cycle(peak_at: float, start_divisor: float, end_divisor: float) -> Curve:
    """Smith and Topin 2018, arXiv:1708.07120, as in PyTorch: half a cosine up to the peak, and one down."""
    first = 1.0 / start_divisor
    last = first / end_divisor

    def curve(progress: float) -> float:
        if progress <= peak_at:
            return _half_cosine(first, 1.0, progress / peak_at)
        return _half_cosine(1.0, last, (progress - peak_at) / (1.0 - peak_at))

    return curve


def _half_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * part))


def _warmup_stable_decay(decay: float, floor: float) -> Curve:
    """Hu et al. 2024, arXiv:2404.06395: constant, then a straight line over the last `decay` of the budget."""
    return _falling(lambda progress: min(1.0, (1.0 - progress) / decay), floor)


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(lambda: _constant),
    "linear": Schedule(_linear, uses=("floor",)),
    "cosine": Schedule(_cosine, uses=("floor",)),
    "step": Schedule(
        _step,
        uses=("milestones", "factor"),
        after_warmup=False,
        falls_at=lambda milestones, factor: milestones[0],
    ),
    "one_cycle": Schedule(
        _one_cycle,
        uses=("peak_at", "start_divisor", "end_divisor"),
        after_warmup=False,
        warms_up=True,
    ),
    "wsd": Schedule(
        _warmup_stable_decay,
        uses=("decay", "floor"),
        after_warmup=False,
        falls_at=lambda decay, floor: 1.0 - decay,
    ),
}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).removesuffix(".0")

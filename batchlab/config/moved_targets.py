"""Built-in classes that have moved since they were first named in configurations: both names mean the same run."""

from collections.abc import Mapping
from typing import Any

MOVED = {  # the name that run ids are made of -> the name that the class has now
    f"batchlab.instruments.{old}": f"batchlab.instruments.{new}"
    for old, new in (
        ("generalisation.Generalisation", "generalisation.gap.Generalisation"),
        ("gradient.Gradient", "gradient.gradient_norm.Gradient"),
        ("gradient_statistics.GradientStatistics", "gradient.gradient_statistics.GradientStatistics"),
        ("memorisation.Memorisation", "generalisation.memorisation.Memorisation"),
        ("noise_scale.GradientNoiseScale", "gradient.noise_scale.GradientNoiseScale"),
        ("sharpness.Sharpness", "curvature.sharpness.Sharpness"),
        ("worst_class.WorstClass", "generalisation.worst_class.WorstClass"),
    )
}
_FIRST = {new: old for old, new in MOVED.items()}


def current(instruments: Any) -> Any:
    """The instruments of a configuration, each `_target_` with the name that the class has now."""
    return _renamed(instruments, MOVED)


def first(instruments: Any) -> Any:
    """The same with the names of the first edition, which run ids are made of: so a run keeps its id."""
    return _renamed(instruments, _FIRST)


def _renamed(instruments: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(instruments, Mapping):
        return instruments
    return {key: _group_renamed(group, names) for key, group in instruments.items()}


def _group_renamed(group: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(group, Mapping) or group.get("_target_") not in names:
        return group
    return {**group, "_target_": names[group["_target_"]]}

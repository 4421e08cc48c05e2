"""When a run first reached a target: the statistic behind steps-to-target curves."""


def reaches(value: float, target: float, *, higher_is_better: bool) -> bool:
    """Whether `value` is at or beyond `target`; a nan never is (Shallue et al. 2019, arXiv:1811.03600)."""
    return value >= target if higher_is_better else value <= target

"""Counts PyTorch's operations: on a GPU each of them is at least one launch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts the operations inside by name; views, which compute nothing, separately."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.views: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.seen.total()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.namespace != "prim":  # queries, such as a tensor's device
            (self.views if func.is_view else self.seen)[str(func)] += 1
        return func(*args, **(kwargs or {}))

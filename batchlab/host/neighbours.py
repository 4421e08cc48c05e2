"""Other programs that compute on a GPU, whoever started them: what no lease of batchlab's shows."""

import os
from collections.abc import Callable, Collection

from batchlab.host.nvml import computing_on

Listed = Callable[[str], frozenset[int] | None]

SILENT = "the driver does not say which programs compute on it"
HIDDEN = "the driver lists no process on it, this one included, as in a container"


class Neighbours:
    """Who else computes on a GPU, asked before this process does and once more when it has.

    Own processes are no neighbours: this one, what started it, and what it started.

    In a container the driver may list processes by numbers that mean others in here. Where this one computes on the
    GPU it is listed then, and cannot be told: one process listed is itself, and a second somebody else.
    """

    def __init__(self, uuid: str, *, listed: Listed = computing_on, family: Collection[int] | None = None) -> None:
        self.uuid, self.unknown = uuid, ""
        self._listed = listed
        self._family = family
        self._met = False
        found = listed(uuid)
        if found is None:
            self.unknown = SILENT
        else:
            self._met = bool(found - set(own_family() if family is None else family))

    def met(self) -> bool:
        """Whether there was one before, or is one now. To be asked while this process still has its GPU."""
        if self._met or self.unknown:
            return self._met
        found = self._listed(self.uuid)
        if found is None:
            self.unknown = SILENT
        elif not found:
            self.unknown = HIDDEN
        else:
            family = set(own_family() if self._family is None else self._family)
            self._met = bool(found - family) if found & family else len(found) > 1
        return self._met


def own_family() -> frozenset[int]:
    """This process, its ancestors and its descendants."""
    import psutil

    family = {os.getpid()}
    try:
        here = psutil.Process()
        family |= {relative.pid for relative in (*here.parents(), *here.children(recursive=True))}
    except psutil.Error:
        pass  # one of them ended while it was looked at
    return frozenset(family)

"""Other programs that use a GPU, whoever started them; the leases of batchlab do not show them."""

import os
from collections.abc import Callable, Collection

from batchlab.host.nvml import computing_on

Listed = Callable[[str], frozenset[int] | None]

SILENT = "the driver does not report which programs use it"
HIDDEN = "the driver lists no process on it, not even this one, as in a container"


class Neighbours:
    """Other programs on a GPU, checked before this process uses the GPU and once more afterwards.

    This process, its ancestors and its descendants do not count.

    In a container the driver may list process ids of the host, so this process cannot be recognised in the list. If
    it uses the GPU, one listed process is itself, and a second one is another program.
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
        """Whether another program used the GPU before, or uses it now; call it while this process still does."""
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
        pass  # one of them ended meanwhile
    return frozenset(family)

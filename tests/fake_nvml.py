"""A fake pynvml: the functions that batchlab calls, for GPUs that a test defines."""

from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 2**30


class NVMLError(Exception):
    """Like pynvml's: every error of the library."""


@dataclass
class Card:
    """A GPU, or a MIG instance of one."""

    uuid: str
    name: str = "NVIDIA H200"
    total: int = 140 * GIB
    used: int = GIB // 2
    mode: int = 0
    pids: list[int] | None = field(default_factory=list)  # None: not permitted
    used_by: dict[int, int] = field(default_factory=dict)  # bytes, by process
    instances: list["Card"] | None = None  # a list: MIG is on
    denied: bool = False  # a batch system denies this job access to it


@dataclass
class FakeNvml:
    """The module, passed as `api`."""

    cards: list[Card] = field(default_factory=list)
    cuda: int | None = 13020
    newer_libcuda: int | None = None
    starts: bool = True
    NVMLError = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names
        if not self.starts:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        card = self.cards[index]
        if card.denied:
            raise NVMLError("Insufficient Permissions")
        return card

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        for card in self.cards:
            for one in (card, *(card.instances or [])):
                if one.uuid == uuid:
                    return one
        raise NVMLError("Not Found")

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "595.71.05"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return self._known(self.cuda)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self._known(self.newer_libcuda)

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return card.name

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=card.total, used=card.used, free=card.total - card.used)

    def nvmlDeviceGetComputeMode(self, card: Card) -> int:  # noqa: N802
        return card.mode

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[SimpleNamespace]:  # noqa: N802
        if card.pids is None:
            raise NVMLError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=card.used_by.get(pid)) for pid in card.pids]

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:  # noqa: N802
        if card.uuid.startswith("MIG-"):
            raise NVMLError("Invalid Argument")
        return [int(card.instances is not None), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:  # noqa: N802
        if card.instances is None or index >= len(card.instances):
            raise NVMLError("Not Found")
        return card.instances[index]

    @staticmethod
    def _known(version: int | None) -> int:
        if version is None:
            raise NVMLError("Function Not Found")
        return version


def four(*names: str) -> FakeNvml:
    """A machine with four GPUs, GPU-a... to GPU-d..., all of one model or of the named models."""
    models = names or ("NVIDIA H200",) * 4
    return FakeNvml([Card(f"GPU-{letter}0000000", name) for letter, name in zip("abcd", models, strict=False)])


def divided(*instances: str) -> FakeNvml:
    """A machine with one GPU that MIG divides into `instances`, by their UUIDs."""
    parts = [Card(uuid, "NVIDIA H200 MIG 1g.18gb", total=18 * GIB) for uuid in instances]
    return FakeNvml([Card("GPU-a0000000", instances=parts)])

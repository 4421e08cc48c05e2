"""A model of PyTorch's CUDA caching allocator (c10/cuda/CUDACachingAllocator.cpp), on one stream.

Modelled: sizes are rounded up to 512 bytes; up to 1 MiB they come from segments of 2 MiB, below 10 MiB from segments of
20 MiB, and above from a separate segment, rounded up to 2 MiB. A freed block is merged with its free neighbours and
cached; the smallest free block that is large enough is used, and split if enough is left. If the device or the limit
refuses a segment, all empty segments are released, which counts as a retry, and the request is repeated once.
Not modelled: expandable segments, several streams, garbage collection, `max_split_size`.
"""

import bisect
import itertools
from dataclasses import dataclass
from typing import Any

import torch

MIB = 2**20
ROUNDING = 512
SMALL = 1 * MIB  # the largest request served by the small pool; the rest of a split large block must be larger
SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
ITS_OWN_SEGMENT, SEGMENT_ROUNDING = 10 * MIB, 2 * MIB  # from 10 MiB on


@dataclass(eq=False)
class Block:
    """Consecutive bytes of a segment: in use, or free."""

    size: int
    small: bool
    number: int
    requested: int = 0
    free: bool = True
    before: "Block | None" = None  # the neighbours in its segment
    after: "Block | None" = None


class CachingAllocator:
    """Bytes of one device: `total` of it, of which `taken` are not PyTorch's (contexts, other processes)."""

    def __init__(self, index: int = 0, *, total: int, taken: int = 0) -> None:
        self.index, self.total, self.taken = index, total, taken
        self.allowed: int | None = None  # limit of `reserved`: set_per_process_memory_fraction
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = 0
        self.retries = self.ooms = self.segments = 0
        self._numbers = itertools.count()
        self._kept: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}  # by pool: free, by size

    @property
    def free_on_device(self) -> int:
        """What the driver could still give."""
        return self.total - self.taken - self.reserved

    def allocate(self, size: int) -> Block:
        """A block of at least `size` bytes (above 0); torch.OutOfMemoryError if there is none."""
        rounded = max(ROUNDING, -(-size // ROUNDING) * ROUNDING)
        block = self._kept_block(rounded) or self._new_segment(rounded, size)
        least_left = ROUNDING if block.small else SMALL + 1
        if block.size - rounded >= least_left:
            rest = Block(block.size - rounded, block.small, next(self._numbers), before=block, after=block.after)
            if block.after is not None:
                block.after.before = rest
            block.size, block.after = rounded, rest
            self._keep(rest)
        block.free, block.requested = False, size
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def release(self, block: Block) -> None:
        """Frees a block: its bytes are cached for the next one."""
        self.allocated -= block.size
        before, after = block.before, block.after
        if after is not None and after.free:
            self._forget(after)
            block.size, block.after = block.size + after.size, after.after
            if block.after is not None:
                block.after.before = block
        if before is not None and before.free:
            self._forget(before)
            before.size, before.after = before.size + block.size, block.after
            if before.after is not None:
                before.after.before = before
            block = before
        self._keep(block)

    def empty_cache(self) -> None:
        """Releases each empty segment."""
        for pool in self._kept.values():
            whole = [block for _, _, block in pool if block.before is None and block.after is None]
            for block in whole:
                self._forget(block)
                self.reserved -= block.size
                self.segments -= 1

    def reset_peaks(self) -> None:
        """Resets both marks to the current level."""
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def stats(self) -> dict[str, Any]:
        """Some of `torch.cuda.memory_stats`."""
        return {
            "allocated_bytes.all.current": self.allocated,
            "allocated_bytes.all.peak": self.peak_allocated,
            "reserved_bytes.all.current": self.reserved,
            "reserved_bytes.all.peak": self.peak_reserved,
            "segment.all.current": self.segments,
            "num_alloc_retries": self.retries,
            "num_ooms": self.ooms,
        }

    def _keep(self, block: Block) -> None:
        block.free = True
        bisect.insort(self._kept[block.small], (block.size, block.number, block))

    def _forget(self, block: Block) -> None:
        pool = self._kept[block.small]
        del pool[bisect.bisect_left(pool, (block.size, block.number))]

    def _kept_block(self, size: int) -> Block | None:
        pool = self._kept[size <= SMALL]
        place = bisect.bisect_left(pool, (size, -1))
        return pool.pop(place)[2] if place < len(pool) else None

    def _new_segment(self, rounded: int, asked: int) -> Block:
        if rounded <= SMALL:
            segment = SMALL_SEGMENT
        elif rounded < ITS_OWN_SEGMENT:
            segment = LARGE_SEGMENT
        else:
            segment = -(-rounded // SEGMENT_ROUNDING) * SEGMENT_ROUNDING
        if not self._may_take(segment):
            self.empty_cache()
            self.retries += 1
            if not self._may_take(segment):
                self.ooms += 1
                raise torch.OutOfMemoryError(self._why(segment))
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self.segments += 1
        return Block(segment, rounded <= SMALL, next(self._numbers))

    def _may_take(self, segment: int) -> bool:
        within = self.allowed is None or self.reserved + segment <= self.allowed
        return within and segment <= self.free_on_device

    def _why(self, segment: int) -> str:
        allowed = "" if self.allowed is None else f"{shown(self.allowed)} allowed; "
        return (
            f"CUDA out of memory. Tried to allocate {shown(segment)}. GPU {self.index} has a total capacity of "
            f"{shown(self.total)} of which {shown(self.free_on_device)} is free. {allowed}Of the allocated memory "
            f"{shown(self.allocated)} is allocated by PyTorch, and {shown(self.reserved - self.allocated)} is reserved "
            "by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
            "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
        )


def shown(size: int) -> str:
    """Like c10::CachingAllocator::format_size."""
    if size <= 1024:
        return f"{size} bytes"
    if size <= MIB:
        return f"{size / 1024:.2f} KiB"
    return f"{size / MIB:.2f} MiB" if size <= 2**30 else f"{size / 2**30:.2f} GiB"

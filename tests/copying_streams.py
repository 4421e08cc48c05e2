"""Streams of a simulated GPU: queued work happens when the stream is run, or waited for.

`SimulatedCuda` replaces `torch.cuda`. Sending a `Host` tensor queues a copy on the current stream, and until that has
run the result is -1.
"""

import contextlib
import weakref

import torch


class Event:
    def __init__(self, stream):
        self.stream, self.happened = stream, False

    def query(self):
        return self.happened

    def synchronize(self):
        """The host waits: the stream does all work queued before the event."""
        self.stream.cuda.host_waits += not self.happened
        self.stream.run(until=self)


class Stream:
    def __init__(self, cuda):
        self.cuda, self.queue = cuda, []

    def give(self, work):
        self.queue.append(work)

    def record_event(self):
        event = Event(self)
        self.give(event)
        return event

    def wait_event(self, event):
        self.give(lambda: event.stream.run(until=event))

    def run(self, until=None):
        while self.queue and not (until is not None and until.happened):
            work = self.queue.pop(0)
            if isinstance(work, Event):
                work.happened = True
            else:
                work()


class SimulatedCuda:
    def __init__(self):
        self.computing, self.copying, self.host_waits = Stream(self), None, 0
        self._current = self.computing
        self.pinned = set()  # addresses of page-locked blocks

    def Stream(self, device):  # noqa: N802 - as torch.cuda has it
        assert device.index is not None
        assert self.copying is None  # one is enough
        self.copying = Stream(self)
        return self.copying

    def current_stream(self, device):
        assert device.index is not None
        return self._current

    @contextlib.contextmanager
    def stream(self, one):
        before, self._current = self._current, one
        try:
            yield
        finally:
            self._current = before

    def host(self, tensor):
        """The tensor as a `Host` tensor."""
        found = tensor.as_subclass(Host)
        Host.cuda = self
        return found


class Host(torch.Tensor):
    cuda: SimulatedCuda

    def is_pinned(self):
        return self.untyped_storage().data_ptr() in self.cuda.pinned

    def pin_memory(self):
        pinned = self.clone()
        self.cuda.pinned.add(pinned.untyped_storage().data_ptr())
        return pinned

    def to(self, device, *, non_blocking):
        assert device.type == "cuda"
        assert non_blocking
        assert self.is_pinned()  # or the host would wait
        plain = torch.full(self.shape, -1, dtype=self.dtype)
        there, source = plain.as_subclass(There), weakref.ref(self)

        def copy():
            assert source() is not None, "its memory was given back before it was copied"
            plain.copy_(source().as_subclass(torch.Tensor))

        there.allocated_on, there.used_on = self.cuda._current, []
        self.cuda._current.give(copy)
        return there


class There(torch.Tensor):
    """What was sent."""

    def record_stream(self, stream):
        self.used_on.append(stream)

"""Recognises errors after which this process cannot use the device any more."""

import re

# The driver's messages. Every later call fails with the same message.
BROKEN = re.compile(
    r"(?:cuda|hip)(?: driver)? error: (?:"
    r"device-side assert triggered|an illegal memory access was encountered|unspecified launch failure|"
    r"an illegal instruction was encountered|misaligned address|invalid program counter|hardware stack error|"
    r"operation not supported on global/shared address space|uncorrectable ecc error encountered|"
    r"the launch timed out and was terminated|context is destroyed)",
    re.IGNORECASE,
)


def is_broken_context(error: BaseException) -> bool:
    """Whether `error` leaves the device's context unusable, so that every later call fails."""
    return isinstance(error, RuntimeError) and BROKEN.search(str(error)) is not None


def advice(error: BaseException) -> str:
    """What to type to find its origin, to be appended to the error's message; empty for other errors.

    The device reports such an error at a later call, so the line that raised it is rarely the cause.
    """
    if not is_broken_context(error):
        return ""
    if "device-side assert" in str(error):
        return (
            "; most likely a label or an index is out of range for the model's classes or vocabulary: run the same "
            "command with device=cpu, or with CUDA_LAUNCH_BLOCKING=1 before it, to see the line"
        )
    return "; run the same command with CUDA_LAUNCH_BLOCKING=1 before it, or with device=cpu, to see which operation"

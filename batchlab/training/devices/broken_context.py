"""Errors after which nothing works on the device any more in this process."""

import re

# What the driver says of them. Every later call fails with the same words.
BROKEN = re.compile(
    r"(?:cuda|hip)(?: driver)? error: (?:"
    r"device-side assert triggered|an illegal memory access was encountered|unspecified launch failure|"
    r"an illegal instruction was encountered|misaligned address|invalid program counter|hardware stack error|"
    r"operation not supported on global/shared address space|uncorrectable ecc error encountered|"
    r"the launch timed out and was terminated|context is destroyed)",
    re.IGNORECASE,
)


def is_broken_context(error: BaseException) -> bool:
    """Whether `error` leaves the device's context unusable: whatever is tried next fails, whoever tries it."""
    return isinstance(error, RuntimeError) and BROKEN.search(str(error)) is not None


def advice(error: BaseException) -> str:
    """What to type to see where it came from, to be put behind the error's own words; empty for other errors.

    The device reports such an error at a later call, so the line that raised it is seldom the one at fault.
    """
    if not is_broken_context(error):
        return ""
    if "device-side assert" in str(error):
        return (
            "; most likely a label or an index is out of range for the model's classes or vocabulary: the same command "
            "with device=cpu names the line, or with CUDA_LAUNCH_BLOCKING=1 before it"
        )
    return "; the same command with CUDA_LAUNCH_BLOCKING=1 before it, or with device=cpu, shows which operation it was"

"""The configuration of one run: frozen, and checked when it is made."""

from dataclasses import dataclass, field

from batchlab.config.option_row import micro_batches
from batchlab.config.options import RunOptions
from batchlab.config.values import Group


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunOptions):
    """One run, completely described; equal configs make equal runs (on the CPU bit for bit)."""

    # Not an option: `config.border` finds them, `recording.masking` reads them.
    hidden: tuple[str, ...] = field(default=())  # dotted keys whose value came from an environment variable

    @property
    def study_name(self) -> str:
        """`study`, or `<data>-<model>`, so that the same command finds its runs again and tasks do not mix."""
        return self.study or f"{_short_name(self.data['_target_'])}-{_short_name(self.model['_target_'])}"

    @property
    def micro_batch_sizes(self) -> tuple[int, ...]:
        """Examples of each forward/backward pass of a step; the last may be smaller; sums to `batch_size`."""
        full, ragged = divmod(self.batch_size, self.largest_micro_batch)
        return (self.largest_micro_batch,) * full + ((ragged,) if ragged else ())

    @property
    def largest_micro_batch(self) -> int:
        """Examples of the first forward/backward pass of a step; no later one has more."""
        return micro_batches(self.batch_size, self.accumulate, self.micro_batch_size)[0]


def target_name(group: Group) -> str:
    """`mlp` for `batchlab.models.mlp.MLP`, `Net` for a user's `my_net.Net`."""
    parts = str(group["_target_"]).split(".")
    return parts[-2] if parts[0] == "batchlab" and len(parts) > 2 else parts[-1]


def _short_name(target: str) -> str:
    """`mlp` for a model of batchlab, `my_net.Net` for a user's: many classes are called Net."""
    return target.split(".")[-2] if target.startswith("batchlab.") else ".".join(target.split(".")[-2:])

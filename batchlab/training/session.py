"""A run that is ready to start, as `assembly` builds it from a configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchlab.config import RunConfig
from batchlab.config.plan import Plan
from batchlab.records import Measurement
from batchlab.training import loop
from batchlab.training.data.batches import Batches
from batchlab.training.state import Plug, RunState
from batchlab.training.updates.update import Update


@dataclass(frozen=True, kw_only=True)
class Session:
    """All parts of a run, also in probes, benchmarks and tests. Only `state` changes during training."""

    config: RunConfig
    data_fingerprint: str | None
    plan: Plan
    peak_learning_rate: float  # after the scaling rule, before warm-up and schedule
    learning_rate: Callable[[int], float]  # of the step that starts after this many examples
    state: RunState  # device, task, data, model, optimizer; what a checkpoint restores
    update: Update
    notes: Sequence[str] = ()  # what the user should know about these parts, a sentence each
    instruments: Mapping[str, Plug]  # by their keys in the config

    def batches(self) -> Batches:
        """The remaining steps, from where `state` is."""
        return Batches(
            self.state.train,
            micro_batch_sizes=self.config.micro_batch_sizes,
            seed=self.config.seed,
            total=self.plan.examples,
            position=self.state.examples,
            augment=self.state.task.augment,
            order=self.state.order,
            device=self.state.device,
            ahead=self.state.epoch_hook is None,
        )

    def train(
        self,
        *more: Plug,
        stopping: Callable[[], bool] = lambda: False,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[Measurement]:
        """The training loop over `batches` (`loop.train`); `more` measure after the session's own instruments."""
        return loop.train(
            self.state,
            self.batches(),
            self.update,
            [*self.instruments.values(), *more],
            learning_rate=self.learning_rate,
            stopping=stopping,
            enough=enough,
        )

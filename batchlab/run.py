"""One run, config -> record: the only place where all the parts meet."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from batchlab.config import RunConfig, to_dict
from batchlab.errors import BadRequest, Diverged
from batchlab.instruments.panel import build_instruments
from batchlab.plan import Plan, plan, rate_at
from batchlab.recording.environment import environment
from batchlab.recording.events import RunEvents, remove_events
from batchlab.recording.files import now_utc
from batchlab.recording.journal import Journal
from batchlab.recording.knobs import knobs
from batchlab.recording.ledger import Ledger
from batchlab.recording.masking import masked, masked_overrides
from batchlab.recording.run_folder import METRICS, hold, read_record, write_config, write_record
from batchlab.records import Measurement, RunRecord, RunStatus
from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.batches import Batches, length
from batchlab.training.device import meter_of
from batchlab.training.loop import train
from batchlab.training.out_of_memory import is_out_of_memory
from batchlab.training.precision import Precision
from batchlab.training.residence import resident
from batchlab.training.state import RunState
from batchlab.training.step import Step


@dataclass(frozen=True)
class Identity:
    """Which run this is: its id, its study, and how it was asked for."""

    run_id: str
    study: str
    group: str  # the id shared by the runs that differ in the seed alone
    overrides: tuple[str, ...] = ()


class Listener:
    """Who wants to hear of a run while it lives; this one does not."""

    def planned(self, examples: int) -> None:
        """Once, when it is known how many examples the run will train on."""

    def take(self, measurement: Measurement) -> None:
        """Every measurement, after it was kept."""


def run(
    config: RunConfig,
    folder: Path,
    identity: Identity,
    *,
    listener: Listener | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> RunRecord:
    """Trains one point in this process and leaves its folder complete, however it ends.

    A point that does not fit or diverges is a result, and so is an error of the user's code: all are recorded, with
    the traceback of an error on stderr. `stopping` is asked between steps. Raises BadRequest only where another
    process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder), contextlib.ExitStack() as closing:
        began = time.perf_counter()
        point = _Point(config, folder, identity, closing)
        status, reason = RunStatus.COMPLETED, ""
        try:
            point.train(listener or Listener(), stopping)
            if point.interrupted:
                status, reason = RunStatus.INTERRUPTED, f"stopped by a signal after step {point.record.steps}"
        except Diverged as error:
            status, reason = RunStatus.DIVERGED, str(error)
        except (Exception, SystemExit) as error:
            status, reason = how_it_failed(error)
            traceback.print_exc()
        point.keep(status=status, reason=reason, wall_seconds=time.perf_counter() - began, ended_at=now_utc())
        return point.record


def how_it_failed(error: BaseException) -> tuple[RunStatus, str]:
    """The status an error means, and the reason in one line."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return RunStatus.OOM, first_line
    if isinstance(error, SystemExit):
        return RunStatus.FAILED, f"the model or data code called sys.exit({error.code})"
    return RunStatus.FAILED, first_line if isinstance(error, BadRequest) else f"{type(error).__name__}: {first_line}"


class _Point:
    """A run's folder while it is written: the record as it grows, and what has to be closed at the end."""

    def __init__(self, config: RunConfig, folder: Path, identity: Identity, closing: contextlib.ExitStack) -> None:
        self.config = config
        self.folder = folder
        self.identity = identity
        self.closing = closing
        self.interrupted = False
        before = read_record(folder)
        self.record = RunRecord(
            run_id=identity.run_id,
            study=identity.study,
            status=RunStatus.RUNNING,
            config=masked(to_dict(config)),
            seed=config.seed,
            batch_size=config.batch_size,
            overrides=tuple(masked_overrides(identity.overrides)),
            environment=environment({"device": config.device}),
            micro_batch_sizes=config.micro_batch_sizes,
            accumulate=len(config.micro_batch_sizes),
            attempts=(before.attempts if before else 0) + 1,
            started_at=now_utc(),
        )
        write_config(folder, to_dict(config))
        self.keep()

    def keep(self, **changes: Any) -> None:
        """Moves the record with `changes` into place."""
        self.record = replace(self.record, **changes)
        write_record(self.folder, self.record)

    def train(self, listener: Listener, stopping: Callable[[], bool]) -> None:
        """Builds the parts, runs the loop to its end, and keeps what it came to."""
        config = self.config
        device = assembly.prepare_process(config)
        task = assembly.build_task(config, device)
        train_set, val_set = resident(task.train, device, name="train"), resident(task.val, device, name="val")
        planned = plan(config, length(train_set))
        model = assembly.build_model(config, task, device)
        optimizer = assembly.build_optimizer(config, model)
        precision = Precision(config.precision, device)
        peak_rate = assembly.peak_rate(config)
        instruments = build_instruments(config, planned)
        state = RunState(
            model=model,
            optimizer=optimizer,
            task=task,
            train=train_set,
            val=val_set,
            device=device,
            precision=precision,
            meter=meter_of(device),
            budget=planned.examples,
        )
        self.keep(
            n_train=length(train_set),
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            data_fingerprint=assembly.data_fingerprint(train_set, val_set),
            code_fingerprint=assembly.code_fingerprint(config),
            environment=environment(_device_facts(device)),
            lr_scaled=peak_rate,
            remainder=planned.remainder,
        )
        ledger = self._open_ledger(task, planned, listener)
        listener.planned(planned.examples)

        def ending() -> bool:
            self.interrupted = stopping()
            return self.interrupted or (config.stop_at_target and ledger.target_reached)

        model.train()
        try:
            for measurement in train(
                state,
                Batches(
                    train_set, micro_batch_sizes=config.micro_batch_sizes, seed=config.seed, total=planned.examples
                ),
                Step(model, optimizer, task, precision, config.clip_norm),
                instruments,
                learning_rate=lambda examples: rate_at(config, planned, peak_rate, examples),
                stopping=ending,
            ):
                ledger.take(measurement)
        finally:
            self.record = replace(
                self.record,
                steps=state.step,
                steps_skipped=int(ledger.final.get("train/steps_skipped", 0)),
                examples=state.examples,
                epochs=state.examples / length(train_set),
                train_seconds=state.meter.seconds,
                final=dict(ledger.final),
                best=dict(ledger.best),
                target=ledger.target_record(),
            )

    def _open_ledger(self, task: Task, planned: Plan, listener: Listener) -> Ledger:
        """The sinks of the run's measurements, begun anew: an unfinished run starts from its first step."""
        config = self.config
        remove_events(self.folder)
        journal = self.closing.enter_context(Journal(self.folder / METRICS, restart=True))
        events = RunEvents(
            self.folder,
            run_id=self.identity.run_id,
            group=self.identity.group,
            hparams=knobs(self.record),
            started=time.time(),
            budget=planned.examples,
        )
        self.closing.callback(lambda: events.close(self.record.status))
        return Ledger(
            journal.append,
            events.add,
            listener.take,
            higher_is_better=task.higher_is_better,
            target=config.target,
            resolution=max(planned.eval_every, config.batch_size),
        )


def _device_facts(device: torch.device) -> Mapping[str, Any]:
    facts: dict[str, Any] = {
        "device": str(device),
        "torch_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device_name": properties.name,
            "device_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return facts

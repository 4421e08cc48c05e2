"""One run, config -> record: the only place where all the parts meet."""

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchlab.config import RunConfig, SweepConfig, to_dict
from batchlab.config.plan import plan, rate_at
from batchlab.errors import BadRequest, Diverged, StorageError
from batchlab.instruments.instrument import Instrument
from batchlab.instruments.panel import build_instruments, declared
from batchlab.recording import disk
from batchlab.recording.checkpoint_files import remove_checkpoints, set_aside, usable_checkpoints, write_checkpoint
from batchlab.recording.code_files import code_files, code_fingerprint, code_targets
from batchlab.recording.environment import environment
from batchlab.recording.events import RunEvents
from batchlab.recording.files import now_utc
from batchlab.recording.journal import Journal, NotItsJournal, read_journal
from batchlab.recording.ledger import Ledger
from batchlab.recording.masking import concealed, masked, masked_overrides
from batchlab.recording.run_folder import METRICS, hold, read_record, set_damaged_aside, write_config, write_record
from batchlab.records import Measurement, RunIdentity, RunRecord, RunStatus
from batchlab.training import assembly, checkpoint
from batchlab.training.batches import Batches, length
from batchlab.training.checkpoint import Checkpointer
from batchlab.training.ending import how_it_ended
from batchlab.training.first_error import finally_do
from batchlab.training.loop import train
from batchlab.training.phase import BUILDING, CHECKPOINT, DATA, Phase
from batchlab.training.state import RunState
from batchlab.training.step import Step


class Listener:
    """Who wants to hear of a run while it lives; this one does not."""

    def planned(self, examples: int) -> None:
        """Once, when it is known how many examples the run will train on."""

    def take(self, measurement: Measurement) -> None:
        """Every measurement, after it was kept."""

    def say(self, text: str) -> None:
        """What a person should know: where it goes on from, and what could not be used."""

    def note(self, text: str) -> None:
        """What the run could not do as it was asked to; its record has it as well."""


def run(
    config: RunConfig,
    folder: Path,
    identity: RunIdentity,
    *,
    sweep: SweepConfig | None = None,
    listener: Listener | None = None,
    stopping: Callable[[], bool] = lambda: False,
    shared: Callable[[], bool] = lambda: False,
) -> RunRecord:
    """Trains one point in this process, from its newest checkpoint, and leaves its folder complete, however it ends.

    A point that does not fit or diverges is a result, and so is an error of the user's code: all are recorded, with
    the traceback of an error on stderr. With `force` of its `sweep` it starts from its first step. `stopping` is asked
    between steps, `shared` at the end: whether another point used the machine meanwhile. Raises RunIsHeld where another
    process holds the folder, and StorageError where the disk does not take it: then the run is as it was last recorded.
    """
    with hold(folder), contextlib.ExitStack() as closing:
        listener = listener or Listener()
        if (damaged := set_damaged_aside(folder)) is not None:
            listener.say(damaged)
        before = read_record(folder)
        if before is not None and before.status.is_answer and before.ended_at != identity.answered_at:
            return before  # another sweep has answered it meanwhile
        began = time.perf_counter()
        point = _Point(config, sweep, folder, identity, before, closing)
        status, reason = RunStatus.COMPLETED, ""
        try:
            point.train(listener, stopping)
            if point.interrupted:
                status, reason = RunStatus.INTERRUPTED, f"stopped by a signal after step {point.record.steps:,}"
        except StorageError:
            raise
        except Diverged as error:
            status, reason = RunStatus.DIVERGED, str(error)
        except (Exception, SystemExit) as error:
            status, reason = how_it_ended(error, point.phase.name)
            reason = concealed(reason, to_dict(config))  # the user's code may quote what it was given
            point.record = replace(point.record, phase=point.phase.name)
            with contextlib.suppress(OSError):  # the log may lie on a full disk
                sys.stderr.write(concealed(traceback.format_exc(), to_dict(config)))
        spent = point.record.wall_seconds + time.perf_counter() - began
        together = point.record.shared_machine or shared()
        point.end(status=status, reason=reason, wall_seconds=spent, shared_machine=together, ended_at=now_utc())
        if status.is_answer:
            remove_checkpoints(folder)
        return point.record


class _Point:
    """A run's folder while it is written: the record as it grows, and what has to be closed at the end."""

    def __init__(
        self,
        config: RunConfig,
        sweep: SweepConfig | None,
        folder: Path,
        identity: RunIdentity,
        before: RunRecord | None,
        closing: contextlib.ExitStack,
    ) -> None:
        self.config, self.folder, self.identity, self.closing = config, folder, identity, closing
        self.interrupted, self.phase = False, Phase()
        self.journal: Journal | None = None
        self.afresh = sweep is not None and sweep.force
        disk.sweep(folder)
        if self.afresh or (before is not None and before.status.is_answer):
            remove_checkpoints(folder)
            before = None if before is None else replace(before, resumed_at=(), wall_seconds=0.0, shared_machine=False)
        self.record = RunRecord(
            run_id=identity.run_id,
            study=identity.study,
            status=RunStatus.RUNNING,
            config=masked(to_dict(config, sweep)),
            seed=config.seed,
            batch_size=config.batch_size,
            overrides=tuple(masked_overrides(identity.overrides)),
            environment=environment({"device": config.device}),
            micro_batch_sizes=config.micro_batch_sizes,
            accumulate=len(config.micro_batch_sizes),
            attempts=(before.attempts if before else 0) + 1,
            resumed_at=before.resumed_at if before else (),
            notes=before.notes if before else (),
            shared_machine=before.shared_machine if before else False,
            wall_seconds=before.wall_seconds if before else 0.0,
            started_at=(before.started_at if before else "") or now_utc(),
        )
        write_config(folder, to_dict(config, sweep))
        self.keep()

    def keep(self, **changes: Any) -> None:
        """Moves the record with `changes` into place."""
        self.record = replace(self.record, **changes)
        write_record(self.folder, self.record)

    def end(self, **changes: Any) -> None:
        """`keep`, with the journal on the disk before it: a loss of power could leave half of it."""
        if self.journal is not None:
            self.journal.flush()
        self.keep(**changes)

    def train(self, listener: Listener, stopping: Callable[[], bool]) -> None:
        """Builds the parts, runs the loop to its end, and keeps what it came to."""
        config = self.config
        device = assembly.prepare_process(config)
        self.phase.name = DATA
        data, fingerprint = assembly.build_known_data(config, device)
        task, train_set, _ = data
        self.phase.name = BUILDING
        planned = plan(config, length(train_set))
        state = assembly.build_state(config, data, device, budget=planned.examples)
        state.phase, state.note = self.phase, lambda text: self._note(text, listener)
        peak_rate = assembly.peak_rate(config)
        instruments = dict(zip(config.instruments, build_instruments(config, planned, task), strict=True))
        self.journal = journal = self.closing.enter_context(Journal(self.folder / METRICS))
        if (why := state.precision.waiting(state.optimizer)) is not None:
            listener.say(why)
        self._resume(state, instruments, journal, listener)
        code = code_files(code_targets(to_dict(config)))
        self.keep(
            n_train=length(train_set),
            parameters=sum(p.numel() for p in state.model.parameters() if p.requires_grad),
            data_fingerprint=fingerprint,
            code_fingerprint=code_fingerprint(code),
            environment=environment(assembly.device_facts(device)) | {"code": code},
            quantities=declared(instruments.values(), task),
            lr_scaled=peak_rate,
            remainder=planned.remainder,
        )
        resolution = max(planned.eval_every, config.batch_size)
        ledger = Ledger(declared=self.record.quantities, target=config.target, resolution=resolution)
        events = RunEvents.of(self.record, self.folder, group=self.identity.group, budget=planned.examples)
        self.closing.callback(lambda: events.close(self.record.status))
        for measurement in read_journal(self.folder / METRICS):  # of before the checkpoint
            ledger.take(measurement)
            events.add(measurement)
        listener.planned(planned.examples)

        def save() -> None:
            journal.flush()
            name, at, digest = self.identity.run_id, journal.offset, journal.digest
            content = checkpoint.capture(state, instruments, run_id=name, journal_offset=at, journal_digest=digest)
            write_checkpoint(self.folder, state.step, content)

        saving = Checkpointer(
            save,
            examples=config.checkpoint_every,
            seconds=config.checkpoint_seconds,
            look_every=planned.log_every,
            since=state.examples,
        )

        def interrupted() -> bool:
            self.interrupted = stopping()
            return self.interrupted

        def keep_numbers() -> None:
            self.record = replace(
                self.record,
                steps=state.step,
                examples=state.examples,
                epochs=state.examples / length(train_set),
                train_seconds=state.meter.seconds,
                eval_batch_size_used=state.eval_at_most or config.eval_batch_size,
                **ledger.fields(),
            )

        def keep_weights() -> None:  # by itself: a device that failed cannot be asked for them
            self.record = replace(self.record, weights_fingerprint=assembly.weights_fingerprint(state.model))

        with finally_do(keep_weights), finally_do(keep_numbers):
            for measurement in train(
                state,
                Batches(
                    train_set,
                    micro_batch_sizes=config.micro_batch_sizes,
                    seed=config.seed,
                    total=planned.examples,
                    position=state.examples,
                    augment=task.augment,
                    device=device,
                ),
                Step(state.model, state.optimizer, task, state.precision, config.clip_norm, phase=self.phase),
                [*instruments.values(), saving],
                learning_rate=lambda examples: rate_at(config, planned, peak_rate, examples),
                stopping=interrupted,
                enough=lambda: config.stop_at_target and ledger.target_reached,
            ):
                journal.append(measurement)
                ledger.take(measurement)
                events.add(measurement)
                listener.take(measurement)
            if self.interrupted and state.step > 0:
                self.phase.name = CHECKPOINT
                save()

    def _note(self, text: str, listener: Listener) -> None:
        """Puts `text` into the record, and tells `listener`."""
        text = concealed(text, to_dict(self.config))
        self.keep(notes=(*self.record.notes, text))
        listener.note(text)

    def _resume(
        self, state: RunState, instruments: Mapping[str, Instrument], journal: Journal, listener: Listener
    ) -> None:
        """Brings `state`, `instruments` and `journal` to the newest checkpoint that can be used, or to the start."""
        said: list[str] = []
        found = None
        for path, content in usable_checkpoints(self.folder, said):
            try:
                candidate = checkpoint.read(content)
                if candidate["run_id"] != self.identity.run_id:
                    raise ValueError("it is of another run")
                journal.truncate(candidate["journal_offset"], candidate["journal_digest"])
            except (ValueError, NotItsJournal) as error:
                set_aside(path, str(error), said)
            else:
                found = candidate
                break
        for text in said:
            listener.say(text)
        if found is None:
            if self.record.attempts > 1 and not self.afresh:
                listener.say("starts again from its first step (there is no checkpoint to go on from)")
            journal.truncate(0)
            self.record = replace(self.record, notes=())
            return
        try:
            checkpoint.restore(found, state, instruments)
        except ValueError as error:
            raise BadRequest(f"its checkpoint of step {found['step']:,} cannot be used: {error}; use --force") from None
        listener.say(f"goes on from its checkpoint at step {state.step:,}")
        self.record = replace(self.record, resumed_at=(*self.record.resumed_at, state.step))

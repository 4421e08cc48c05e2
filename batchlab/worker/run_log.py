"""Writes a run's folder: lock, record, journal, TensorBoard events, checkpoints and notes."""

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchlab.config import RunConfig, SweepConfig, to_dict
from batchlab.errors import BadRequest, Diverged, StorageError
from batchlab.instruments.panel import declared
from batchlab.recording import disk
from batchlab.recording.checkpoint_files import remove_checkpoints, set_aside, usable_checkpoints, write_checkpoint
from batchlab.recording.code_files import code_files, code_fingerprint, code_targets
from batchlab.recording.environment import environment
from batchlab.recording.files import now_utc
from batchlab.recording.journal import Journal, NotItsJournal, read_journal
from batchlab.recording.ledger import Ledger
from batchlab.recording.masking import concealed
from batchlab.recording.new_record import new_record
from batchlab.recording.run_folder import METRICS, hold, read_record, set_damaged_aside, write_config, write_record
from batchlab.records import Measurement, RunIdentity, RunRecord, RunStatus
from batchlab.tensorboard.events import RunEvents
from batchlab.training import checkpoint
from batchlab.training.assembly import device_facts
from batchlab.training.checkpoint import Checkpointer
from batchlab.training.clock.meter import nothing
from batchlab.training.data.batches import length
from batchlab.training.data.fingerprints import weights_fingerprint
from batchlab.training.data.stream import order_in_words
from batchlab.training.devices.precision import dtypes_of
from batchlab.training.first_error import finally_do
from batchlab.training.how_it_ended import how_it_ended
from batchlab.training.phase import CHECKPOINT, Phase
from batchlab.training.session import Session


class Listener:
    """Receives the events of a running run; this base class ignores them."""

    def planned(self, examples: int) -> None:
        """Called once, when the number of examples to train on is known."""

    def take(self, measurement: Measurement) -> None:
        """Called with every measurement, after it was stored."""

    def say(self, text: str) -> None:
        """Called with a message for the user, such as where the run resumes and what could not be used."""

    def note(self, text: str) -> None:
        """Called with what the run could not do as requested, which is also in its record."""


@contextlib.contextmanager
def run_log(
    folder: Path, config: RunConfig, identity: RunIdentity, *, sweep: SweepConfig | None, listener: Listener
) -> Iterator["RunLog"]:
    """The log of the run in `folder`, which no other process can write until this block ends.

    Raises RunIsHeld if another process holds it, and StorageError if the disk cannot be written.
    """
    with hold(folder), contextlib.ExitStack() as closing:
        if (damaged := set_damaged_aside(folder)) is not None:
            listener.say(damaged)
        yield RunLog(folder, config, identity, sweep, listener, closing)


class RunLog:
    """The writer of a run's folder: its record, measurements and checkpoints.

    Inside `until_it_ends`: call `restore` first, then, inside `counting`, `take` for each measurement, with
    `checkpoints` as the last of the instruments. If the run `is_final`, nothing is written: `record` is its result.
    """

    _journal: Journal  # these three are set by `restore`
    _ledger: Ledger
    _events: RunEvents

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        identity: RunIdentity,
        sweep: SweepConfig | None,
        listener: Listener,
        closing: contextlib.ExitStack,
    ) -> None:
        """`closing` closes at its end what the log opens."""
        self._began = time.perf_counter()
        self._folder, self._config, self._identity = folder, config, identity
        self._listener, self._closing = listener, closing
        self._afresh = sweep is not None and sweep.force
        self._interrupted = False
        self._flush: Callable[[], object] = nothing  # writes the measurements to the disk
        before = read_record(folder)
        # Another sweep may have finished it meanwhile.
        self.is_final = before is not None and before.status.is_final and before.ended_at != identity.previous_ended_at
        self.record = before if before is not None and self.is_final else self._begun(sweep, before)

    def _begun(self, sweep: SweepConfig | None, before: RunRecord | None) -> RunRecord:
        disk.sweep(self._folder)
        if self._afresh or (before is not None and before.status.is_final):
            remove_checkpoints(self._folder)
            before = None if before is None else replace(before, resumed_at=(), wall_seconds=0.0, shared_machine=False)
        config = self._config
        record = new_record(
            config,
            self._identity,
            RunStatus.RUNNING,
            environment=environment({"device": config.device}),
            changes_accepted=sweep is not None and sweep.accept_changed,
            attempts=(before.attempts if before else 0) + 1,
            resumed_at=before.resumed_at if before else (),
            notes=before.notes if before else (),
            shared_machine=before.shared_machine if before else False,
            wall_seconds=before.wall_seconds if before else 0.0,
            **({"started_at": before.started_at} if before and before.started_at else {}),
        )
        write_config(self._folder, to_dict(config, sweep))
        write_record(self._folder, record)
        return record

    def _keep(self, **changes: Any) -> None:
        """Writes the record with `changes`."""
        self.record = replace(self.record, **changes)
        write_record(self._folder, self.record)

    def note(self, text: str) -> None:
        """Adds what the run could not do as requested to the record, and informs the listener."""
        text = concealed(text, to_dict(self._config))
        self._keep(notes=(*self.record.notes, text))
        self._listener.note(text)

    @property
    def target_reached(self) -> bool:
        """Whether the target's metric has been at or beyond its value."""
        return self._ledger.target_reached

    def restore(self, session: Session) -> None:
        """Brings the session and the journal to the newest checkpoint that can be used, or to the start.

        The record then describes the run's parts, and measurements before the checkpoint are counted.
        """
        state, plan = session.state, session.plan
        self._journal = self._closing.enter_context(Journal(self._folder / METRICS))
        self._flush = self._journal.flush
        if (why := state.precision.waiting(state.optimizer)) is not None:
            self._listener.say(why)
        self._resume(session)
        in_words = order_in_words(state.train, state.order, self._config.micro_batch_sizes)
        code = code_files(code_targets(to_dict(self._config)))
        self._keep(
            n_train=length(state.train),
            parameters=sum(p.numel() for p in state.trained.parameters() if p.requires_grad),
            data_fingerprint=session.data_fingerprint,
            code_fingerprint=code_fingerprint(code),
            environment=environment(device_facts(state.device))
            | {"code": code, "group_multiples": list(state.group_multiples), "dtypes": dtypes_of(state.trained)}
            | ({} if in_words is None else {"data_order": in_words}),
            quantities=declared(session.instruments.values(), state.task),
            lr_scaled=session.peak_learning_rate,
            reduction=state.task.reduction or "none",
            remainder=plan.remainder,
        )
        resolution = max(plan.eval_every, self._config.batch_size)
        self._ledger = Ledger(declared=self.record.quantities, target=self._config.target, resolution=resolution)
        self._events = RunEvents.of(self.record, self._folder, group=self._identity.group, budget=plan.examples)
        self._closing.callback(lambda: self._events.close(self.record.status))
        for measurement in read_journal(self._folder / METRICS):
            self._ledger.take(measurement)
            self._events.add(measurement)
        self._listener.planned(plan.examples)
        for text in session.notes:
            if text not in self.record.notes:  # of an earlier attempt
                self.note(text)

    def _resume(self, session: Session) -> None:
        found = self._usable_checkpoint()
        if found is None:
            if self.record.attempts > 1 and not self._afresh:
                self._listener.say("starts again from its first step (no usable checkpoint)")
            self._journal.truncate(0)
            self.record = replace(self.record, notes=())
            return
        try:
            checkpoint.restore(found, session.state, session.instruments)
        except ValueError as error:
            raise BadRequest(
                f"its checkpoint of step {found['step']:,} cannot be used: {error}; use force=true"
            ) from None
        self._listener.say(f"resumes from its checkpoint at step {session.state.step:,}")
        self.record = replace(self.record, resumed_at=(*self.record.resumed_at, session.state.step))

    def _usable_checkpoint(self) -> dict[str, Any] | None:
        """The newest valid checkpoint of this run, with the journal cut back to it; invalid ones are set aside."""
        messages: list[str] = []
        found = None
        for path, content in usable_checkpoints(self._folder, messages):
            try:
                candidate = checkpoint.read(content)
                if candidate["run_id"] != self._identity.run_id:
                    raise ValueError("it belongs to another run")
                self._journal.truncate(candidate["journal_offset"], candidate["journal_digest"])
            except (ValueError, NotItsJournal) as error:
                set_aside(path, str(error), messages)
            else:
                found = candidate
                break
        for text in messages:
            self._listener.say(text)
        return found

    def take(self, measurement: Measurement) -> None:
        """Stores a measurement, and informs the listener."""
        self._journal.append(measurement)
        self._ledger.take(measurement)
        self._events.add(measurement)
        self._listener.take(measurement)

    def checkpoints(self, session: Session) -> Checkpointer:
        """The instrument that saves checkpoints as the config requests."""
        return Checkpointer(
            lambda: self._save(session),
            examples=self._config.checkpoint_every,
            seconds=self._config.checkpoint_seconds,
            look_every=session.plan.log_every,
            since=session.state.examples,
        )

    def interrupt(self, session: Session) -> None:
        """Marks the run as interrupted and saves a checkpoint, unless no step was made."""
        self._interrupted = True
        if session.state.step > 0:
            session.state.phase.name = CHECKPOINT
            self._save(session)

    def _save(self, session: Session) -> None:
        journal = self._journal
        journal.flush()
        content = checkpoint.capture(
            session.state,
            session.instruments,
            run_id=self._identity.run_id,
            journal_offset=journal.offset,
            journal_digest=journal.digest,
        )
        write_checkpoint(self._folder, session.state.step, content)

    @contextlib.contextmanager
    def counting(self, session: Session) -> Iterator[None]:
        """Around training: adds to the record how far the run came, whatever ended it."""
        with finally_do(lambda: self._count_weights(session)), finally_do(lambda: self._count(session)):
            yield

    def _count(self, session: Session) -> None:
        state = session.state
        self.record = replace(
            self.record,
            steps=state.step,
            examples=state.examples,
            steps_without_terms=state.steps_without_terms,
            epochs=state.examples / state.epoch,
            train_seconds=state.meter.seconds,
            eval_batch_size_used=state.eval_at_most or self._config.eval_batch_size,
            **self._ledger.fields(),
        )

    def _count_weights(self, session: Session) -> None:  # separate: a failed device cannot be read
        self.record = replace(self.record, weights_fingerprint=weights_fingerprint(session.state.trained))

    @contextlib.contextmanager
    def until_it_ends(self, phase: Phase, shared: Callable[[], bool]) -> Iterator[None]:
        """Around the whole run: records how it ended, with the traceback of an error on stderr.

        `phase` is the current phase, `shared` says whether another point used the machine. Raises StorageError.
        """
        status, reason = RunStatus.COMPLETED, ""
        try:
            yield
            if self._interrupted:
                status, reason = RunStatus.INTERRUPTED, f"stopped by a signal after step {self.record.steps:,}"
        except StorageError:
            raise
        except Diverged as error:
            status, reason = RunStatus.DIVERGED, str(error)
        except (Exception, SystemExit) as error:
            status, reason = how_it_ended(error, phase.name)
            reason = concealed(reason, to_dict(self._config))  # the user's code may quote its arguments
            self.record = replace(self.record, phase=phase.name)
            with contextlib.suppress(OSError):  # the log may be on a full disk
                sys.stderr.write(concealed(traceback.format_exc(), to_dict(self._config)))
        spent = self.record.wall_seconds + time.perf_counter() - self._began
        together = self.record.shared_machine or shared()
        self._flush()  # before the record: a power loss could leave half of the journal
        self._keep(status=status, reason=reason, wall_seconds=spent, shared_machine=together, ended_at=now_utc())
        if status.is_final:
            remove_checkpoints(self._folder)

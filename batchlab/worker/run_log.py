"""What is kept of a run: lock, record, journal, events, checkpoints and notes of its folder, opened in one place."""

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
from batchlab.training.first_error import finally_do
from batchlab.training.how_it_ended import how_it_ended
from batchlab.training.phase import CHECKPOINT, Phase
from batchlab.training.session import Session


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


@contextlib.contextmanager
def run_log(
    folder: Path, config: RunConfig, identity: RunIdentity, *, sweep: SweepConfig | None, listener: Listener
) -> Iterator["RunLog"]:
    """The log of the run in `folder`, which no other process can write until this block ends.

    Raises RunIsHeld where another process holds it, and StorageError where the disk does not take it.
    """
    with hold(folder), contextlib.ExitStack() as closing:
        if (damaged := set_damaged_aside(folder)) is not None:
            listener.say(damaged)
        yield RunLog(folder, config, identity, sweep, listener, closing)


class RunLog:
    """A run's folder while it is written: the record as it grows, what was measured, and where it can be resumed.

    Inside `until_it_ends`: first `restore`, then, inside `counting`, each measurement by `take`, and `checkpoints` as
    the last of the instruments. Of a run that `is_final` nothing is written: `record` is what it came to.
    """

    _journal: Journal  # these are there from `restore` on
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
        """`closing` closes, at its end, what the log opens."""
        self._began = time.perf_counter()
        self._folder, self._config, self._identity = folder, config, identity
        self._listener, self._closing = listener, closing
        self._afresh = sweep is not None and sweep.force
        self._interrupted = False
        self._flush: Callable[[], object] = nothing  # puts on the disk what was measured
        before = read_record(folder)
        # Another sweep may have brought it there meanwhile.
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
        """Moves the record with `changes` into place."""
        self.record = replace(self.record, **changes)
        write_record(self._folder, self.record)

    def note(self, text: str) -> None:
        """Puts into the record what the run could not do as it was requested, and tells the listener."""
        text = concealed(text, to_dict(self._config))
        self._keep(notes=(*self.record.notes, text))
        self._listener.note(text)

    @property
    def target_reached(self) -> bool:
        """Whether the target's metric has been at or beyond its value."""
        return self._ledger.target_reached

    def restore(self, session: Session) -> None:
        """Brings the session and the journal to the newest checkpoint that can be used, or to the start.

        The record then says what the run is made of, and what was measured before the checkpoint is taken into account.
        """
        state, plan = session.state, session.plan
        self._journal = self._closing.enter_context(Journal(self._folder / METRICS))
        self._flush = self._journal.flush
        if (why := state.precision.waiting(state.optimizer)) is not None:
            self._listener.say(why)
        self._resume(session)
        code = code_files(code_targets(to_dict(self._config)))
        self._keep(
            n_train=length(state.train),
            parameters=sum(p.numel() for p in state.model.parameters() if p.requires_grad),
            data_fingerprint=session.data_fingerprint,
            code_fingerprint=code_fingerprint(code),
            environment=environment(device_facts(state.device))
            | {"code": code, "group_multiples": list(state.group_multiples)},
            quantities=declared(session.instruments.values(), state.task),
            lr_scaled=session.peak_learning_rate,
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

    def _resume(self, session: Session) -> None:
        found = self._usable_checkpoint()
        if found is None:
            if self.record.attempts > 1 and not self._afresh:
                self._listener.say("starts again from its first step (there is no checkpoint to go on from)")
            self._journal.truncate(0)
            self.record = replace(self.record, notes=())
            return
        try:
            checkpoint.restore(found, session.state, session.instruments)
        except ValueError as error:
            raise BadRequest(
                f"its checkpoint of step {found['step']:,} cannot be used: {error}; use force=true"
            ) from None
        self._listener.say(f"goes on from its checkpoint at step {session.state.step:,}")
        self.record = replace(self.record, resumed_at=(*self.record.resumed_at, session.state.step))

    def _usable_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint that is this run's, with the journal cut back to it; the others are set aside."""
        said: list[str] = []
        found = None
        for path, content in usable_checkpoints(self._folder, said):
            try:
                candidate = checkpoint.read(content)
                if candidate["run_id"] != self._identity.run_id:
                    raise ValueError("it is of another run")
                self._journal.truncate(candidate["journal_offset"], candidate["journal_digest"])
            except (ValueError, NotItsJournal) as error:
                set_aside(path, str(error), said)
            else:
                found = candidate
                break
        for text in said:
            self._listener.say(text)
        return found

    def take(self, measurement: Measurement) -> None:
        """Keeps a measurement, and tells the listener."""
        self._journal.append(measurement)
        self._ledger.take(measurement)
        self._events.add(measurement)
        self._listener.take(measurement)

    def checkpoints(self, session: Session) -> Checkpointer:
        """What takes a checkpoint wherever the config wants one."""
        return Checkpointer(
            lambda: self._save(session),
            examples=self._config.checkpoint_every,
            seconds=self._config.checkpoint_seconds,
            look_every=session.plan.log_every,
            since=session.state.examples,
        )

    def interrupt(self, session: Session) -> None:
        """The run is to be resumed from where it is; before its first step there is nothing to keep."""
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
        """Around training: the record has afterwards how far it came, whatever ended it."""
        with finally_do(lambda: self._count_weights(session)), finally_do(lambda: self._count(session)):
            yield

    def _count(self, session: Session) -> None:
        state = session.state
        self.record = replace(
            self.record,
            steps=state.step,
            examples=state.examples,
            epochs=state.examples / length(state.train),
            train_seconds=state.meter.seconds,
            eval_batch_size_used=state.eval_at_most or self._config.eval_batch_size,
            **self._ledger.fields(),
        )

    def _count_weights(self, session: Session) -> None:  # by itself: a device that failed cannot be asked for them
        self.record = replace(self.record, weights_fingerprint=weights_fingerprint(session.state.model))

    @contextlib.contextmanager
    def until_it_ends(self, phase: Phase, shared: Callable[[], bool]) -> Iterator[None]:
        """Around all that a run does: records how it ended, with the traceback of an error on stderr.

        `phase` says what it was doing, `shared` whether another point used the machine meanwhile. Raises StorageError.
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
            reason = concealed(reason, to_dict(self._config))  # the user's code may quote what it was given
            self.record = replace(self.record, phase=phase.name)
            with contextlib.suppress(OSError):  # the log may lie on a full disk
                sys.stderr.write(concealed(traceback.format_exc(), to_dict(self._config)))
        spent = self.record.wall_seconds + time.perf_counter() - self._began
        together = self.record.shared_machine or shared()
        self._flush()  # before the record: a loss of power could leave half of it
        self._keep(status=status, reason=reason, wall_seconds=spent, shared_machine=together, ended_at=now_utc())
        if status.is_final:
            remove_checkpoints(self._folder)

"""Requested twice, run once: what is done about a point depends on its record and on what is requested."""

from dataclasses import replace

import pytest

from batchlab.recording.checkpoint_files import write_checkpoint
from batchlab.recording.run_folder import write_record
from batchlab.records import RunStatus
from batchlab.sweep.limits import Limits
from batchlab.sweep.planning import Action, plan_lines, points_without_result

ANSWERS = ("completed", "oom", "diverged")


def left(point, status, *, attempts=1, step=None):
    """The point's folder as a run that ended so left it."""
    point.folder.mkdir(parents=True, exist_ok=True)
    write_record(point.folder, point.new_record(RunStatus(status), "because", attempts=attempts))
    if step is not None:
        write_checkpoint(point.folder, step, b"a checkpoint")
    return point


@pytest.mark.parametrize("status", ANSWERS)
def test_a_final_result_is_kept(lab, status):
    assert lab.plan(left(lab.point(), status)).action is Action.SKIP
    assert lab.plan(left(lab.point("force=true"), status)).action is Action.RUN


@pytest.mark.parametrize("status", ["failed", "timeout"])
def test_what_would_most_likely_end_the_same_is_kept_until_it_is_retried(lab, status):
    assert lab.plan(left(lab.point(), status, step=30)).action is Action.SKIP
    assert lab.plan(lab.point(f"retry=[{status}]")).action is Action.RESUME
    other = "timeout" if status == "failed" else "failed"
    assert lab.plan(lab.point(f"retry=[{other}]")).action is Action.SKIP


@pytest.mark.parametrize("status", ["running", "interrupted", "killed"])
def test_what_is_unfinished_is_resumed(lab, status):
    point = left(lab.point(), status)
    assert (lab.plan(point).action, lab.plan(point).why) == (
        Action.RUN,
        f"again from its first step, was {status}",
    )
    found = lab.plan(left(point, status, step=1200))
    assert (found.action, found.why) == (Action.RESUME, f"from step 1,200, was {status}")
    assert found.previous_ended_at is None


def test_a_final_result_that_is_measured_again_is_named_so_that_a_newer_one_is_seen(lab):
    found = lab.plan(left(lab.point("retry=[oom]"), "oom"))
    assert found.action is Action.RUN
    assert found.previous_ended_at == found.record.ended_at


def test_what_was_not_tried_is_tried_where_larger_ones_are_wanted_or_it_is_retried(lab):
    point = left(lab.point(), "oom", attempts=0)
    assert lab.plan(point).action is Action.SKIP
    assert lab.plan(lab.point("retry=[oom]")).action is Action.RUN  # unless, tried again, the other does not fit
    assert lab.plan(lab.point("skip_larger=false")).action is Action.RUN


def test_the_plan_names_every_point_and_counts_them(lab):
    points = [lab.point(f"batch_size={size}") for size in (8, 32, 64)]
    left(points[0], "completed")
    left(points[1], "killed", step=7)
    assert list(plan_lines([lab.plan(point) for point in points])) == [
        "skip   batch_size=8  (completed)",
        "resume batch_size=32  (from step 7, was killed)",
        "run    batch_size=64  (new)",
        "3 points, 1 to run, 1 to resume, 1 to skip",
    ]


def test_points_without_a_final_result_that_are_left_alone_are_reported(lab):
    points = [lab.point(f"batch_size={size}") for size in (8, 32, 64)]
    left(points[0], "completed")
    assert points_without_result([lab.plan(point) for point in points]) is None
    left(points[1], "failed")
    left(points[2], "timeout")
    reported = points_without_result([lab.plan(point) for point in points])
    assert reported == "skipping 2 points without a final result (failed,timeout): --retry failed,timeout runs them"


# what did not fit


def tried(point, status="oom", attempts=1):
    return point, point.new_record(RunStatus(status), "", attempts=attempts)


def test_larger_micro_batches_of_the_same_configuration_are_not_tried(lab):
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=128")))
    assert limits.too_large(lab.point("batch_size=64")) is None
    for size in (128, 256):
        record = limits.too_large(lab.point(f"batch_size={size}", "seed=1"))
        assert (record.status, record.attempts) == (RunStatus.OOM, 0)
        assert record.reason == "not run: batch_size=128 seed=0 did not fit"
    assert limits.too_large(lab.point("batch_size=256", "accumulate=4")) is None  # the micro-batch counts
    assert limits.too_large(lab.point("batch_size=256", "accumulate=2")) is not None
    assert limits.too_large(lab.point("batch_size=256", "model=cnn")) is None
    assert limits.too_large(lab.point("batch_size=256", "precision=bf16")) is None
    everything = Limits(skip_larger=False)
    everything.learn(*tried(lab.point("batch_size=128")))
    assert everything.too_large(lab.point("batch_size=256")) is None


def test_what_did_not_fit_next_to_another_run_is_no_limit(lab):
    """The other one took some of the memory."""
    point, record = tried(lab.point("batch_size=128"))
    limits = Limits()
    limits.learn(point, replace(record, shared_machine=True))

    assert limits.too_large(lab.point("batch_size=256")) is None


@pytest.mark.parametrize(
    "changes",
    ["lr=0.2", "seed=3", "schedule=cosine", "steps=5", "weight_decay=0.2", "clip_norm=2.0", "target.value=1.0"],
)
def test_what_did_not_fit_is_not_tried_again_with_what_moves_no_memory(lab, changes):
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=128", "lr=0.1", "weight_decay=0.1", "clip_norm=1.0")))
    assert limits.too_large(lab.point("batch_size=256", "weight_decay=0.1", "clip_norm=1.0", changes)) is not None


@pytest.mark.parametrize(
    "changes",
    ["optimizer=adamw", "optimizer.momentum=0", "deterministic=true", "clip_norm=1.0", "weight_decay=0.1", "threads=2"],
)
def test_what_did_not_fit_is_tried_again_with_what_moves_memory(lab, changes):
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=128", "lr=0.1")))
    assert limits.too_large(lab.point("batch_size=256", changes)) is None


def test_a_grid_of_four_learning_rates_pays_for_one_that_does_not_fit(lab):
    grid = [lab.point(f"batch_size={size}", f"lr={lr}") for size in (128, 256) for lr in (0.1, 0.2, 0.4, 0.8)]
    limits = Limits()
    limits.learn(*tried(grid[0]))
    assert [limits.too_large(point) is not None for point in grid] == [False] + [True] * 7


def test_a_point_is_not_skipped_for_what_became_of_itself(lab):
    """It is the one that is retried."""
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=128")))
    assert limits.too_large(lab.point("batch_size=128", "retry=[oom]")) is None


def test_what_did_not_fit_in_micro_batches_is_named_by_them_too(lab):
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=256", "accumulate=2")))
    reason = "not run: batch_size=256 accumulate=2 did not fit"
    assert limits.too_large(lab.point("batch_size=512", "accumulate=4")).reason == reason
    assert limits.too_large(lab.point("batch_size=128")) is None  # of which no gradients are held meanwhile


@pytest.mark.parametrize(("status", "attempts"), [("completed", 1), ("failed", 1), ("oom", 0)])
def test_only_what_was_tried_and_did_not_fit_is_a_limit(lab, status, attempts):
    limits = Limits()
    limits.learn(*tried(lab.point("batch_size=128"), status, attempts))
    assert limits.too_large(lab.point("batch_size=256")) is None


def test_the_smallest_that_did_not_fit_is_the_limit(lab):
    limits = Limits()
    for size in (256, 64, 128):
        limits.learn(*tried(lab.point(f"batch_size={size}")))
    assert limits.too_large(lab.point("batch_size=100")).reason == "not run: batch_size=64 did not fit"


def test_a_point_has_one_name_however_often_it_is_named(lab):
    point = lab.point("batch_size=8")
    assert point.run_id is point.run_id
    assert replace(point, overrides=("x=1",)).run_id == point.run_id

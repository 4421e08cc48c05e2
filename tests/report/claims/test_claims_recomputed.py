"""The effects of a real study, recomputed from `metrics.jsonl` and `record.json` with pandas alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep_runs import Lab

from batchlab.report.claims import judge_claims
from batchlab.report.tables.study import read_study
from batchlab.science.statistics.verdicts import Verdict

SIZES, SEEDS, N_TRAIN = (8, 32, 96), (0, 1), 384
TINY = ("data.train_size=384", "model.width=16", "default_epochs=4", "eval_every=96", "instruments=generalisation")


def read(study: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measurements and records as they are on disk."""
    parts, records = [], []
    for folder in sorted(study.glob("*/record.json")):
        record = json.loads(folder.read_text())
        lines = pd.read_json(folder.with_name("metrics.jsonl"), lines=True)
        parts.append(lines.assign(B=record["batch_size"], seed=record["seed"]))
        records.append({"B": record["batch_size"], **record})
    return pd.concat(parts), pd.DataFrame(records)


def change(values: pd.Series) -> float:
    """The mean over seeds of the slope on log B over the whole range; `values` by seed and B."""
    slopes = [
        np.polyfit(np.log(of_seed.columns), of_seed.iloc[0], 1)[0] for _, of_seed in values.unstack().groupby("seed")
    ]
    return float(np.mean(slopes) * np.log(SIZES[-1] / SIZES[0]))


def test_what_the_report_says_is_what_the_journals_say(lab: Lab) -> None:
    more = (
        "+instruments.gradient_statistics._target_=batchlab.instruments.gradient.gradient_statistics.GradientStatistics"
    )
    lab.run(*(lab.point(*TINY, more, f"batch_size={b}", f"seed={s}", "study=tiny") for b in SIZES for s in SEEDS))

    folder = lab.runs_dir / "tiny"
    claims = {claim.id: claim for claim in judge_claims(read_study(folder))}
    lines, records = read(folder)

    def taken(name: str) -> pd.DataFrame:
        return lines[lines["name"] == name]

    def ends(name: str) -> pd.Series:
        return taken(name).groupby(["seed", "B"])["value"].last()

    record = records.set_index(["seed", "B"])
    val = taken("val/loss")
    least = records["steps"].min()
    start = taken("gradient/variance").query("step == 0").groupby(["seed", "B"])["value"].first()
    noise = [
        np.polyfit(np.log(1 / of_seed.columns - 1 / N_TRAIN), np.log(of_seed.iloc[0]), 1)[0]
        for _, of_seed in start.unstack().groupby("seed")
    ]
    expected = {
        ("updates", "log updates per epoch"): -change(np.log(record["steps"] / (record["examples"] / N_TRAIN))),
        ("epoch-time", "log training seconds"): -change(np.log(record["train_seconds"] / record["epochs"])),
        ("throughput", "log examples per second"): change(np.log(ends("speed/examples_per_second"))),
        ("generalisation", "log best val/loss, "): change(np.log(val.groupby(["seed", "B"])["value"].min())),
        ("generalisation", "log best val/loss within"): change(
            np.log(val[val["step"] <= least].groupby(["seed", "B"])["value"].min())
        ),
        ("nuance", "log val loss of the hardest"): change(np.log(ends("val/hardest_decile_loss"))),
        ("nuance", "accuracy on the worst"): -change(ends("val/worst_class_accuracy")),
        ("memorisation", "gap"): change(ends("gap/loss") / ends("val/loss").mean()),
        ("memory", "log memory/saved"): change(np.log(ends("memory/saved_for_backward_bytes"))),
        ("gradient-noise", "slope"): float(np.mean(noise)),
    }
    for (claim, what), value in expected.items():
        found = [e for e in claims[claim].evidence if e.what.startswith(what)]
        assert len(found) == 1, (claim, what)
        assert found[0].effect.interval.value == pytest.approx(value, rel=1e-6), (claim, what)
        assert set(found[0].runs) == set(records["run_id"])
        assert found[0].seeds == len(SEEDS)
    assert claims["updates"].verdict is Verdict.SUPPORTED

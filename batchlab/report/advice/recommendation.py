"""Which batch size to use, in one paragraph, and how reliable that is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from batchlab.printable import counted, listed, printable
from batchlab.records import RunStatus, Unknown
from batchlab.report.advice.advice import critical, fit_sentences, got_worse, limits, of_group, other_picks, use
from batchlab.report.advice.picks import Pick, best_loss_of, cheapest_of, fastest_of, quickest_of, shown_runs
from batchlab.report.claims.claim import Claim
from batchlab.report.fits.fits import Fits, GroupFits
from batchlab.report.fits.to_target import ToTarget
from batchlab.report.tables.find_results import Search, searches, settings
from batchlab.report.tables.groups import Way, column, device_models
from batchlab.report.tables.run_again import command_of
from batchlab.report.tables.study import Study
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import Verdict

FEW = 3  # seeds: with fewer an interval is too wide for a choice, or there is none


@dataclass(frozen=True)
class Recommendation:
    """What to do, how reliable that is, and the command to do it; picks that the study does not allow are None."""

    headline: str  # the first sentence of `text`
    text: str
    sure: str
    command: str  # one more run of it, with a seed that the study does not have; empty if nothing is recommended
    but: str = ""  # the main caveats of `sure`: too few seeds, a learning rate at the grid's edge
    batch_size: int | None = None
    lr: float | None = None  # peak learning rate, after scaling
    fastest: Pick | None = None  # seconds of training to the target
    cheapest: Pick | None = None  # examples to the target
    best_loss: Pick | None = None  # best validation loss, at equal examples
    critical: Interval | None = None  # B_crit, examples
    largest_fit: int | None = None  # micro-batch, from `batchlab find`


def recommend(study: Study, fits: Fits, claims: Sequence[Claim]) -> Recommendation:
    """The batch size that is fastest to the target; without a target, the fastest of those with the best loss.

    All of it is about the group with the most batch sizes, and says so if there are others.
    """
    main = fits.main
    if main is None:
        text = "No batch size can be recommended: the study has no runs."
        return Recommendation(text, text, _damaged(study), "")
    shown = shown_runs(study, main)
    if not shown:
        text = _nothing(main)
        return Recommendation(text, text, _sure(study, fits, main, claims), "")
    fastest, cheapest = fastest_of(main), cheapest_of(main)
    loss = best_loss_of(study, main, shown)
    chosen = fastest or cheapest or quickest_of(main, loss)
    if chosen is None:
        text = f"No batch size can be recommended{of_group(main)}: no completed run measured a validation loss."
        return Recommendation(text, text, _sure(study, fits, main, claims), "")
    size = chosen.batch_size
    runs = shown[size]
    lr = float(column(runs, "lr_scaled").fillna(column(runs, "lr")).iloc[0])
    damaged: list[str] = []
    fit = _search(study, runs, searches(study.folder, damaged))
    sentences = [
        use(main, size, lr, fastest, cheapest, loss),
        *got_worse(runs),
        *other_picks(main, size, fastest, cheapest, loss),
        *critical(main),
        *fit_sentences(main, fit),
        limits(main, size, fit),
    ]
    bend = main.to_target.critical if isinstance(main.to_target, ToTarget) else None
    return Recommendation(
        headline=sentences[0],
        text=" ".join(sentences),
        sure=" ".join([_sure(study, fits, main, claims, size), *damaged]),
        command=command_of(study, runs),
        but=" ".join(filter(None, [_few_seeds(main), _at_edge(main, size)])),
        batch_size=size,
        lr=lr,
        fastest=fastest,
        cheapest=cheapest,
        best_loss=loss,
        critical=bend.batch_size if bend else None,
        largest_fit=fit.largest if fit else None,
    )


def _search(study: Study, runs: pd.DataFrame, found: Sequence[Search]) -> Search | None:
    """The last search for runs like these that found a size; otherwise the last of them."""
    options = study.requested.loc[runs.index[0]].to_dict() if runs.index[0] in study.requested.index else {}
    here, model = settings(options), device_models(runs).iloc[0]
    same = [search for search in found if search.settings == here]
    same = [search for search in same if not (model and search.device_model) or search.device_model == model]
    return next((search for search in reversed(same) if search.largest), same[-1] if same else None)


def _sure(study: Study, fits: Fits, main: GroupFits, claims: Sequence[Claim], size: int | None = None) -> str:
    """How reliable it is: what it is based on, and what was not tested."""
    seeds = len(main.seeds)
    sizes = counted(len(main.batch_sizes), "batch size")
    parts = [f"It is based on {counted(seeds, 'seed')} and {sizes}, with the learning rate {printable(main.rate)}."]
    parts.append(_few_seeds(main) or "Brackets are 95% intervals over seeds.")
    if size is not None and (edge := _at_edge(main, size)):
        parts.append(edge)
    elif main.rate.way in (Way.FIXED, Way.SCALED):
        parts.append("The learning rate was not tuned at each size: with tuning, another size may be best.")
    ended = Counter(status for _, status, count in main.ended for _ in range(count))
    if bad := [f"{n} {status}" for status, n in ended.items() if status is not RunStatus.COMPLETED]:
        parts.append(f"Of its {len(main.runs)} runs, {listed(bad)}.")
    if others := len(fits.groups) - 1:
        parts.append(
            f"{counted(others, 'other group')} of runs, with other settings, is not included."
            if others == 1
            else f"{others} other groups of runs, with other settings, are not included."
        )
    if untested := [claim.id for claim in claims if claim.verdict is Verdict.NOT_TESTED]:
        parts.append(f"Not tested: {listed(map(printable, untested))}.")
    parts.append("The result may differ for another model, data set or device.")
    return " ".join(filter(None, [*parts, _damaged(study)]))


def _few_seeds(main: GroupFits) -> str:
    seeds = len(main.seeds)
    if seeds < 2:
        return "One seed gives no error bars, and another seed may change the choice: run seed=0,1,2,3,4."
    return "Two seeds are too few to choose between batch sizes: run seed=0,1,2,3,4." if seeds < FEW else ""


def _at_edge(main: GroupFits, size: int) -> str:
    tuned = [] if isinstance(main.to_target, Unknown) else [s for s in main.to_target.sizes if s.reached]
    played = [] if isinstance(main.tournament, Unknown) else main.tournament.best
    # As in `fits`: if the steps to the target were tuned, it is shown at that learning rate.
    edges = {best.batch_size: best.at_edge for best in played} | {s.batch_size: s.at_edge for s in tuned}
    if not edges.get(size):
        return ""
    return "Its learning rate is at the edge of those tried: a better one may lie beyond."


def _nothing(main: GroupFits) -> str:
    ended = Counter(status for _, status, count in main.ended for _ in range(count))
    counts = listed(f"{count} {status}" for status, count in ended.items())
    return f"No batch size can be recommended{of_group(main)}: no run completed ({counts})."


def _damaged(study: Study) -> str:
    return f"{counted(len(study.damaged), 'thing')} could not be read." if study.damaged else ""

"""The claims that articles make about the batch size, each judged on the runs of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batchlab.printable import counted, signed
from batchlab.report.claims import generalisation, memory, noise, scale, speed
from batchlab.report.claims import learning_rates as rates
from batchlab.report.claims import training_progress as progress
from batchlab.report.claims.claim import Claim, Evidence
from batchlab.report.claims.evidence import Findings
from batchlab.report.claims.next_command import command, unknown_keys, usual
from batchlab.report.claims.runs import Curves
from batchlab.report.tables.study import Study
from batchlab.science.statistics.verdicts import Judgement, Verdict, judge_study, seeds_needed

__all__ = ["CLAIMS", "Statement", "judge_claims"]


@dataclass(frozen=True)
class Statement:
    """A claim as it is made, and what looks for its evidence."""

    id: str
    text: str
    look: Callable[[Curves], Findings]


CLAIMS = (
    Statement("epoch-time", "larger batch, less time per epoch", speed.epoch_time),
    Statement("updates", "larger batch, fewer updates per epoch", speed.updates),
    Statement("throughput", "larger batch uses the device better, until it saturates", speed.throughput),
    Statement("early-progress", "smaller batch converges in fewer epochs", progress.early_progress),
    Statement("steps-to-target", "larger batch needs fewer steps, with diminishing returns", progress.steps_to_target),
    Statement("gradient-noise", "smaller batch, noisier gradient (variance ~ 1/B)", noise.gradient_noise),
    Statement("smoothness", "larger batch converges more smoothly", progress.smoothness),
    Statement("generalisation", "smaller batch generalises better", generalisation.generalisation),
    Statement("sharpness", "larger batch ends in sharper minima", generalisation.sharpness),
    Statement("memorisation", "larger batch memorises the training data more", generalisation.memorisation),
    Statement("nuance", "smaller batch learns the rare and hard examples better", generalisation.nuance),
    Statement("escape", "large batch gets stuck at saddles or bad minima", progress.escape),
    Statement("memory", "larger batch needs more memory", memory.memory),
    Statement("lr-scaling", "the learning rate must move with the batch", rates.lr_scaling),
    Statement("small-lr", "small batches like slightly higher rates", rates.small_lr),
    Statement("warmup", "large batches need warm-up", rates.warmup),
    Statement("accumulation", "accumulation simulates the large batch, for less memory", memory.accumulation),
    Statement("mixed-precision", "lower precision saves memory, so larger batches fit", memory.mixed_precision),
    Statement("largest-fit", "start from the largest batch that fits", memory.largest_fit),
    Statement("dataset-size", "the best batch depends on the size of the data", scale.dataset_size),
    Statement("model-size", "more complex models prefer smaller batches", scale.model_size),
    Statement("domain", "vision 32-64, language larger", scale.domain),
)


def judge_claims(study: Study, claims: Sequence[Statement] = CLAIMS) -> tuple[Claim, ...]:
    """Every claim, in their order; those that were tested are corrected for their number (Holm)."""
    curves = Curves.of(study)
    found = {claim.id: claim.look(curves) for claim in claims}
    judged = judge_study({name: [e.effect for e in findings.all] for name, findings in found.items()})
    settings = usual(study)
    return tuple(_claim(study, settings, claim, found[claim.id], judged[claim.id]) for claim in claims)


def _claim(
    study: Study, settings: Mapping[str, str], claim: Statement, findings: Findings, judgement: Judgement
) -> Claim:
    if not findings.all:
        why = findings.missing + (f" ({findings.note})" if findings.note else "")
        asked = command(study, settings, findings.ask)
        if keys := unknown_keys(study, settings, findings.ask):
            why += f"; yours must take {' and '.join(keys)} for it"
        return Claim(claim.id, claim.text, Verdict.NOT_TESTED, (), why, asked, None)
    verdict, why = _verdict(findings, judgement)
    decisive = _decisive(findings.all, judgement, verdict)
    needed = seeds_needed(decisive.effect, level=0.05 / max(1, judgement.family))
    why += f"; {findings.note}" if findings.note else ""
    return Claim(claim.id, claim.text, verdict, tuple(findings.all), why, "", needed)


def _verdict(findings: Findings, judgement: Judgement) -> tuple[Verdict, str]:
    """The judgement's verdict; of a claim that says two things, supported only where both are."""
    evidence, verdict = findings.all, judgement.verdict
    if verdict is Verdict.SUPPORTED and findings.two_parts:
        sides = [
            set(judgement.each[: len(findings.evidence)]),
            set(judgement.each[len(findings.evidence) :]),
        ]
        if not all(Verdict.SUPPORTED in side for side in sides):
            half = 0 if Verdict.SUPPORTED not in sides[0] else 1
            parts = (findings.evidence, findings.second or [])[half]
            shown = told(parts[0]) if parts else "there is no comparison for it"
            return Verdict.INCONCLUSIVE, f"the {('first', 'second')[half]} half of what it says is not shown: {shown}"
    return verdict, _why(evidence, judgement)


def _why(evidence: list[Evidence], judgement: Judgement) -> str:
    verdict = judgement.verdict
    if verdict is Verdict.INCONCLUSIVE:
        if all(e.effect.interval.low is None for e in evidence):
            return f"{counted(max(e.seeds for e in evidence), 'seed')} tells no interval"
        alone = [e for e in evidence if e.effect.p is not None and e.effect.p <= 0.05]
        if alone and judgement.p is not None and judgement.p > 0.05:
            return (
                f"p is {alone[0].effect.p:.2g} for {told(alone[0])}, and {judgement.p:.2g} "
                f"corrected for {counted(judgement.family, 'claim')}"
            )
        return f"it is not resolved: {told(_decisive(evidence, judgement, verdict))}"
    parts = []
    for side in (Verdict.SUPPORTED, Verdict.CONTRADICTED):
        of_it = [e for e, v in zip(evidence, judgement.each, strict=True) if v is side]
        if of_it:
            n = f"{len(of_it)} of {counted(len(evidence), 'comparison')}" if len(evidence) > 1 else "the comparison"
            parts.append(f"{side} by {n}, such as {told(of_it[0])}" if len(evidence) > 1 else f"{told(of_it[0])}")
    return "; ".join(parts)


def told(evidence: Evidence) -> str:
    """`log best val/loss ...: +0.21 [0.1, 0.32] log ratio, equal examples, rate fixed, 5 seeds`."""
    ends = evidence.effect.interval
    between = "" if ends.low is None or ends.high is None else f" [{signed(ends.low)}, {signed(ends.high)}]"
    size = f"{signed(ends.value)}{between} {evidence.unit}, where {evidence.effect.margin:.3g} matters"
    return f"{evidence.what}: {size} ({evidence.held_equal}, rate {evidence.rate}, {counted(evidence.seeds, 'seed')})"


def _decisive(evidence: list[Evidence], judgement: Judgement, verdict: Verdict) -> Evidence:
    """Of those on the verdict's side, the one with the least p."""
    on_side = [e for e, v in zip(evidence, judgement.each, strict=True) if v is verdict] or evidence
    return min(on_side, key=lambda e: 2.0 if e.effect.p is None else e.effect.p)

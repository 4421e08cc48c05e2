"""The claims that articles make about the batch size, each judged on the runs of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batchlab.printable import counted, signed
from batchlab.report.claims import generalisation, learning_rates, memory, noise, scale, speed
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
    """The wording of a claim, and the function that collects its evidence."""

    id: str
    text: str
    collect: Callable[[Curves], Findings]


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
    Statement("lr-scaling", "the learning rate must move with the batch", learning_rates.lr_scaling),
    Statement("small-lr", "small batches prefer slightly higher learning rates", learning_rates.small_lr),
    Statement("warmup", "large batches need warm-up", learning_rates.warmup),
    Statement("accumulation", "accumulation simulates the large batch, for less memory", memory.accumulation),
    Statement("mixed-precision", "lower precision saves memory, so larger batches fit", memory.mixed_precision),
    Statement("largest-fit", "start from the largest batch that fits", memory.largest_fit),
    Statement("dataset-size", "the best batch depends on the size of the data", scale.dataset_size),
    Statement("model-size", "more complex models prefer smaller batches", scale.model_size),
    Statement("domain", "vision 32-64, language larger", scale.domain),
)


def judge_claims(study: Study, claims: Sequence[Statement] = CLAIMS) -> tuple[Claim, ...]:
    """Every claim, in order; those that were tested are corrected for their number (Holm)."""
    curves = Curves.of(study)
    found = {claim.id: claim.collect(curves) for claim in claims}
    judged = judge_study({name: [e.effect for e in findings.all] for name, findings in found.items()})
    settings = usual(study)
    return tuple(_claim(study, settings, claim, found[claim.id], judged[claim.id]) for claim in claims)


def _claim(
    study: Study, settings: Mapping[str, str], claim: Statement, findings: Findings, judgement: Judgement
) -> Claim:
    if not findings.all:
        why = findings.missing + (f" ({findings.note})" if findings.note else "")
        test_command = command(study, settings, findings.overrides)
        if keys := unknown_keys(study, settings, findings.overrides):
            why += f"; your own data set or model must accept {' and '.join(keys)}"
        return Claim(claim.id, claim.text, Verdict.NOT_TESTED, (), why, test_command, None)
    verdict, why = _verdict(findings, judgement)
    decisive = _decisive(findings.all, judgement, verdict)
    needed = seeds_needed(decisive.effect, level=0.05 / max(1, judgement.family))
    why += f"; {findings.note}" if findings.note else ""
    return Claim(claim.id, claim.text, verdict, tuple(findings.all), why, "", needed)


def _verdict(findings: Findings, judgement: Judgement) -> tuple[Verdict, str]:
    """The judgement's verdict; a claim with two parts is supported only if both are."""
    evidence, verdict = findings.all, judgement.verdict
    if verdict is Verdict.SUPPORTED and findings.two_parts:
        sides = [
            set(judgement.each[: len(findings.evidence)]),
            set(judgement.each[len(findings.evidence) :]),
        ]
        if not all(Verdict.SUPPORTED in side for side in sides):
            missing = 0 if Verdict.SUPPORTED not in sides[0] else 1
            parts = (findings.evidence, findings.second or [])[missing]
            shown = described(parts[0]) if parts else "no comparison tests it"
            return Verdict.INCONCLUSIVE, f"the {('first', 'second')[missing]} part of the claim is not shown: {shown}"
    return verdict, _why(evidence, judgement)


def _why(evidence: list[Evidence], judgement: Judgement) -> str:
    verdict = judgement.verdict
    if verdict is Verdict.INCONCLUSIVE:
        if all(e.effect.interval.low is None for e in evidence):
            return f"no error bars from {counted(max(e.seeds for e in evidence), 'seed')}"
        alone = [e for e in evidence if e.effect.p is not None and e.effect.p <= 0.05]
        if alone and judgement.p is not None and judgement.p > 0.05:
            return (
                f"p is {alone[0].effect.p:.2g} for {described(alone[0])}, and {judgement.p:.2g} "
                f"corrected for {counted(judgement.family, 'claim')}"
            )
        return f"the runs do not decide it: {described(_decisive(evidence, judgement, verdict))}"
    parts = []
    for side in (Verdict.SUPPORTED, Verdict.CONTRADICTED):
        of_it = [e for e, v in zip(evidence, judgement.each, strict=True) if v is side]
        if of_it:
            n = f"{len(of_it)} of {counted(len(evidence), 'comparison')}" if len(evidence) > 1 else "the comparison"
            parts.append(f"{side} by {n}, such as {described(of_it[0])}" if len(evidence) > 1 else described(of_it[0]))
    return "; ".join(parts)


def described(evidence: Evidence) -> str:
    """`log best val/loss ...: +0.2 [0.1, 0.3] log ratio, ... (equal examples, learning rate fixed, 5 seeds)`."""
    ends = evidence.effect.interval
    between = "" if ends.low is None or ends.high is None else f" [{signed(ends.low)}, {signed(ends.high)}]"
    size = f"{signed(ends.value)}{between} {evidence.unit}, where {evidence.effect.margin:.3g} or more matters"
    how = f"{evidence.held_equal}, learning rate {evidence.rate}, {counted(evidence.seeds, 'seed')}"
    return f"{evidence.what}: {size} ({how})"


def _decisive(evidence: list[Evidence], judgement: Judgement, verdict: Verdict) -> Evidence:
    """The comparison with the smallest p of those on the verdict's side."""
    on_side = [e for e, v in zip(evidence, judgement.each, strict=True) if v is verdict] or evidence
    return min(on_side, key=lambda e: 2.0 if e.effect.p is None else e.effect.p)

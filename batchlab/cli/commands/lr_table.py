"""`batchlab lr-table`: the learning rate that each rule of lr_scaling gives for each batch size, and its schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batchlab.config import RunConfig
from batchlab.config.options import PEAK_LR_OPTIONS, SCHEDULE_OPTIONS
from batchlab.config.plan import scaled, schedule_options
from batchlab.errors import BadRequest
from batchlab.printable import NOTHING, aligned, number, printable
from batchlab.science.scaling.lr_scaling import NOISE_RULES, RULE_NAMES, Scaled
from batchlab.science.scaling.schedules import Curve, after_warmup, check_warmup, curve_of, learning_rate

if TYPE_CHECKING:
    from rich.console import Console

WITHOUT_BETAS_AND_EPS = ("torch.optim.SGD",)  # no import of PyTorch for the default
PLACES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # fractions of the budget at which a schedule is shown


@dataclass(frozen=True)
class Rule:
    """What one rule gives for each batch size, or the reason why it gives nothing."""

    name: str
    given: tuple[tuple[int, Scaled], ...]  # (batch size, scaled settings)
    noise_scale: float | None = None
    refusal: str = ""


def main(arguments: list[str]) -> int:
    """Composes the grid as `sweep` would, once for each rule, and shows the learning rates."""
    for argument in arguments:
        if argument.startswith("-"):
            raise BadRequest(f"unknown flag {argument}: write options as in `batchlab lr-table batch_size=8,32`")

    from rich.console import Console

    config, rules = each_rule(arguments)
    show(config, rules, Console(highlight=False))
    return 0


def each_rule(arguments: Sequence[str]) -> tuple[RunConfig, list[Rule]]:
    """The first point of the grid, not scaled, and the result of every rule for the whole grid."""
    from batchlab.hydra_app import grid_composer, refuse_options

    refuse_options("lr-table", arguments)
    with grid_composer(arguments) as composer:

        def grid(rule: str) -> list[RunConfig]:
            unused = [] if rule in NOISE_RULES else ["noise_scale=null"]
            points, _ = composer.grid([*arguments, f"lr_scaling={rule}", *unused])
            return _one_setting([point.config for point in points])

        configs = grid("none")
        takes = _takes(configs[0])
        rules = [_on_a_grid("none", configs, takes)]  # where this is refused, so is every rule
        for name in RULE_NAMES[1:]:
            try:
                rules.append(_on_a_grid(name, grid(name), takes))
            except BadRequest as refusal:
                rules.append(Rule(name, (), refusal=str(refusal)))
    refusals = [rule.refusal for rule in rules if rule.name in NOISE_RULES and rule.refusal]
    given = {key.lstrip("+"): value for key, _, value in (argument.partition("=") for argument in arguments)}
    if len(refusals) == len(NOISE_RULES) and given.get("noise_scale", "null") != "null":
        raise BadRequest(refusals[0])  # an error, not a footnote, as a noise scale was requested
    return configs[0], rules


def show(config: RunConfig, rules: Sequence[Rule], console: "Console") -> None:
    """Prints the settings at the reference, a row for each rule and batch size, and why a rule gives nothing."""
    from rich.text import Text

    schedule = _schedule(config)  # first, as it may be refused
    console.print(Text(_at_the_reference(config, rules)), soft_wrap=True)
    console.print()
    titles, rows = _table(rules)
    lines = aligned(titles, rows, left=(0,))
    heads = len(lines) - len(rows)
    for line in lines[:heads]:
        console.print(Text(line, style="bold"), soft_wrap=True)
    for line, row in zip(lines[heads:], rows, strict=True):
        console.print(Text(line, style="dim" if row[1] == NOTHING else ""), soft_wrap=True)
    refusals = [f"{NOTHING} {printable(rule.refusal)}." for rule in rules if rule.refusal]
    if refusals:
        console.print()
        console.print(Text("\n".join(refusals)), soft_wrap=True)
    if schedule:
        console.print()
        console.print(Text("\n".join(schedule)), soft_wrap=True)


def _schedule(config: RunConfig) -> list[str]:
    """The schedule as multiples of the peak learning rate; nothing where the learning rate is the same all along."""
    if config.schedule == "constant" and not config.warmup:
        return []
    name = config.schedule if isinstance(config.schedule, str) else config.schedule["_target_"]
    title = f"schedule={printable(name)}: multiples of the peak learning rate, by the fraction of the budget"
    warmup = _fraction_of_warmup(config)
    if warmup is None:
        title += f", without the warm-up of {config.warmup:,g} examples"
        warmup = 0.0
    multiple = partial(learning_rate, peak=1.0, warmup=warmup, start=0.0, curve=_curve(config, warmup))
    cells = [number(multiple(place)) if place >= warmup else "warm-up" for place in PLACES]
    return [f"{title}.", *aligned([f"{place:g}" for place in PLACES], [cells], left=())]


def _fraction_of_warmup(config: RunConfig) -> float | None:
    """None where it depends on the size of the data."""
    if config.warmup < 1:
        return config.warmup
    return min(1.0, config.warmup / config.budget.amount) if config.budget.unit == "examples" else None


def _curve(config: RunConfig, warmup: float) -> Curve:
    if isinstance(config.schedule, str):
        options = schedule_options(config)
        check_warmup(config.schedule, options, warmup)
        return curve_of(config.schedule, options, warmup)
    from batchlab.training.updates.own_schedule import own_schedule

    own = own_schedule(config)
    assert own is not None
    return after_warmup(own, warmup)


def _at_the_reference(config: RunConfig, rules: Sequence[Rule]) -> str:
    text = f"lr={config.lr:g} at reference_batch_size={config.reference_batch_size}"
    text += f", for {printable(config.optimizer['_target_'])}"
    scales = {rule.name: rule.noise_scale for rule in rules if rule.noise_scale is not None}
    if len(set(scales.values())) == 1:
        return f"{text}; noise_scale={next(iter(scales.values())):g}."
    return "; ".join([text, *(f"noise_scale={scale:g} for {name}" for name, scale in scales.items())]) + "."


def _table(rules: Sequence[Rule]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows; a column for betas and eps where the optimizer has them."""
    everything = [after for rule in rules for _, after in rule.given]
    betas = max((len(after.betas or ()) for after in everything), default=0)
    has_eps = any(after.eps is not None for after in everything)
    titles = ["rule", "batch\nsize", "peak\nlr", *(f"beta{i + 1}" for i in range(betas)), *(["eps"] if has_eps else [])]
    rows = []
    for rule in rules:
        for batch_size, after in rule.given:
            # 6 digits: 4 would not distinguish 0.99975 from 0.9998.
            cells = [number(beta, ".6g") for beta in after.betas or ()] + ([number(after.eps)] if has_eps else [])
            rows.append([rule.name, str(batch_size), number(after.lr), *cells])
        if not rule.given:
            rows.append([rule.name, *[NOTHING] * (len(titles) - 1)])
    return titles, rows


def _on_a_grid(name: str, configs: Sequence[RunConfig], takes: Mapping[str, object]) -> Rule:
    given = tuple((config.batch_size, scaled(config, takes)) for config in configs)
    return Rule(name, given, configs[0].noise_scale)


def _one_setting(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """One of `configs` for each batch size; BadRequest where another option changes the learning rate too."""
    for option in (*PEAK_LR_OPTIONS, *SCHEDULE_OPTIONS, "optimizer"):
        if any(getattr(config, option) != getattr(configs[0], option) for config in configs):
            raise BadRequest(f"lr-table shows one setting at several batch sizes: give {option} one value")
    return list({config.batch_size: config for config in configs}.values())


def _takes(config: RunConfig) -> Mapping[str, object]:
    """The defaults of betas and eps in the optimizer's signature, where its config does not set both."""
    group = config.optimizer
    if group["_target_"] in WITHOUT_BETAS_AND_EPS or {"betas", "eps"} <= group.keys():
        return {}
    from batchlab.training.updates.optimizer import signature_defaults

    return signature_defaults(config)

"""From the overrides of a grid to its points: composed as by Hydra, but only once per choice of groups."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import Request, RunConfig, SweepConfig, from_dict, from_hydra, one_sweep
from batchlab.errors import BadRequest, EmptyGrid
from batchlab.host.device_choice import resolve_device
from batchlab.hydra_app.allowed_hydra_options import check_overrides
from batchlab.hydra_app.arguments import own_targets
from batchlab.hydra_app.explaining import translated
from batchlab.hydra_app.measured_noise_scale import reported_noise_scale, with_number
from batchlab.hydra_app.plain_overrides import (
    PlainConfig,
    PlainValue,
    merged,
    parsed_number,
    plain_config,
    plain_value,
)
from batchlab.sweep.points import Point

MOST_POINTS = 100_000


class Composer:
    """From lists of overrides to checked configurations.

    Hydra takes 0.1 s to compose a point. The composition depends only on the groups that are chosen; the values are
    then merged into it as Hydra itself does it, so one composition for each choice of groups is enough.
    """

    def __init__(
        self, context: HydraContext, master: DictConfig, device: Callable[[str], str] = resolve_device
    ) -> None:
        """`device` resolves the requested device."""
        self.loader: Any = context.config_loader  # the implementation: the interface has no method for overrides
        self.master = master
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self._device = functools.cache(device)  # queries the driver: once per grid, not per point
        self._noise_scale = functools.cache(reported_noise_scale)  # read and reported once per grid
        self._composed: dict[tuple[str, ...], tuple[DictConfig, PlainConfig | None]] = {}
        self._read: dict[str, tuple[Override, bool, PlainValue | None]] = {}

    def grids(self, arguments: Sequence[str]) -> list[list[str]]:
        """The `grids` of every experiment that `arguments` choose; one empty grid where it has none."""
        chosen = [o for o in self.parser.parse_overrides(list(arguments)) if o.key_or_group == "experiment"]
        if chosen and chosen[-1].is_sweep_override():
            experiments = [[f"experiment={name}"] for name in chosen[-1].sweep_string_iterator()]
            return [[*o, *grid] for o in experiments for grid in _lists(self.base(tuple(o)).grids)]
        return _lists(self.master.grids)

    def expanded(self, overrides: Sequence[str]) -> Iterator[list[str]]:
        """Every point of the product; of two overrides of one key the later wins. EmptyGrid where there is no point."""
        parsed = self.parser.parse_overrides(list(overrides))
        check_overrides(parsed)
        counts = {override.get_key_element(): count_of(override) for override in parsed}
        points = 1
        for count in counts.values():
            points *= count
        if points > MOST_POINTS:
            raise BadRequest(
                f"the grid has more than {MOST_POINTS:,} points: give fewer values, or make several sweeps of one study"
            )
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        yield from jobs

    def grid(self, arguments: Sequence[str]) -> tuple[list[Point], SweepConfig]:
        """Every point of the grids that `arguments` describe, composed and checked, and how to run them."""
        jobs = [job for grid in self.grids(arguments) for job in self.expanded(own_targets([*grid, *arguments]))]
        requests = [self.request(job) for job in jobs]
        points = [self._point(request, job) for request, job in zip(requests, jobs, strict=True)]
        return points, one_sweep([request.sweep for request in requests])

    def config(self, overrides: Sequence[str]) -> RunConfig:
        """The point that `overrides`, none of them a sweep, describe, with its device resolved."""
        return self._point(self.request(overrides), overrides).config

    def _point(self, request: Request, overrides: Sequence[str]) -> Point:
        auto = request.run.device == "auto"
        config = pinned(request.run, self._device)
        return Point(config, tuple(overrides), auto=auto, published=request.published)

    def request(self, overrides: Sequence[str]) -> Request:
        """The request that `overrides`, none of them a sweep, describe."""
        read = [self._read_override(line) for line in overrides]
        composed, plain = self._base(tuple(str(o.input_line) for o, is_group, _ in read if is_group))
        changes = [change for _, is_group, change in read if not is_group]
        if plain is not None and (values := _merged(plain, changes)) is not None:
            return from_dict(self._settled(values))
        return self.by_hydra([o for o, is_group, _ in read if not is_group], composed)

    def by_hydra(self, overrides: Sequence[Override], composed: DictConfig) -> Request:
        """The same with Hydra itself: for interpolations, `+`, `~`, mappings, and everything that Hydra refuses."""
        composed = copy.deepcopy(composed)
        try:
            self.loader._apply_overrides_to_config(list(overrides), composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise translated(error) from error
        return from_hydra(composed, self._settled)

    def _settled(self, values: Mapping[str, object]) -> Mapping[str, object]:
        return with_number(values, self._noise_scale)

    def base(self, groups: tuple[str, ...]) -> DictConfig:
        """The composition of a choice of groups, without Hydra's own node."""
        return self._base(groups)[0]

    def _base(self, groups: tuple[str, ...]) -> tuple[DictConfig, PlainConfig | None]:
        if groups not in self._composed:
            composed: DictConfig = self.loader.load_sweep_config(self.master, list(groups))
            HydraConfig.instance().set_config(composed)  # for ${hydra:...} in a user's file
            with open_dict(composed):
                del composed["hydra"]
            self._composed[groups] = composed, plain_config(composed)
        return self._composed[groups]

    def _read_override(self, line: str) -> tuple[Override, bool, PlainValue | None]:
        """`line` parsed, whether it chooses a group, and its value where that is plain; each line is read once."""
        if line not in self._read:
            override = parsed_number(line) or self.parser.parse_overrides([line])[0]
            is_group = bool(self.loader.repository.group_exists(override.key_or_group))
            self._read[line] = override, is_group, plain_value(override)
        return self._read[line]


def pinned(config: RunConfig, device: Callable[[str], str] = resolve_device) -> RunConfig:
    """`config` with `device=auto` resolved, so that the device is part of the run's identity."""
    here = device(config.device)
    return config if here == config.device else replace(config, device=here)


def _merged(base: PlainConfig, changes: Sequence[PlainValue | None]) -> dict[str, object] | None:
    plain = [change for change in changes if change is not None]
    return merged(base, plain) if len(plain) == len(changes) else None


def count_of(override: Override) -> int:
    """How many values an override gives, counted up to the largest grid; BadRequest or EmptyGrid for none."""
    if not override.is_sweep_override():
        return 1
    line = override.input_line
    if not override.is_discrete_sweep():
        raise BadRequest(f"{line} gives no list of values: write them with commas, or range(start,stop,step)")
    try:
        count = sum(1 for _ in itertools.islice(override.sweep_string_iterator(), MOST_POINTS + 1))
    except (ValueError, HydraException):  # of Python's range, and of Hydra's for floats
        raise BadRequest(f"{line} is invalid: the step of a range must not be 0") from None
    if not count:
        raise EmptyGrid(f"the grid is empty: {line} gives no values")
    return count


def _lists(grids: Any) -> list[list[str]]:
    """`grids` of a config as plain lists of overrides; one empty list where it has none."""
    plain = OmegaConf.to_container(grids) if OmegaConf.is_list(grids) else grids
    if not isinstance(plain, list) or not all(isinstance(grid, list) for grid in plain):
        raise BadRequest('grids must be a list of lists of overrides: grids: [["batch_size=8,32"], ["lr=0.1,0.2"]]')
    for entry in (entry for grid in plain for entry in grid):
        if not isinstance(entry, str) or "=" not in entry:
            raise BadRequest(f'grids holds {entry!r}, which is not an override: use quotes, "batch_size=8,32"')
    return plain or [[]]

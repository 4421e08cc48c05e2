"""What a measured number means: declared once, and read by every table and chart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from batchlab.errors import BadRequest
from batchlab.printable import number

BYTES, SHARE, LOSS, EXAMPLES_PER_SECOND = "bytes", "share", "loss", "examples/s"
NO_UNIT = "1"  # of a quotient or a cosine
MIB = 2**20
WRITTEN = {LOSS: "#.4g", SHARE: ".4f", EXAMPLES_PER_SECOND: ",.0f"}
DIFFERENCE, RATIO = "difference", "ratio"
PLACEHOLDER = re.compile(r"<[^>]*>")  # in the name of a family


@dataclass(frozen=True)
class Chart:
    """Where TensorBoard's CUSTOM SCALARS page draws a quantity; those that name one category and title share it."""

    category: str
    title: str
    band: bool = False  # with its 95% interval as a band, which every point of it must have
    over_steps: str = ""  # title of a second chart, over optimizer steps; "": none
    by_batch_size: str = ""  # title of a chart of what runs came to, over the batch size; "": none

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Quantity:
    """One thing that an instrument measures. `<...>` in its name is any text: `val/<metric>` declares a family."""

    name: str  # group/quantity_unit, as in the journal
    unit: str  # "1" where it has none
    meaning: str  # a phrase, for legends and for the documentation
    higher_is_better: bool | None = None  # None: neither is, or it is not known
    # Taken by the clock, or of what the device holds: runs that shared the machine, or were made on another model of
    # device, are not compared by it.
    clocked: bool = False
    chart: Chart | None = None
    keep_best: bool = False  # a record has the best value beside the last, where the better direction is known
    compared: str = ""  # by `batchlab compare`: as a "difference" or as a "ratio"; "": not at all
    label: str = ""  # of its row there; "": its name
    column: str = ""  # title of its column below a sweep, its lines parted by newlines; "": it has none
    headline: bool = False  # among the first columns of TensorBoard's table, and side by side in the report

    def __post_init__(self) -> None:
        _check(self)
        if self.compared not in ("", DIFFERENCE, RATIO):
            raise BadRequest(f"Quantity(compared={self.compared!r}) cannot be: use '{DIFFERENCE}', '{RATIO}' or ''")
        if self.is_family and (self.compared or self.column or self.headline):
            raise BadRequest(
                f"Quantity({self.name!r}) is a family, which no row or column can show: declare each name by itself, "
                "or leave out compared, column and headline"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Quantity":
        """The inverse of `dataclasses.asdict`; keys of a newer version are left out. ValueError or TypeError where it
        is none."""
        try:
            chart = values.get("chart")
            given = {**values, "chart": None if chart is None else Chart(**_known(Chart, chart))}
            return cls(**_known(cls, given))
        except (BadRequest, AttributeError) as error:
            raise ValueError(f"it has a quantity that is none: {error}") from None

    @property
    def group(self) -> str:
        """What stands before the slash of its name."""
        return self.name.partition("/")[0]

    @property
    def best(self) -> str:
        """The column of the best value of a run."""
        return f"best.{self.name}.value"

    @property
    def final(self) -> str:
        """The column of the last value of a run."""
        return f"final.{self.name}"

    @property
    def is_family(self) -> bool:
        """Whether it declares every name that is like its own."""
        return PLACEHOLDER.search(self.name) is not None

    def covers(self, name: str) -> bool:
        """Whether what is called `name` is this quantity, or of this family."""
        return self._pattern.fullmatch(name) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(".*".join(map(re.escape, PLACEHOLDER.split(self.name))), re.DOTALL)

    def written(self, value: float | None) -> str:
        """`value` as a table shows it, bytes in MiB; `-` where there is none."""
        if value is not None and self.unit == BYTES:
            few = ",.1f" if self.clocked else ",.2f"  # counted bytes are exact
            return number(value / MIB, few if value < 100 * MIB else ",.0f")
        return number(value, WRITTEN.get(self.unit, ".4g"))


def _known(table: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(table) if field.name in values}


def _check(row: Any) -> None:
    """A declaration is written by hand, or read from anybody's run folder."""
    for field in fields(row):
        value = getattr(row, field.name)
        kind: Any = field.type  # a class or a union of them: no annotation here is a text
        if not isinstance(value, kind):
            name = f"{type(row).__name__}({field.name}={value!r})"
            raise BadRequest(f"{name} cannot be: it must be of type {getattr(kind, '__name__', kind)}")

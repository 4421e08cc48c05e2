"""What a measured number means: declared once, and read by every table and chart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from batchlab.errors import BadRequest
from batchlab.printable import number

BYTES, SHARE, LOSS, EXAMPLES_PER_SECOND = "bytes", "share", "loss", "examples/s"
NO_UNIT = "1"  # for a ratio or a cosine
MIB = 2**20
WRITTEN = {LOSS: "#.4g", SHARE: ".4f", EXAMPLES_PER_SECOND: ",.0f"}
DIFFERENCE, RATIO = "difference", "ratio"
PLACEHOLDER = re.compile(r"<[^>]*>")  # in the name of a family


@dataclass(frozen=True)
class Chart:
    """A chart on TensorBoard's CUSTOM SCALARS page; quantities with the same category and title share it."""

    category: str
    title: str
    band: bool = False  # drawn with its 95% interval as a band, which every point must have
    over_steps: str = ""  # title of a second chart, over optimizer steps; "": none
    by_batch_size: str = ""  # title of a chart of final results over the batch size; "": none

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Quantity:
    """A quantity that an instrument measures. `<...>` in a name matches any text: `val/<metric>` is a family."""

    name: str  # group/quantity_unit, as in the journal
    unit: str  # "1" if it has none
    meaning: str  # a phrase, for legends and for the documentation
    higher_is_better: bool | None = None  # None: neither, or not known
    # A time or a use of memory: not compared between runs that shared the machine or were made on different models of
    # device.
    clocked: bool = False
    chart: Chart | None = None
    keep_best: bool = False  # the record also has the best value, if the better direction is known
    compared: str = ""  # by `batchlab compare`: as a "difference" or as a "ratio"; "": not at all
    label: str = ""  # of its row there; "": its name
    column: str = ""  # title of its column in the table of a sweep, with newlines; "": no column
    headline: bool = False  # among the first columns of TensorBoard's table, and side by side in the report

    def __post_init__(self) -> None:
        _check(self)
        if self.compared not in ("", DIFFERENCE, RATIO):
            raise BadRequest(f"Quantity(compared={self.compared!r}) is invalid: use '{DIFFERENCE}', '{RATIO}' or ''")
        if self.is_family and (self.compared or self.column or self.headline):
            raise BadRequest(
                f"Quantity({self.name!r}) is a family, which a row or column cannot show: declare each name by itself, "
                "or leave out compared, column and headline"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Quantity":
        """The inverse of `dataclasses.asdict`; keys of a newer version are ignored. ValueError or TypeError if it is
        not a quantity."""
        try:
            chart = values.get("chart")
            given = {**values, "chart": None if chart is None else Chart(**_known(Chart, chart))}
            return cls(**_known(cls, given))
        except (BadRequest, AttributeError) as error:
            raise ValueError(f"it has an invalid quantity: {error}") from None

    @property
    def group(self) -> str:
        """The part of its name before the slash."""
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
        """Whether it declares all names that match its pattern."""
        return PLACEHOLDER.search(self.name) is not None

    def covers(self, name: str) -> bool:
        """Whether `name` is this quantity or belongs to this family."""
        return self._pattern.fullmatch(name) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(".*".join(map(re.escape, PLACEHOLDER.split(self.name))), re.DOTALL)

    def written(self, value: float | None) -> str:
        """`value` as a table shows it, bytes in MiB; `-` if it is missing."""
        if value is not None and self.unit == BYTES:
            few = ",.1f" if self.clocked else ",.2f"  # counted bytes are exact
            return number(value / MIB, few if value < 100 * MIB else ",.0f")
        return number(value, WRITTEN.get(self.unit, ".4g"))


def _known(table: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(table) if field.name in values}


def _check(row: Any) -> None:
    """Checks the types of a declaration, which is written by hand or read from any run folder."""
    for field in fields(row):
        value = getattr(row, field.name)
        kind: Any = field.type  # a class or a union of classes; no annotation here is a string
        if not isinstance(value, kind):
            name = f"{type(row).__name__}({field.name}={value!r})"
            raise BadRequest(f"{name} is invalid: it must be of type {getattr(kind, '__name__', kind)}")

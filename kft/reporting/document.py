"""What a report is made of: sections of paragraphs, lists, tables, figures and code.

Texts in here are plain: what writes them (`pages`, `markdown`) escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 80  # characters of a cell with a value of the data, such as a sequence


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Attributes:
        text: Its text.
        tone: "result" and "warning" are set off from the others.
    """

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: Literal["plain", "result", "warning"] = "plain"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar[str] = "items"
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: What it shows.
        columns: Names of the columns.
        rows: The cells, as many in each row as there are columns.
        numbers: Positions of columns that are aligned as numbers.
        marked: Positions of rows that are set off.
        folded: Whether it is shown only when it is opened; it is always printed.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        title: Two or three words, such as "confusion matrix".
        figure: The figure.
        caption: What it shows, how it was made, and after "What stands out:" the result.
    """

    kind: ClassVar[str] = "picture"
    title: str
    figure: Figure
    caption: str

    @property
    def parts(self) -> tuple[str, str]:
        """The caption before and after "What stands out:"."""
        about, _, stands_out = self.caption.partition("What stands out:")
        return about.strip(), stands_out.strip()

    @property
    def alternative(self) -> str:
        """What is read out in place of the figure."""
        about, stands_out = self.parts
        return f"Figure, {self.title}: {stands_out or about}"


@dataclass(frozen=True)
class Molecule(Picture):
    """A figure of a chain, which a page lets its reader turn.

    Attributes:
        view: JSON of the chain for viewer.js: "curves" (points in angstrom of each piece),
            "residues" (the residue of each point), "colours" and "labels" of the residues.
        legend: Pairs of a text and a colour.
    """

    view: str
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Code:
    """Lines of a program or a shell."""

    kind: ClassVar[str] = "code"
    text: str
    language: str = ""


Block = Paragraph | Items | Facts | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """A part of a report with a title.

    Attributes:
        key: Its name in links.
        title: Its title.
        blocks: Its content.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]


def table_of(
    caption: str,
    frame: pd.DataFrame,
    index: str | None = None,
    marked: Iterable[Hashable] = (),
    folded: bool = False,
) -> Table:
    """Make a table of a DataFrame.

    Args:
        caption: What it shows.
        frame: The values.
        index: Title of the column of the frame's index; None leaves the index out.
        marked: Labels of rows that are set off.
        folded: As the attribute of `Table`.

    Example:
        >>> table_of("Records", pd.DataFrame({"n": [1200]}, index=["train"]), "split").rows
        (('train', '1,200'),)
    """
    columns: list[Any] = [] if index is None else [frame.index]
    columns += [frame.iloc[:, k] for k in range(frame.shape[1])]
    names = ([] if index is None else [index]) + [str(name) for name in frame.columns]
    rows = zip(*([written(value) for value in column] for column in columns), strict=True)
    numbers = {k for k, column in enumerate(columns) if pd.api.types.is_numeric_dtype(column.dtype)}
    at = frozenset(int(k) for k in np.flatnonzero(frame.index.isin(list(marked))))
    return Table(caption, tuple(names), tuple(rows), frozenset(numbers), at, folded)


def written(value: Any) -> str:
    """Write a value of a table: numbers with three digits, long texts cut.

    Args:
        value: Any value; None and NaN are left empty.

    Example:
        >>> written(0.12345), written(1234), written(float("nan")), written("A" * 100)[-3:]
        ('0.123', '1,234', '', '...')
    """
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return ""
        return f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"array of {' x '.join(map(str, value.shape))}"
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return shortened(", ".join(written(x) for x in value[:LONGEST]))
    return shortened(str(value))


def shortened(text: str) -> str:
    """Cut a text after `LONGEST` characters.

    Args:
        text: The text.
    """
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

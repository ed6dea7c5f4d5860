"""The table of a model's parameters, in which repeated modules share a line."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras

from kft.params.paths import weights

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("module", "weight shape", "parameters", "trainable", "dtype")
Line = tuple[str, str, str, str, str]  # the cells of a line, in the order of COLUMNS


@dataclass(frozen=True)
class Row:
    """One weight in the table.

    Attributes:
        module: Path of the layer.
        weight: Name of the weight in the layer.
        shape: Shape of the weight.
        parameters: Number of parameters.
        trainable: Whether it is trained by gradient.
        dtype: Name of the dtype.
    """

    module: str
    weight: str
    shape: tuple[int, ...]
    parameters: int
    trainable: bool
    dtype: str


@dataclass(frozen=True, repr=False)
class Parameters:
    """The parameters of a model, as returned by `parameters`. It prints as a table.

    Attributes:
        rows: One `Row` per weight.
    """

    rows: tuple[Row, ...]

    @property
    def total(self) -> int:
        """Number of parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Number of parameters that are trained by gradient."""
        return sum(row.parameters for row in self.rows if row.trainable)

    @property
    def frozen(self) -> int:
        """Number of all others, including the statistics of a BatchNormalization."""
        return self.total - self.trainable

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame."""
        import pandas as pd

        names = list(Row.__dataclass_fields__)
        return pd.DataFrame([asdict(row) for row in self.rows], columns=names)

    @property
    def lines(self) -> list[Line]:
        """The lines of the printed table: module, weights, parameters, trainable and dtype."""
        return list(_inside(_collapsed(_tree(self.rows)), "(its own)", 0, 1))

    def __repr__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="right" if name == "parameters" else "left")
        for line in self.lines:
            table.add_row(*map(Text, line))
        for name in ("total", "trainable", "frozen"):
            count = getattr(self, name)
            percent = "" if name == "total" else f"{100 * count / max(self.total, 1):.1f} %"
            table.add_row(name, "", f"{count:,}", percent, "")
        # The text does not depend on the terminal's width and colours.
        text = io.StringIO()
        console = Console(file=text, width=10_000, color_system=None, force_jupyter=False)
        console.print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines[:-3], lines[1], *lines[-3:]])


def parameters(model: keras.Model) -> Parameters:
    """Count a model's parameters, module by module.

    When printed, neighbouring modules that differ only in the number at the end of their names
    share a line, and a line counts the parameters of all its modules.

    Args:
        model: Any built Keras model or layer.

    Returns:
        The parameters, with `.total`, `.trainable`, `.frozen`, `.rows` and `.to_frame()`. Print
        them for a table.

    Raises:
        ValueError: The model is not built.

    Example:
        >>> import keras
        >>> hidden = [keras.layers.Dense(2, name=f"hidden_{i}") for i in range(3)]
        >>> model = keras.Sequential([keras.Input((2,)), *hidden])
        >>> hidden[0].trainable = False
        >>> parameters(model)
        module                     weight shape           parameters   trainable   dtype
        ──────────────────────────────────────────────────────────────────────────────────
        hidden_0                   kernel 2 × 2, bias 2            6   no          float32
        hidden_1, hidden_2 (2 ×)   kernel 2 × 2, bias 2           12   yes         float32
        ──────────────────────────────────────────────────────────────────────────────────
        total                                                     18
        trainable                                                 12   66.7 %
        frozen                                                     6   33.3 %
    """
    rows = []
    for weight in weights(model):
        module, _, name = weight.path.rpartition("/")
        variable = weight.variable
        shape = tuple(variable.shape)
        rows.append(Row(module, name, shape, math.prod(shape), weight.trainable, variable.dtype))
    return Parameters(tuple(rows))


# Repeated modules ---------------------------------------------------------------------------


class _Node:
    """A module of the table, or several equal neighbours."""

    def __init__(self, name: str) -> None:
        self.names = [name]
        self.rows: list[Row] = []
        self.children: list[_Node] = []

    @property
    def kind(self) -> tuple[Any, ...]:
        """What modules that share a line have in common."""
        own = [(row.weight, row.shape, row.trainable, row.dtype) for row in self.rows]
        inside = [(child.names, child.kind) for child in self.children]
        return re.sub(r"_?\d+$", "", self.names[0]), own, inside

    def all_rows(self) -> list[Row]:
        """Return the rows of one of the neighbours, repeated as often as inside of it."""
        inside = [row for child in self.children for row in child.all_rows() * len(child.names)]
        return self.rows + inside


def _tree(rows: Iterable[Row]) -> _Node:
    root = _Node("")
    for row in rows:
        node = root
        for name in filter(None, row.module.split("/")):
            child = next((child for child in node.children if child.names == [name]), None)
            if child is None:
                child = _Node(name)
                node.children.append(child)
            node = child
        node.rows.append(row)
    return root


def _collapsed(node: _Node) -> _Node:
    children: list[_Node] = []
    for child in map(_collapsed, node.children):
        if children and children[-1].kind == child.kind:
            children[-1].names += child.names
        else:
            children.append(child)
    node.children = children
    return node


def _lines(node: _Node, depth: int, times: int, prefix: str = "") -> Iterator[Line]:
    """Yield the cells of each line for a module and what is inside of it."""
    times *= len(node.names)
    name = prefix + node.names[0]
    if len(node.names) > 1:
        to = ", " if len(node.names) == 2 else " … "
        name += f"{to}{node.names[-1]} ({len(node.names)} ×)"
    elif len(node.children) == 1 and not node.rows:
        yield from _lines(node.children[0], depth, times, f"{name}/")
        return
    label = "  " * depth + name
    if node.children:
        yield label, "", *_sums(node.all_rows(), times)
        label = "  " * (depth + 1) + "(its own)"
    yield from _inside(node, label, depth + 1, times)


def _inside(node: _Node, label: str, depth: int, times: int) -> Iterator[Line]:
    for rows in _alike(node.rows):
        shapes = ", ".join(f"{row.weight} {_shape(row.shape)}".rstrip() for row in rows)
        yield label, shapes, *_sums(rows, times)
        label = ""
    for child in node.children:
        yield from _lines(child, depth, times)


def _alike(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Group the weights of a module by whether they are trainable, and by dtype."""
    groups: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.trainable, row.dtype), []).append(row)
    return groups.values()


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _sums(rows: Sequence[Row], times: int) -> tuple[str, str, str]:
    trainable, dtypes = {row.trainable for row in rows}, {row.dtype for row in rows}
    answer = "part" if len(trainable) > 1 else "yes" if True in trainable else "no"
    count = times * sum(row.parameters for row in rows)
    return f"{count:,}", answer, ", ".join(sorted(dtypes))

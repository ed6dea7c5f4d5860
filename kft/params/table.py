"""The table of a model's parameters, with what repeats written once."""

import io
import math
import re
from dataclasses import asdict, dataclass

from kft.params.paths import weights


@dataclass(frozen=True)
class Row:
    """One weight in the table: where it is, its shape, how many numbers, whether it learns."""

    module: str
    weight: str
    shape: tuple
    parameters: int
    trainable: bool
    dtype: str


@dataclass(frozen=True, repr=False)
class Parameters:
    """The parameters of a model, as `parameters` found them; prints as a table.

    Attributes:
        rows: tuple of one `Row` per weight: `module` (its layer's path), `weight` (its name),
            `shape`, `parameters`, `trainable` and `dtype`.
        total: how many parameters there are.
        trainable: how many learn by gradient.
        frozen: the rest. Statistics of a BatchNormalization count here, even where they move.
    """

    rows: tuple

    @property
    def total(self):
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self):
        return sum(row.parameters for row in self.rows if row.trainable)

    @property
    def frozen(self):
        return self.total - self.trainable

    def to_frame(self):
        """The rows as a `pandas.DataFrame`."""
        import pandas as pd

        names = list(Row.__dataclass_fields__)
        return pd.DataFrame([asdict(row) for row in self.rows], columns=names)

    def __repr__(self):
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in ("module", "weight shape", "parameters", "trainable", "dtype"):
            table.add_column(name, justify="right" if name == "parameters" else "left")
        for line in _inside(_collapsed(_tree(self.rows)), "(its own)", 0, 1):
            table.add_row(*map(Text, line))
        for name in ("total", "trainable", "frozen"):
            count = getattr(self, name)
            share = "" if name == "total" else f"{100 * count / max(self.total, 1):.1f} %"
            table.add_row(name, "", f"{count:,}", share, "")
        # Neither the terminal's width nor its colours: the text is the same wherever it goes.
        console = Console(file=io.StringIO(), width=10_000, color_system=None, force_jupyter=False)
        console.print(table)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return "\n".join([*lines[:-3], lines[1], *lines[-3:]])


def parameters(model):
    """Counts a model's parameters, module by module.

    In print, neighbours that differ in nothing but the number at the end of their names share a
    line, and each line counts the parameters of all that it stands for.

    Args:
        model: any built Keras model or layer.

    Returns:
        `Parameters`: `.total`, `.trainable` (learn by gradient), `.frozen` (the rest), `.rows`
        and `.to_frame()`; print it for a table.

    Raises:
        ValueError: the model is not built.

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
        rows.append(Row(module, name, shape, math.prod(shape), weight.learns, variable.dtype))
    return Parameters(tuple(rows))


# What repeats, once ---------------------------------------------------------------------------


class _Node:
    """A module of the table, or several neighbours that are alike."""

    def __init__(self, name):
        self.names, self.rows, self.children = [name], [], []

    @property
    def kind(self):
        """What modules have in common that share a line."""
        own = [(row.weight, row.shape, row.trainable, row.dtype) for row in self.rows]
        inside = [(child.names, child.kind) for child in self.children]
        return re.sub(r"_?\d+$", "", self.names[0]), own, inside

    def all_rows(self):
        """The rows of one of the neighbours, as often as they are repeated inside of it."""
        inside = [row for child in self.children for row in child.all_rows() * len(child.names)]
        return self.rows + inside


def _tree(rows):
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


def _collapsed(node):
    children = []
    for child in map(_collapsed, node.children):
        if children and children[-1].kind == child.kind:
            children[-1].names += child.names
        else:
            children.append(child)
    node.children = children
    return node


def _lines(node, depth, times, prefix=""):
    """Yields the cells of each line for a module and what is inside of it."""
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


def _inside(node, label, depth, times):
    for rows in _alike(node.rows):
        shapes = ", ".join(f"{row.weight} {_shape(row.shape)}".rstrip() for row in rows)
        yield label, shapes, *_sums(rows, times)
        label = ""
    for child in node.children:
        yield from _lines(child, depth, times)


def _alike(rows):
    """Weights of one module in groups that learn, or do not, in one dtype."""
    groups = {}
    for row in rows:
        groups.setdefault((row.trainable, row.dtype), []).append(row)
    return groups.values()


def _shape(shape):
    return " × ".join(map(str, shape))


def _sums(rows, times):
    trainable, dtypes = {row.trainable for row in rows}, {row.dtype for row in rows}
    said = "part" if len(trainable) > 1 else "yes" if True in trainable else "no"
    count = times * sum(row.parameters for row in rows)
    return f"{count:,}", said, ", ".join(sorted(dtypes))

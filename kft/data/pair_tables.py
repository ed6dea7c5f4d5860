"""Read a table of pairs of proteins, such as those that interact and those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kft.arguments import check_flag, check_seed
from kft.data.cells import Table
from kft.data.dataset import Dataset
from kft.data.pair_splits import CLASSES
from kft.data.sequences import Pairs
from kft.data.splits import FRACTIONS
from kft.data.tables import check_arguments, parted, read_sequences, read_target

COLUMNS = ("sequence_a", "sequence_b")


def read_pairs(
    source: Any,
    inputs: Sequence[str] = COLUMNS,
    target: str = "y",
    split: str | None = "C3",
    task: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    sep: str | None = None,
    missing: Sequence[str] | str | None = None,
    dropna: bool = False,
    decimal: str | None = None,
    weights: str | None = None,
) -> Dataset:
    """Read a table with a pair of sequences per line, and split it by protein.

    Args:
        source: As for `kft.data.read_table`.
        inputs: The two columns of the sequences; their order makes no difference.
        target: Column of the targets, a class or a number for each pair.
        split: "C1", "C2" or "C3": both proteins of a test pair are in training pairs, one is, or
            none is (Park and Marcotte 2012), see `kft.data.pair_split`; or "random", the name of a
            column that holds train, valid or test, or None.
        task: "classification", "regression" or None to find it from the targets.
        fractions: As for `kft.data.pair_split`.
        seed: Integer, the same gives the same parts.
        sep: As for `kft.data.read_table`.
        missing: As for `kft.data.read_table`.
        dropna: As for `kft.data.read_table`.
        decimal: As for `kft.data.read_table`.
        weights: As for `kft.data.read_table`.

    Returns:
        The data set; its inputs are pairs (first, second), for a `kft.PairBackbone`. `notes` has
        the number of pairs that are in no part.

    Raises:
        FileNotFoundError, ImportError, TypeError: As for `kft.data.read_table`.
        ValueError: As for `kft.data.read_table`, or as for `kft.data.pair_split`.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"sequence_a": ["MKT"], "sequence_b": ["GSS"], "y": [0.5]})
        >>> read_pairs(table, split=None).train.inputs
        [('MKT', 'GSS')]
    """
    checked = check_arguments(split, None, task)
    check_seed("`seed`", seed)
    check_flag("`dropna`", dropna)
    a_list = isinstance(inputs, list | tuple) and len(inputs) == 2
    if not a_list or inputs[0] == inputs[1] or not all(isinstance(x, str) for x in inputs):
        raise ValueError(f"`inputs` must be two columns of sequences, received {inputs!r:.60}.")
    if checked is not None and checked.per_residue:
        raise ValueError(f"`task` is {task!r}, but pairs have one target each.")
    if split == "cluster":
        raise ValueError(
            "`split` is 'cluster', which is for single sequences: 'C3' keeps near copies together."
        )
    table = Table(source, sep, missing, decimal)
    columns: dict[str, Any] = {"inputs[0]": inputs[0], "inputs[1]": inputs[1], "target": target}
    if split is not None and split not in (*CLASSES, "random") and split in table.header:
        columns["split"] = split
    if weights is not None:
        columns["weights"] = weights
    table.settle(columns, dropna, None)
    first, second = (read_sequences(table, column) for column in inputs)
    records = read_target(
        table, Pairs(zip(first, second, strict=True)), target, None, checked, weights
    )
    return parted(records, table, split, fractions, seed)

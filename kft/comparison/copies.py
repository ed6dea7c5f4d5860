"""The records of a split that have near copies in training, found once for a data set."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from kft.arguments import check_flag
from kft.data import Dataset
from kft.exploration.leakage import near_copies

_FOUND: MutableMapping[Dataset, dict[str, Copies]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Copies:
    """Records of a split that have near copies in training.

    Attributes:
        table: Table of `kft.exploration.near_copies`, whose `train` counts the records of the split
            that the column `split` names, if it is there.
        records: Number of records of the split.
        split: Name of the split.
        note: A sentence on how they were found, or why not; "" if there is nothing to say.
    """

    table: pd.DataFrame
    records: int
    split: str
    note: str = ""

    @classmethod
    def of(cls, data: Dataset, split: str, copies: bool | pd.DataFrame = True) -> Copies:
        """Find the near copies of a data set, or take those of a table.

        Args:
            data: A `kft.data.Dataset`.
            split: Name of one of its splits.
            copies: True finds near copies in train and valid; False finds none; or a table of
                `kft.exploration.near_copies`.

        Returns:
            The copies.

        Raises:
            TypeError: `copies` is neither a table nor True or False.
            ValueError: The table is not one of near copies of this split.
        """
        records = len(data.splits[split])
        if isinstance(copies, pd.DataFrame):
            return cls(_checked(copies, records, split), records, split, _note(copies))
        if not check_flag("copies", copies):
            return cls(pd.DataFrame(), records, split)
        known = _FOUND.setdefault(data, {})
        if split not in known:
            known[split] = cls._found(data, split)
        return known[split]

    @classmethod
    def _found(cls, data: Dataset, split: str) -> Copies:
        others = [name for name in ("train", "valid") if name in data.splits]
        others = others[: others.index(split)] if split in others else others
        tested, records, tables = data.splits[split], len(data.splits[split]), []
        try:
            for name in others:
                tables.append(near_copies(data.splits[name], tested).assign(split=name))
        except ImportError as error:
            return cls(pd.DataFrame(), records, split, f"Near copies were not searched: {error}")
        if not tables:
            return cls(pd.DataFrame(), records, split)
        table = pd.concat(tables, ignore_index=True).drop_duplicates("test", ignore_index=True)
        note = next((note for one in tables if (note := _note(one))), "") if len(table) else ""
        return cls(table, records, split, note)

    def __len__(self) -> int:
        return len(set(self.table["test"])) if len(self.table) else 0

    @property
    def kept(self) -> np.ndarray:
        """Booleans (N,), the records without near copies."""
        kept = np.ones(self.records, dtype=bool)
        if len(self.table):
            kept[self.table["test"].to_numpy()] = False
        return kept

    def __str__(self) -> str:
        return (
            f"the {len(self):,} of {self.records:,} {self.split} records that have a near copy in "
            "training"
        )


def _note(table: pd.DataFrame) -> str:
    return str(table.attrs.get("note", ""))


def _checked(table: pd.DataFrame, records: int, split: str) -> pd.DataFrame:
    rows = table["test"].to_numpy() if "test" in table else np.array([-1])
    if len(rows) and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= records):
        raise ValueError(
            "copies must be a table from kft.exploration.near_copies, whose column test has "
            f"positions from 0 to {records - 1} of the {split} split, received the columns "
            f"{', '.join(map(str, table.columns))}"
            + (f" and positions from {rows.min()} to {rows.max()}." if "test" in table else ".")
        )
    return table

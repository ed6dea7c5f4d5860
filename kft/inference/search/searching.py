"""Search a database for the records that are most similar to queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from kft.arguments import check_integer
from kft.inference.embedding import stream_of
from kft.inference.search.building import build_index, check_backbone, embedded, load_index
from kft.inference.search.index import Index
from kft.messages import harmless, listed
from kft.params.paths import check_model

SHOWN = 20  # rows that are printed


@dataclass(frozen=True)
class Hits:
    """The records of a database that are most similar to queries.

    Attributes:
        table: DataFrame with k rows per query, in the order of the queries: `query` and `hit`, the
            names; `rank`, from 1; `similarity`, a cosine from -1 to 1; `same`, whether both inputs
            are equal; `query_record` and `hit_record`, positions from 0.
        index: What was searched.
    """

    table: pd.DataFrame = field(repr=False)
    index: Index

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        shown = self.table.iloc[:SHOWN, :5].map(lambda x: harmless(x) if isinstance(x, str) else x)
        more = f"\n... {len(self) - SHOWN:,} more hits" if len(self) > SHOWN else ""
        return shown.to_string(index=False, float_format="{:.3f}".format) + more

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def of(self, query: str) -> pd.DataFrame:
        """Return the hits of one query.

        Args:
            query: Its name.

        Raises:
            ValueError: There is no such query.
        """
        rows = self.table[self.table["query"] == query]
        if not len(rows):
            known = listed(self.table["query"].unique())
            raise ValueError(f"query must be one of {known}; received {query!r}.")
        return rows


def search(
    backbone: keras.Model,
    queries: Any,
    database: Any,
    k: int | None = None,
    *,
    batch_size: int = 32,
    column: str | None = None,
    skip_invalid: bool = False,
) -> Hits:
    """Find the records of a database whose embeddings are most similar to those of queries.

    Args:
        backbone: A kft backbone, or a `kft.Model`, whose backbone is taken.
        queries: As the inputs of `kft.embed`: a list, a DataFrame, a table or a FASTA file of any
            size. A record that is in the database too finds itself, see `same`.
        database: The same, or an `Index` of `kft.build_index` or its folder, which is embedded
            once for many searches and may have other settings.
        k: Number of hits of each query; None finds ten, or as many records as the database has.
        batch_size: As for `kft.predict`.
        column: Column of the inputs, of both tables; None finds it.
        skip_invalid: As for `kft.predict`, of both.

    Returns:
        `Hits`, which prints as a table; `Hits.table` is a DataFrame.

    Raises:
        ValueError: A record is invalid, the database is empty or has fewer than k records, or an
            index is damaged or was built with another backbone.
        TypeError: A record is of another kind than the backbone takes.
        FileNotFoundError: There is no such file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> hits = kft.search(backbone, ["MKTAYI"], ["GSS", "MKTAYI", "WWP"], k=1)
        >>> hits.table[["query", "hit", "same"]].values.tolist()
        [['queries[0]', 'database[1]', True]]
    """
    check_model(backbone, "backbone")
    backbone = getattr(backbone, "backbone", backbone)
    if k is not None:
        check_integer("k", k)
    options: dict[str, Any] = {"batch_size": batch_size, "column": column}
    options["skip_invalid"] = skip_invalid
    in_folder = isinstance(database, str | Path) and Path(database).is_dir()
    if in_folder or isinstance(database, Index):
        index = load_index(database) if in_folder else database
        check_backbone(index, backbone)
    else:
        index = build_index(backbone, database, **options)
    k = min(10, len(index)) if k is None else k
    if k > len(index):
        raise ValueError(f"k must be at most {len(index)}, the records of database, received {k}.")
    settings = index.about["settings"]
    given = (queries, batch_size, settings["max_length"], column, skip_invalid)
    layers = (settings["layer"],)
    stream = stream_of(backbone, settings["pooling"], layers, False, given, False, "queries")
    tables: list[pd.DataFrame] = []
    for names, digests, vectors in embedded(stream):
        at, similarities = index.nearest(index.space.apply(vectors), k)
        first = sum(map(len, tables)) // k
        columns = {
            "query": np.repeat(np.array(names, dtype=object), k),
            "rank": np.tile(np.arange(1, k + 1), len(names)),
            "hit": [index.names[i] for i in at.ravel()],
            "similarity": similarities.ravel(),
            "same": np.repeat(digests, k) == index.digests[at.ravel()],
            "query_record": np.repeat(np.arange(first, first + len(names)), k),
            "hit_record": at.ravel(),
        }
        tables.append(pd.DataFrame(columns))
    return Hits(pd.concat(tables, ignore_index=True), index)

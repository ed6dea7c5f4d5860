"""The embeddings of a database, and what is near to what among them.

Up to `EXACT_UP_TO` records all are compared; of more, a graph of neighbours (HNSW, Malkov and
Yashunin 2018, arXiv:1603.09320) is walked, which finds nearly all of the nearest ones in a fraction
of the time. Similarities are cosines, in both cases computed from the vectors themselves.

Shapes: `N` records of the database, `Q` queries, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from kft.arguments import check_choice, check_integer, check_number_above, check_seed
from kft.inference.search.space import Space
from kft.messages import progress

EXACT_UP_TO = 100_000
INSTALL = 'pip install "kft[search]"'
AT_ONCE = 1000  # queries, and vectors that are added, between which Ctrl-C is obeyed
CONNECTIVITY, WHILE_BUILDING, WHILE_SEARCHING = (
    16,
    128,
    128,
)  # neighbours in the graph, and looked at


@dataclass(frozen=True)
class Index:
    """A database that can be searched; made by `kft.build_index`.

    Attributes:
        names: N names of the records.
        vectors: float32 array (N, D), their embeddings in `space`, of length 1.
        digests: uint64 array (N,), equal where the inputs are equal.
        space: What is done to embeddings before they are compared.
        about: Plain values: the backbone and the database, with digests, and the settings.
        graph: `usearch.index.Index` of the vectors; None compares all.
    """

    names: list[str] = field(repr=False)
    vectors: np.ndarray = field(repr=False)
    digests: np.ndarray = field(repr=False)
    space: Space = field(repr=False)
    about: dict[str, Any]
    graph: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def nearest(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest records of some vectors.

        Args:
            vectors: float32 array (Q, D) in `space`.
            k: Number of records.

        Returns:
            int array (Q, k), positions of the records, the most similar first; and their
            similarities, float32 (Q, k).

        Raises:
            ValueError: `k` is above the number of records.
        """
        k = check_integer("k", k, 1, len(self))
        parts = [
            self._nearest(vectors[i : i + AT_ONCE], k) for i in range(0, len(vectors), AT_ONCE)
        ]
        at, similarities = zip(*parts, strict=True)
        return np.concatenate(at), np.concatenate(similarities)

    def _nearest(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.graph is None:
            at = self._exact.kneighbors(vectors, k, return_distance=False)
        else:
            # More than k are looked for, or the graph misses some of the last ones.
            self.graph.expansion_search = max(WHILE_SEARCHING, 2 * k)
            at = self.graph.search(vectors, k).keys.reshape(len(vectors), k).astype("int64")
        similarities = np.einsum("qd,qkd->qk", vectors, self.vectors[at])
        order = np.lexsort((at, -similarities))
        return np.take_along_axis(at, order, 1), np.take_along_axis(similarities, order, 1)

    @cached_property
    def _exact(self) -> NearestNeighbors:
        # Of vectors of length 1 the nearest are the most similar.
        return NearestNeighbors(algorithm="brute").fit(self.vectors)

    def duplicates(self) -> pd.DataFrame:
        """List the records whose inputs are equal, whatever the case and gaps of sequences.

        Returns:
            DataFrame with a row per record that occurs more than once: `group` (from 0), `record`
            (position from 0) and `name`.
        """
        table = pd.DataFrame(
            {"group": self.digests, "record": range(len(self)), "name": self.names}
        )
        table = table[table.group.duplicated(keep=False)]
        table = table.assign(group=pd.factorize(table.group)[0])
        return table.sort_values(["group", "record"]).reset_index(drop=True)

    def clusters(self, least: float = 0.9, neighbours: int = 10) -> pd.DataFrame:
        """Join records that are similar into clusters, also through others (single linkage).

        Args:
            least: Similarity from which two records are joined, above -1.
            neighbours: Number of nearest records with which each is compared. Two records that are
                not among each other's are joined through those in between.

        Returns:
            DataFrame with a row per record, in their order: `record`, `name`, `cluster` (from 0,
            the largest first) and `size`.

        Raises:
            ValueError: An argument is out of range.
        """
        check_number_above("least", least, -1)
        count = len(self)
        k = min(check_integer("neighbours", neighbours) + 1, count)
        rows, columns = [], []
        for start, at, similarities in self._neighbourhoods(k):
            here, place = np.nonzero(similarities >= least)
            rows.append(here + start)
            columns.append(at[here, place])
        ends = np.concatenate(rows), np.concatenate(columns)
        graph = coo_array((np.ones(len(ends[0]), dtype="int8"), ends), shape=(count, count))
        _, labels = connected_components(graph, directed=False)
        sizes = np.bincount(labels)
        rank = np.empty_like(sizes)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        columns_of = {"record": range(count), "name": self.names}
        return pd.DataFrame({**columns_of, "cluster": rank[labels], "size": sizes[labels]})

    def _neighbourhoods(self, k: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the first record of some, and the nearest of each, with their similarities."""
        with progress() as bar:
            task = bar.add_task("clusters", total=len(self))
            for start in range(0, len(self), AT_ONCE):
                some = self.vectors[start : start + AT_ONCE]
                yield start, *self._nearest(some, k)
                bar.advance(task, len(some))

    def map(self, method: Literal["pca", "umap"] = "pca", seed: int = 0) -> pd.DataFrame:
        """Lay the records out in a plane; `kft.plots.plot_map` draws the result.

        Args:
            method: "pca" for the two directions of largest variance, "umap" for neighbourhoods
                (McInnes et al. 2018, arXiv:1802.03426), which needs the package umap-learn.
            seed: Seed of UMAP.

        Returns:
            DataFrame with a row per record: `name`, `x` and `y`. `attrs["method"]` says how it was
            made, with the variance that a PCA shows.

        Raises:
            ValueError: There is no such method, or there are fewer than three records.
            ModuleNotFoundError: umap-learn is not installed.
        """
        check_choice("method", method, ("pca", "umap"))
        check_seed("seed", seed)
        if len(self) < 3:
            raise ValueError(f"a map needs at least 3 records, and the index has {len(self)}.")
        if method == "pca":
            model = PCA(2, svd_solver="covariance_eigh")
            places = model.fit_transform(self.vectors)
            x, y = model.explained_variance_ratio_
            how = f"PCA; the axes show {x:.0%} and {y:.0%} of the variance"
        else:
            places = _umap().UMAP(metric="cosine", random_state=seed).fit_transform(self.vectors)
            how = "UMAP of cosines; distances between groups have no meaning"
        table = pd.DataFrame({"name": self.names, "x": places[:, 0], "y": places[:, 1]})
        table.attrs = {"method": how}
        return table


def graph_of(vectors: np.ndarray) -> Any:
    """Build the graph of neighbours, with all cores.

    With several cores vectors are added in an order that chance decides, so that two graphs of the
    same vectors may miss different ones of the last hits.

    Args:
        vectors: float32 array (N, D).

    Returns:
        `usearch.index.Index`.

    Raises:
        ModuleNotFoundError: usearch is not installed.
    """
    graph = usearch().Index(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=CONNECTIVITY,
        expansion_add=WHILE_BUILDING,
        expansion_search=WHILE_SEARCHING,
    )
    with progress() as bar:
        task = bar.add_task("graph of neighbours", total=len(vectors))
        for start in range(0, len(vectors), AT_ONCE):
            some = np.ascontiguousarray(vectors[start : start + AT_ONCE])
            graph.add(np.arange(start, start + len(some)), some)
            bar.advance(task, len(some))
    return graph


def usearch() -> Any:
    """Import usearch; raise an error with the command that installs it.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        import usearch.index
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"searching more than {EXACT_UP_TO:,} records without comparing all needs usearch: "
            f"{INSTALL}, or set exact=True."
        ) from error
    return usearch.index


def _umap() -> Any:
    try:
        import umap
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'method="umap" needs umap-learn: pip install umap-learn, or take method="pca".'
        ) from error
    return umap

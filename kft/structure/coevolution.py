"""Co-evolution: pairs of columns of an alignment that change together.

Residues that touch each other constrain each other: where one changes, the other often changes too.
`mutual_information` measures how much two columns tell about each other; `direct_couplings` also
removes what they tell about each other only through third columns.

References: weights of sequences and mean-field couplings, Morcos et al. 2011, PNAS 108:E1293;
average product correction, Dunn et al. 2008, Bioinformatics 24:333; norm of the couplings without
the gap, Ekeberg et al. 2013, Phys. Rev. E 87:012707.

Differences from the references: couplings are scored by their norm, corrected by the average
product, where Morcos et al. use the direct information.

Shapes: `M` sequences, `N` columns, `A` = 21 letters (20 residues and the gap).
"""

from __future__ import annotations

import numpy as np
import psutil

from kft.arguments import check_fraction
from kft.data.proteins.alignments import GAP, RESIDUES, Alignment
from kft.messages import count_of

LETTERS = len(RESIDUES) + 1
BLOCK = 512  # sequences that are compared with all others at a time


def sequence_weights(alignment: Alignment, identity: float = 0.8) -> np.ndarray:
    """Weight each sequence by one over the number of sequences that are similar to it.

    Args:
        alignment: Alignment of M sequences.
        identity: Fraction of equal columns from which two sequences are similar, gaps included;
            from 0 to below 1.

    Returns:
        float64 array (M,), from 1 / M to 1. The sum is the effective number of sequences.

    Source: Morcos et al. 2011.

    Example:
        >>> sequence_weights(Alignment(("a", "b", "c"), ("MKTAY", "MKTAY", "GSSVV")))
        array([0.5, 0.5, 1. ])
    """
    needed = check_fraction("identity", identity) * alignment.columns
    one_hot = _one_hot(alignment).reshape(len(alignment), -1)
    similar = [
        (one_hot[start : start + BLOCK] @ one_hot.T >= needed).sum(axis=1)
        for start in range(0, len(alignment), BLOCK)
    ]
    return 1.0 / np.concatenate(similar)


def mutual_information(
    alignment: Alignment, identity: float = 0.8, pseudocount: float = 0.0, corrected: bool = True
) -> np.ndarray:
    """Compute the mutual information of each pair of columns.

    Args:
        alignment: Alignment whose query has no gaps.
        identity: As in `sequence_weights`.
        pseudocount: Fraction of the frequencies that is spread evenly over all letters.
        corrected: Whether the average product is subtracted.

    Returns:
        float64 array (N, N), symmetric, in nats; the diagonal is 0.

    Raises:
        ValueError: The query has gaps.

    Example:
        >>> rows = ("MKT", "MRT", "GKS", "GRS")
        >>> values = mutual_information(Alignment(tuple("abcd"), rows), corrected=False)
        >>> values.round(2).tolist()  # the first column tells the third
        [[0.0, 0.0, 0.69], [0.0, 0.0, 0.0], [0.69, 0.0, 0.0]]
    """
    single, pairs = _frequencies(alignment, identity, check_fraction("pseudocount", pseudocount))
    expected = single[:, :, None, None] * single[None, None]  # (N, A, N, A)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(pairs > 0, pairs * np.log(pairs / expected), 0.0)
    values = terms.sum(axis=(1, 3))
    np.fill_diagonal(values, 0.0)
    return average_product_correction(values) if corrected else values


def direct_couplings(
    alignment: Alignment, identity: float = 0.8, pseudocount: float = 0.5, corrected: bool = True
) -> np.ndarray:
    """Compute the strength of the direct coupling of each pair of columns, in mean field.

    The couplings are minus the inverse of the covariance of the letters. The strength is their
    Frobenius norm over the 20 residues, after each coupling has been shifted to a sum of zero over
    either letter.

    Args:
        alignment: Alignment whose query has no gaps. Some hundred different sequences are needed.
        identity: As in `sequence_weights`.
        pseudocount: Fraction of the frequencies that is spread evenly over all letters; above 0,
            since the covariance can be inverted only then.
        corrected: Whether the average product is subtracted.

    Returns:
        float64 array (N, N), symmetric; the diagonal is 0.

    Raises:
        MemoryError: The covariance of 20 N letters does not fit in memory.
        ValueError: The query has gaps, or `pseudocount` is 0.

    Source: Morcos et al. 2011, equations 3 to 9.

    Example:
        >>> rows = ("MKT", "MRT", "GKS", "GRS")
        >>> values = direct_couplings(Alignment(tuple("abcd"), rows), corrected=False)
        >>> bool(values[0, 2] > 1.5 * values[0, 1])
        True
    """
    columns, states = alignment.columns, LETTERS - 1
    if check_fraction("pseudocount", pseudocount) == 0:
        raise ValueError("pseudocount must be above 0 for direct couplings, received 0.")
    needed = 4 * 8 * (LETTERS * columns) ** 2
    if needed > psutil.virtual_memory().available:
        raise MemoryError(
            f"direct couplings of {columns:,} columns need {needed / 1e9:.1f} GB of memory, and "
            f"{psutil.virtual_memory().available / 1e9:.1f} GB are free; give fewer columns, for "
            "example one domain, or use mutual_information."
        )
    single, pairs = _frequencies(alignment, identity, pseudocount)
    covariance = pairs - single[:, :, None, None] * single[None, None]
    # The gap is the last letter, and follows from the others.
    size = columns * states
    inverse = np.linalg.inv(covariance[:, :states, :, :states].reshape(size, size))
    couplings = np.zeros((columns, LETTERS, columns, LETTERS))
    couplings[:, :states, :, :states] = -inverse.reshape(columns, states, columns, states)
    couplings -= couplings.mean(axis=1, keepdims=True)
    couplings -= couplings.mean(axis=3, keepdims=True)
    values = np.sqrt(np.square(couplings[:, :states, :, :states]).sum(axis=(1, 3)))
    values = (values + values.T) / 2  # equal but for rounding
    np.fill_diagonal(values, 0.0)
    return average_product_correction(values) if corrected else values


def average_product_correction(values: np.ndarray) -> np.ndarray:
    """Subtract from each pair what its two columns share with all others.

    Args:
        values: Floats (N, N), symmetric; the diagonal is not read.

    Returns:
        float64 array (N, N), with the diagonal 0.

    Source: Dunn et al. 2008, equation 3.

    Example:
        >>> average_product_correction(np.ones((3, 3))).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    values = np.array(values, dtype="float64")
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"values must have the shape (N, N), received {values.shape}.")
    np.fill_diagonal(values, 0.0)
    others = max(len(values) - 1, 1)
    means = values.sum(axis=1) / others
    overall = means.mean()
    if overall:
        values -= np.outer(means, means) / overall
    np.fill_diagonal(values, 0.0)
    return values


def _one_hot(alignment: Alignment) -> np.ndarray:
    """Return the letters as float32 (M, N, A); float32 counts exactly up to 2**24."""
    return np.eye(LETTERS, dtype="float32")[alignment.letters]


def _frequencies(
    alignment: Alignment, identity: float, pseudocount: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted frequencies of letters (N, A) and of pairs of letters (N, A, N, A)."""
    gaps = alignment.rows[0].count(GAP)
    if gaps:
        raise ValueError(
            f"the query {alignment.names[0]!r} has {count_of(gaps, 'gap')}, so columns are "
            "not its residues; use alignment.to_query()."
        )
    weights = sequence_weights(alignment, identity)
    shares = weights / weights.sum()
    columns = alignment.columns
    flat = _one_hot(alignment).reshape(len(alignment), -1).astype("float64")
    single = (shares @ flat).reshape(columns, LETTERS)
    pairs = ((flat * shares[:, None]).T @ flat).reshape(columns, LETTERS, columns, LETTERS)
    single = (1 - pseudocount) * single + pseudocount / LETTERS
    pairs = (1 - pseudocount) * pairs + pseudocount / LETTERS**2
    for column in range(columns):  # a column is one letter at a time
        pairs[column, :, column] = np.diag(single[column])
    return single, pairs

"""Scores of mutants without any labels: the published methods.

x is the wild type, y the mutant, T the positions at which they differ; p(a at t | z) is the
probability that the model gives to residue a at position t, shown z; z \\ t is z with "<mask>" at
t, and z \\ T with "<mask>" at all of T. A higher score is likelier than the wild type.

| method | score |
|---|---|
| wild_type_marginal | sum over t in T of log p(y_t at t given x) - log p(x_t at t given x) |
| masked_marginal | the same given x \\ t: one site at a time, as ProteinGym sums them |
| joint_masked_marginal | the same given x \\ T: all sites hidden together |
| mutant_marginal | the same given y |
| pseudo_log_likelihood | PLL(y) - PLL(x), PLL(z) = sum over all i of log p(z_i at i given z \\ i) |
| pseudo_perplexity | PPL(x) - PPL(y), PPL(z) = exp(-PLL(z) / number of residues of z) |
| one_pass_pseudo_perplexity | the same, with p given z \\ i estimated from p given z |

Sources: Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations
on protein function" (equation 1 is `joint_masked_marginal`); Notin et al. 2023, ProteinGym; Salazar
et al. 2020, "Masked language model scoring"; Gordon, Lu and Abbeel 2024, "Protein language model
fitness is a matter of preference", for the idea of one pass.

Differences from the reference: the published script for pseudo-perplexity reads the probability of
the residue one place to the right of the mask, and leaves out the two last; here it is that of
the hidden residue, of all. The estimate of `one_pass_pseudo_perplexity` is Bayes' rule
for the masks of the training, without the constants that other authors fit; nor is it the trained
projection of Kantroo et al. 2024 (arXiv 2407.07265), which a published checkpoint does not have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kft.inference.mutations.numbering import Mutant
from kft.inference.mutations.passes import (
    Pass,
    log_probabilities,
    one_masked,
    overlapping_windows,
    unmasked,
    window_of,
    window_weights,
)
from kft.training.pretraining import AS_ANOTHER, AS_MASK, STANDARD, Vocabulary


class Protein(NamedTuple):
    """A wild type and what its mutants are scored with.

    Attributes:
        backbone: An ESM-2 or ESM-C.
        vocabulary: Its tokens.
        ids: Token -> id.
        token_ids: int32 array (L,), the wild type with <cls> and <eos>.
        before: Number of tokens before the first residue.
        after: Number of tokens behind the last residue.
        window: Most tokens of a pass; None for all.
        tokens: Tokens of a batch.
        overlapping: Whether a long protein is read in overlapping windows.
    """

    backbone: keras.Model
    vocabulary: Vocabulary
    ids: dict[str, int]
    token_ids: np.ndarray
    before: int
    after: int
    window: int | None
    tokens: int
    overlapping: bool = False

    def residues(self, token_ids: np.ndarray) -> range:
        """Return the positions of the residues among tokens.

        Args:
            token_ids: int32 array (L,).
        """
        return range(self.before, len(token_ids) - self.after)

    def tokens_of(self, mutant: Mutant) -> np.ndarray:
        """Return the tokens of a mutant, int32 array (L,).

        Args:
            mutant: A mutant of this protein.
        """
        ids = self.ids
        if mutant.sites is None:
            sequence = np.array([ids[x] for x in mutant.sequence or ""], dtype="int32")
            ends = self.token_ids[: self.before], self.token_ids[len(self.token_ids) - self.after :]
            return np.concatenate([ends[0], sequence, ends[1]])
        row = self.token_ids.copy()
        for site, residue in mutant.sites:
            row[self.before + site] = ids[residue]
        return row

    def span(self, mutant: Mutant) -> tuple[int, int] | None:
        """Return the window of tokens that holds all sites of a mutant; None if none does.

        Args:
            mutant: A mutant with replaced residues alone.
        """
        at = [site + self.before for site, _ in mutant.sites or ()]
        if not at:
            return 0, len(self.token_ids)
        middle = (min(at) + max(at) + 1) // 2
        start, end = window_of(middle, len(self.token_ids), self.window)
        return (start, end) if start <= min(at) and max(at) < end else None

    def length_of(self, mutant: Mutant) -> int:
        """Return the number of residues of a mutant.

        Args:
            mutant: A mutant of this protein.
        """
        wild_type = len(self.residues(self.token_ids))
        return wild_type if mutant.sequence is None else len(mutant.sequence)


WILD_TYPE = Mutant((), None, 0)


def _gain(log: np.ndarray, mutant: int, wild_type: int) -> float:
    return float(log[mutant]) - float(log[wild_type])


def _by_site(protein: Protein, mutants: Sequence[Mutant], masked: bool) -> np.ndarray:
    """Sum over sites what the wild type says of each, hidden alone or not hidden."""
    at = sorted({site + protein.before for mutant in mutants for site, _ in mutant.sites or ()})
    row, ids = protein.token_ids, protein.ids
    if protein.overlapping and len(row) > (protein.window or len(row)):
        table = _blended(protein, at)
    else:
        if masked:
            hide = protein.vocabulary.mask
            shown = [([t], one_masked(row, t, hide, protein.window)) for t in at]
        else:
            shown = list(unmasked(row, at, protein.window))
        table = {t: log for t, log, _ in _read(protein, shown)}
    scores = np.zeros(len(mutants))
    for i, mutant in enumerate(mutants):
        for site, residue in mutant.sites or ():
            t = site + protein.before
            scores[i] += _gain(table[t], ids[residue], row[t])
    return scores


def _read(
    protein: Protein, shown: Sequence[tuple[list[int], Pass]]
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield position, log-probabilities and place within the pass of all that passes read."""
    passes = (one for _, one in shown)
    found = log_probabilities(protein.backbone, passes, protein.tokens, len(shown))
    for (positions, one), logs in zip(shown, found, strict=True):
        yield from zip(positions, logs, one.at.tolist(), strict=True)


def _blended(protein: Protein, at: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the weighted means of log-probabilities over the windows that hold each position."""
    row, window = protein.token_ids, protein.window or len(protein.token_ids)
    shown = []
    for start in overlapping_windows(len(row), window):
        inside = [t for t in at if start <= t < start + window]
        if inside:
            shown.append((inside, Pass(row[start : start + window], np.array(inside) - start)))
    weights = window_weights(window)
    sums: dict[int, Any] = dict.fromkeys(at, 0.0)
    total = dict.fromkeys(at, 0.0)
    for t, log, place in _read(protein, shown):
        sums[t] = sums[t] + weights[place] * log
        total[t] += weights[place]
    return {t: sums[t] / total[t] for t in at}


def wild_type_marginal(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by one pass of the wild type.

    Args:
        protein: The wild type.
        mutants: Mutants with replaced residues alone.

    Returns:
        Float array (mutants,).
    """
    return _by_site(protein, mutants, masked=False)


def masked_marginal(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by a pass for each site, which is hidden.

    Args:
        protein: The wild type.
        mutants: Mutants with replaced residues alone.

    Returns:
        Float array (mutants,).
    """
    return _by_site(protein, mutants, masked=True)


def joint_masked_marginal(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by a pass for each set of sites, which are all hidden.

    Args:
        protein: The wild type.
        mutants: Mutants with replaced residues alone, whose `Protein.span` is not None.

    Returns:
        Float array (mutants,).
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, mutant in enumerate(mutants):
        groups.setdefault(tuple(site for site, _ in mutant.sites or ()), []).append(i)
    groups.pop((), None)  # the wild type, whose score is 0
    row, ids = protein.token_ids, protein.ids

    def passes() -> Iterator[Pass]:
        for sites, members in groups.items():
            start, end = protein.span(mutants[members[0]]) or (0, len(row))
            at = np.array(sites) + protein.before - start
            shown = row[start:end].copy()
            shown[at] = protein.vocabulary.mask
            yield Pass(shown, at)

    scores = np.zeros(len(mutants))
    found = log_probabilities(protein.backbone, passes(), protein.tokens, len(groups))
    for members, logs in zip(groups.values(), found, strict=True):
        for i in members:
            for (site, residue), log in zip(mutants[i].sites or (), logs, strict=True):
                scores[i] += _gain(log, ids[residue], row[site + protein.before])
    return scores


def mutant_marginal(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by a pass of each.

    Args:
        protein: The wild type.
        mutants: Mutants with replaced residues alone.

    Returns:
        Float array (mutants,).
    """
    shown: deque[tuple[int, list[int]]] = deque()  # what is read of the passes on their way

    def passes() -> Iterator[Pass]:
        for i, mutant in enumerate(mutants):
            at = [site + protein.before for site, _ in mutant.sites or ()]
            for positions, one in unmasked(protein.tokens_of(mutant), at, protein.window):
                shown.append((i, positions))
                yield one

    scores, ids = np.zeros(len(mutants)), protein.ids
    for logs in log_probabilities(protein.backbone, passes(), protein.tokens):
        i, positions = shown.popleft()
        residues = dict(mutants[i].sites or ())
        for t, log in zip(positions, logs, strict=True):
            scores[i] += _gain(log, ids[residues[t - protein.before]], protein.token_ids[t])
    return scores


def pseudo_log_likelihood(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by a pass for each of their residues, which is hidden.

    Args:
        protein: The wild type.
        mutants: Mutants, also with insertions and deletions.

    Returns:
        Float array (mutants,).
    """
    likelihoods, _ = _pseudo_log_likelihoods(protein, mutants)
    return likelihoods[1:] - likelihoods[0]


def pseudo_perplexity(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by how much lower their pseudo-perplexity is than that of the wild type.

    Args:
        protein: The wild type.
        mutants: Mutants, also with insertions and deletions.

    Returns:
        Float array (mutants,).
    """
    likelihoods, lengths = _pseudo_log_likelihoods(protein, mutants)
    perplexities = np.exp(-likelihoods / lengths)
    return perplexities[0] - perplexities[1:]


def _pseudo_log_likelihoods(
    protein: Protein, mutants: Sequence[Mutant]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over residues of the wild type and of each mutant, and their numbers."""
    everyone = [WILD_TYPE, *mutants]
    lengths = np.array([protein.length_of(mutant) for mutant in everyone])
    hidden: deque[tuple[int, int]] = deque()  # mutant and token of the passes on their way

    def passes() -> Iterator[Pass]:
        for i, mutant in enumerate(everyone):
            row = protein.tokens_of(mutant)
            for t in protein.residues(row):
                hidden.append((i, int(row[t])))
                yield one_masked(row, t, protein.vocabulary.mask, protein.window)

    sums = np.zeros(len(everyone))
    for log in log_probabilities(protein.backbone, passes(), protein.tokens, int(lengths.sum())):
        i, token = hidden.popleft()
        sums[i] += float(log[0, token])
    return sums, lengths


def one_pass_pseudo_perplexity(protein: Protein, mutants: Sequence[Mutant]) -> np.ndarray:
    """Score mutants by pseudo-perplexities that are estimated from one pass of each.

    A residue that the model sees was left as it is, or is one of K = 20 drawn at random, as often
    as in the training: with rates a and b, and the probability p of the hidden residue, the model
    gives it q = p (a + b / K) / (a p + b / K). This is solved for p. A protein longer than the
    window takes a pass for every half of a window.

    Args:
        protein: The wild type.
        mutants: Mutants, also with insertions and deletions.

    Returns:
        Float array (mutants,).
    """
    everyone = [WILD_TYPE, *mutants]
    step = max(1, (protein.window or 2) // 2)
    read: deque[tuple[int, np.ndarray]] = deque()

    def passes() -> Iterator[Pass]:
        for i, mutant in enumerate(everyone):
            row = protein.tokens_of(mutant)
            for positions, one in unmasked(row, protein.residues(row), protein.window, step):
                read.append((i, row[positions]))
                yield one

    sums = np.zeros(len(everyone))
    for logs in log_probabilities(protein.backbone, passes(), protein.tokens):
        i, residues = read.popleft()
        sums[i] += hidden_log_probability(logs[np.arange(len(residues)), residues]).sum()
    lengths = np.array([protein.length_of(mutant) for mutant in everyone])
    perplexities = np.exp(-sums / lengths)
    return perplexities[0] - perplexities[1:]


def hidden_log_probability(log: np.ndarray) -> np.ndarray:
    """Estimate the log-probability of a residue, were it hidden, from that of the shown one.

    Args:
        log: Float array of log-probabilities of the residues that the model is shown.

    Returns:
        Float64 array.

    Example:
        >>> hidden_log_probability(np.array([0.0, -1.0])).round(3).tolist()
        [0.0, -3.613]
    """
    as_it_is, another = 1 - AS_MASK - AS_ANOTHER, AS_ANOTHER / len(STANDARD)
    log = np.asarray(log, dtype="float64")
    return log + np.log(another) - np.log(as_it_is * -np.expm1(log) + another)


Method = Callable[[Protein, Sequence[Mutant]], np.ndarray]
METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        masked_marginal,
        joint_masked_marginal,
        wild_type_marginal,
        mutant_marginal,
        pseudo_log_likelihood,
        pseudo_perplexity,
        one_pass_pseudo_perplexity,
    )
}
OF_SEQUENCES = ("pseudo_log_likelihood", "pseudo_perplexity", "one_pass_pseudo_perplexity")

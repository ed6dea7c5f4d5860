"""Zero-shot predictions of a language model: hidden residues, and how often they are right.

The objective and its <mask> are those of `kft.pretraining`; a score is the mean over all <mask> of
all proteins, with an interval over proteins.

Shapes: `N` proteins, `L` tokens, `K` tokens of the alphabet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.special import log_softmax, softmax

from kft.arguments import check_integer, check_optional_integer
from kft.data.inputs import encoder_info
from kft.data.sequences import changes, warn_of_changes
from kft.evaluation.metrics import Interval, interval
from kft.programs import kept_programs
from kft.training.batching import most_tokens, silent_cuts
from kft.training.lengths import padded_length
from kft.training.pretraining import encoded, hide, language_model, vocabulary_of


@dataclass(frozen=True)
class MaskedScore:
    """How well hidden residues of proteins are predicted.

    Attributes:
        perplexity: With its interval over resampled proteins.
        accuracy: With its interval over resampled proteins.
        masked: Number of <mask> that were scored.
    """

    perplexity: Interval
    accuracy: Interval
    masked: int


class Gap(NamedTuple):
    """What a model predicts in the place of one <mask>.

    Attributes:
        position: Position of the residue, from 1.
        residues: The most likely ones, the best first.
        probabilities: Their probabilities among the 20 standard residues.
    """

    position: int
    residues: tuple[str, ...]
    probabilities: tuple[float, ...]


def fill(
    backbone: Any, sequences: Sequence[str], *, top: int = 3, tokens: int | None = None
) -> list[list[Gap]]:
    """Predict the residues of proteins at each "<mask>".

    Args:
        backbone: An ESM-2 or ESM-C whose `masked_lm` was trained.
        sequences: List of strings, with "<mask>" in the place of residues that are not known.
        top: Number of residues to return for each.
        tokens: Tokens of a batch, which affect only time and memory; None for 2,048 on a processor
            and 16,384 on a graphics card.

    Returns:
        list: for each protein the list of its `Gap`.

    Raises:
        ValueError: As `backbone.encode`, or if `top` is not in 1 to 20 or `tokens` is below 1.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> [[gap]] = fill(backbone, ["MKT<mask>YI"])
        >>> gap.position, len(gap.residues)
        (4, 3)
    """
    vocab = vocabulary_of(backbone.encode)
    check_integer("top", top, 1, len(vocab.standard))
    check_optional_integer("tokens", tokens, 1)
    rows = [row.astype("int32") for row in encoded(sequences, backbone.encode)]
    before, _ = encoder_info(backbone.encode).specials
    places, gap_lists = [np.flatnonzero(row == vocab.mask) for row in rows], []
    for at, logits in zip(places, logits_at(backbone, rows, places, tokens), strict=True):
        probabilities = softmax(logits[:, vocab.standard], axis=-1)  # (gaps, 20)
        best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
        gaps = [
            Gap(
                position=int(position) - before + 1,
                residues=tuple(vocab.tokens[vocab.standard[k]] for k in ranks),
                probabilities=tuple(float(row_probabilities[k]) for k in ranks),
            )
            for position, row_probabilities, ranks in zip(at, probabilities, best, strict=True)
        ]
        gap_lists.append(gaps)
    return gap_lists


def masked_score(
    backbone: Any,
    sequences: Sequence[str],
    *,
    seed: int = 0,
    crop: int = 1024,
    tokens: int | None = None,
    confidence: float = 0.95,
) -> MaskedScore:
    """Score a backbone at each <mask>, on proteins that it was not trained on.

    Args:
        backbone: An ESM-2 or ESM-C whose `masked_lm` was trained.
        sequences: List of strings.
        seed: Seed of the masks.
        crop: Largest number of tokens of a protein, 8 or more; later ones are left out.
        tokens: Tokens of a batch, which affect only time and memory; None for 2,048 on a processor
            and 16,384 on a graphics card.
        confidence: Confidence of the intervals.

    Returns:
        MaskedScore: perplexity and accuracy.

    Raises:
        ValueError: As `backbone.encode`, or if `seed` is negative, a size is too small, or no
            residue was hidden.
    """
    check_optional_integer("tokens", tokens, 1)
    rows = _hidden(sequences, backbone.encode, seed, crop)
    shown, places = [row.shown for row in rows], [row.at for row in rows]
    logits = logits_at(backbone, shown, places, tokens)
    return _score(rows, [log_softmax(one, axis=-1) for one in logits], confidence)


@kept_programs()
def logits_at(
    backbone: keras.Model,
    rows: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    tokens: int | None = None,
) -> list[np.ndarray]:
    """Compute the logits of some tokens of each row, in batches by length.

    Args:
        backbone: An ESM-2 or ESM-C.
        rows: int32 arrays (L,) of token ids.
        places: int arrays (n,), positions of the tokens in each row.
        tokens: Tokens of a batch, None as for `masked_score`.

    Returns:
        List of float32 arrays (n, K), in the order of the rows.
    """
    model, pad = language_model(backbone), vocabulary_of(backbone.encode).pad
    tokens = tokens or most_tokens()
    results: list[Any] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    alike = len({len(row) for row in rows}) == 1  # then there is one shape without padding, too
    while order:
        longest = len(rows[order[0]])
        length = longest if alike else padded_length(longest)
        size = min(max(1, tokens // length), len(rows))
        chosen, order = order[:size], order[size:]
        token_ids = np.full((size, length), pad, dtype="int32")
        for k in range(size):  # filled up with the first, so that shapes are few
            row = rows[chosen[k] if k < len(chosen) else chosen[0]]
            token_ids[k, : len(row)] = row
        logits = np.asarray(model.predict_on_batch({"token_ids": token_ids}), dtype="float32")
        for row, i in zip(logits, chosen, strict=False):
            results[i] = row[places[i]]  # a copy: the batch is not kept
    return results


def reference_scores(
    sequences: Sequence[str],
    corpus: Sequence[str],
    encode: Callable[..., dict[str, np.ndarray]],
    *,
    seed: int = 0,
    crop: int = 1024,
    confidence: float = 0.95,
) -> dict[str, MaskedScore]:
    """Score predictions made without a network, at the same <mask> as `masked_score`.

    Args:
        sequences: As for `masked_score`.
        corpus: List of strings, whose residues are counted.
        encode: The `encode` of an ESM-2 or ESM-C.
        seed: As for `masked_score`.
        crop: As for `masked_score`.
        confidence: As for `masked_score`.

    Returns:
        dict of MaskedScore: "uniform" over the 20 residues; "residue frequencies" of the corpus;
        and "Markov model", the frequencies between the same two neighbours, both of which it is
        shown, smoothed by the plain frequencies where few were counted.

    Raises:
        ValueError: As for `masked_score`, also for the corpus.
    """
    vocab = vocabulary_of(encode)
    rows, K = _hidden(sequences, encode, seed, crop), len(vocab.tokens)
    triples = np.zeros(K**3)
    for start in range(0, max(len(corpus), 1), 1000):  # none at all is an error of `encoded`
        with silent_cuts():  # changes are reported once, below
            part = encoded(corpus[start : start + 1000], encode, first=start)
        some = [row.astype("int64") for row in part]
        codes = np.concatenate([(row[:-2] * K + row[1:-1]) * K + row[2:] for row in some])
        triples += np.bincount(codes, minlength=K**3)
    warn_of_changes(changes(corpus), len(corpus))
    triples = triples.reshape(K, K, K)[:, vocab.standard]  # (left, residue, right)
    counts = triples.sum(axis=(0, 2)) + 1  # none of the 20 is impossible
    frequencies = counts / counts.sum()
    between = triples + 20 * frequencies[:, None]
    between = np.swapaxes(between / between.sum(axis=1, keepdims=True), 1, 2)  # (left, right, 20)
    methods = {
        "uniform": lambda row: np.full((len(row.at), 20), 1 / 20),
        "residue frequencies": lambda row: np.tile(frequencies, (len(row.at), 1)),
        "Markov model": lambda row: between[row.true[row.at - 1], row.true[row.at + 1]],
    }
    scores = {}
    for name, predicted in methods.items():
        logs = []
        for row in rows:
            log = np.full((len(row.at), K), -np.inf)
            log[:, vocab.standard] = np.log(predicted(row))
            logs.append(log)
        scores[name] = _score(rows, logs, confidence)
    return scores


class _Hidden(NamedTuple):
    """One protein: tokens as shown and as they are, (L,), and the positions of <mask>."""

    shown: np.ndarray
    true: np.ndarray
    at: np.ndarray


def _hidden(sequences: Sequence[str], encode: Callable, seed: int, crop: int) -> list[_Hidden]:
    check_integer("seed", seed, 0)
    check_integer("crop", crop, 8)
    vocab = vocabulary_of(encode)
    hidden = []
    for i, row in enumerate(encoded(sequences, encode)):
        true = row[:crop].astype("int32")
        shown, chosen = hide(true, np.random.default_rng((seed, i)), vocabulary=vocab)
        # The user's own <mask> has no known residue.
        at = np.flatnonzero(chosen & (shown == vocab.mask))
        hidden.append(_Hidden(shown, true, at[at < len(true) - 1]))  # with both neighbours
    return hidden


def _score(
    rows: Sequence[_Hidden], logs: Sequence[np.ndarray], confidence: float, resamples: int = 2000
) -> MaskedScore:
    """Compute sums over each protein, and ratios of their sums over resamples of the proteins."""
    sums = []
    for row, log in zip(rows, logs, strict=True):
        true_residues = np.arange(len(row.at)), row.true[row.at]
        best = log == log.max(axis=-1, keepdims=True)
        hits = best[true_residues] / best.sum(axis=-1)  # ties share the hit
        sums.append([-log[true_residues].sum(), hits.sum(), len(row.at)])
    table, equal = np.array(sums), np.full(len(sums), 1 / len(sums))  # (N, 3), (N,)
    rng, total = np.random.default_rng(0), table.sum(axis=0)
    # One by one: all counts of a large corpus would take gigabytes.
    draws = np.array([rng.multinomial(len(sums), equal) @ table for _ in range(resamples)])
    if not total[2]:
        raise ValueError("No residue is hidden: give more or longer sequences.")
    with np.errstate(invalid="ignore"):  # a draw of proteins without any <mask> is left out
        losses, hits = draws[:, 0] / draws[:, 2], draws[:, 1] / draws[:, 2]
    return MaskedScore(
        interval(float(np.exp(total[0] / total[2])), np.exp(losses), confidence),
        interval(float(total[1] / total[2]), hits, confidence),
        int(total[2]),
    )

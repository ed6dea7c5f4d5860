"""What a language model knows without a label: what it puts in gaps, and how often it is right.

The objective and its <mask> are those of `kft.pretraining`; a score is the mean over all <mask> of
all proteins, with an interval over proteins.

Shapes: `N` proteins, `L` tokens, `K` tokens of the alphabet.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from kft.backbones.esm2.tokens import ALPHABET, MASK, PAD
from kft.data.sequences import changes, warn_of_changes
from kft.evaluation.metrics import Interval, interval
from kft.training.batching import padded_length, silent_cuts
from kft.training.pretraining import STANDARD, encoded, hide, language_model


@dataclass(frozen=True)
class MaskedScore:
    """How well hidden residues of proteins are filled in.

    Attributes:
        perplexity, accuracy: with their intervals, proteins drawn anew.
        masked: how many <mask> were scored.
    """

    perplexity: Interval
    accuracy: Interval
    masked: int


class Gap(NamedTuple):
    """What a model puts in the place of one <mask>.

    Attributes:
        position: of the residue, from 1.
        residues: the most likely ones, the best first.
        probabilities: theirs, among the 20 standard residues.
    """

    position: int
    residues: tuple[str, ...]
    probabilities: tuple[float, ...]


def fill(backbone, sequences, *, top=3, tokens=8192):
    """Fills the gaps of proteins: what may stand where "<mask>" does.

    Args:
        backbone: an ESM-2 whose `masked_lm` was trained.
        sequences: list of strings, with "<mask>" in the place of residues that are not known.
        top: how many residues to name for each.
        tokens: tokens of a batch; changes nothing but time and memory.

    Returns:
        list, for each protein the list of its `Gap`.

    Raises:
        ValueError: as `backbone.encode`, a `top` that is none of 1 to 20, or `tokens` below 1.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> [[gap]] = fill(backbone, ["MKT<mask>YI"])
        >>> gap.position, len(gap.residues)
        (4, 3)
    """
    _check("top", top, 1, len(STANDARD))
    _check("tokens", tokens, 1)
    rows = [row.astype("int32") for row in encoded(sequences, backbone.encode)]
    places, found = [np.flatnonzero(row == MASK) for row in rows], []
    for at, logits in zip(places, _logits(backbone, rows, places, tokens), strict=True):
        shares = softmax(logits[:, STANDARD], axis=-1)  # (gaps, 20)
        best = np.argsort(-shares, axis=-1, kind="stable")[:, :top]
        found.append([
            Gap(int(position), tuple(ALPHABET[STANDARD[k]] for k in ranks),
                tuple(float(share[k]) for k in ranks))
            for position, share, ranks in zip(at, shares, best, strict=True)
        ])  # fmt: skip
    return found


def masked_score(backbone, sequences, *, seed=0, crop=1024, tokens=8192, confidence=0.95):
    """Scores a backbone where <mask> stands, on proteins that it should not have seen.

    Args:
        backbone: an ESM-2 whose `masked_lm` was trained.
        sequences: list of strings.
        seed: of the masks.
        crop: most tokens of a protein, 8 or more; what lies behind is left out.
        tokens: tokens of a batch; changes nothing but time and memory.
        confidence: of the intervals.

    Returns:
        MaskedScore.

    Raises:
        ValueError: as `backbone.encode`, a negative `seed`, sizes that are too small, or not a
            single residue that was hidden.
    """
    _check("tokens", tokens, 1)
    rows = _hidden(sequences, backbone.encode, seed, crop)
    shown, places = [row.shown for row in rows], [row.at for row in rows]
    answers = _logits(backbone, shown, places, tokens)
    return _score(rows, [log_softmax(one, axis=-1) for one in answers], confidence)


def _logits(backbone, rows, places, tokens):
    """Token logits (n, K) at the n places of each row of tokens (L,), in the rows' order."""
    model, found = language_model(backbone), [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    while order:
        length = padded_length(len(rows[order[0]]))
        size = min(max(1, tokens // length), len(rows))
        chosen, order = order[:size], order[size:]
        token_ids = np.full((size, length), PAD, dtype="int32")
        for k in range(size):  # filled up with the first, so that shapes are few
            row = rows[chosen[k] if k < len(chosen) else chosen[0]]
            token_ids[k, : len(row)] = row
        answers = np.asarray(model.predict_on_batch({"token_ids": token_ids}), dtype="float32")
        for answer, i in zip(answers, chosen, strict=False):
            found[i] = answer[places[i]]  # a copy: the batch is not kept
    return found


def reference_scores(sequences, corpus, encode, *, seed=0, crop=1024, confidence=0.95):
    """What is reached without a network, at the same <mask> as by `masked_score`.

    Args:
        sequences, seed, crop, confidence: as for `masked_score`.
        corpus: list of strings, whose residues are counted.
        encode: of an ESM-2 backbone.

    Returns:
        dict of MaskedScore: "uniform" over the 20 residues, "residue frequencies" of the corpus,
        and "Markov model", the frequencies between the same two neighbours, both of which it is
        shown, backed by the plain frequencies where few were counted.

    Raises:
        ValueError: as for `masked_score`, of the corpus, too.
    """
    rows, K = _hidden(sequences, encode, seed, crop), len(ALPHABET)
    triples = np.zeros(K**3)
    for start in range(0, max(len(corpus), 1), 1000):  # none at all is an error of `encoded`
        with silent_cuts():  # changes are said once for all
            part = encoded(corpus[start : start + 1000], encode, first=start)
        some = [row.astype("int64") for row in part]
        codes = np.concatenate([(row[:-2] * K + row[1:-1]) * K + row[2:] for row in some])
        triples += np.bincount(codes, minlength=K**3)
    warn_of_changes(changes(corpus), len(corpus))
    triples = triples.reshape(K, K, K)[:, STANDARD]  # (left, residue, right)
    counts = triples.sum(axis=(0, 2)) + 1  # none of the 20 is impossible
    frequencies = counts / counts.sum()
    between = triples + 20 * frequencies[:, None]
    between = np.swapaxes(between / between.sum(axis=1, keepdims=True), 1, 2)  # (left, right, 20)
    answers = {
        "uniform": lambda row: np.full((len(row.at), 20), 1 / 20),
        "residue frequencies": lambda row: np.tile(frequencies, (len(row.at), 1)),
        "Markov model": lambda row: between[row.whole[row.at - 1], row.whole[row.at + 1]],
    }
    found = {}
    for name, answer in answers.items():
        logs = []
        for row in rows:
            log = np.full((len(row.at), K), -np.inf)
            log[:, STANDARD] = np.log(answer(row))
            logs.append(log)
        found[name] = _score(rows, logs, confidence)
    return found


class _Hidden(NamedTuple):
    """One protein: tokens as shown and as they are, (L,), and where <mask> stands."""

    shown: np.ndarray
    whole: np.ndarray
    at: np.ndarray


def _check(name, value, least, most=math.inf):
    if not (isinstance(value, int | np.integer) and least <= value <= most):
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {limits}, received {value!r}.")


def _hidden(sequences, encode, seed, crop):
    _check("seed", seed, 0)
    _check("crop", crop, 8)
    found = []
    for i, row in enumerate(encoded(sequences, encode)):
        whole = row[:crop].astype("int32")
        shown, chosen = hide(whole, np.random.default_rng((seed, i)))
        at = np.flatnonzero(chosen & (shown == MASK))  # a <mask> of the user's own has no answer
        found.append(_Hidden(shown, whole, at[at < len(whole) - 1]))  # with both neighbours
    return found


def _score(rows, logs, confidence, resamples=2000):
    """Sums over each protein, and ratios of their sums over resamples of the proteins."""
    sums = []
    for row, log in zip(rows, logs, strict=True):
        own = np.arange(len(row.at)), row.whole[row.at]
        best = log == log.max(axis=-1, keepdims=True)
        hits = best[own] / best.sum(axis=-1)  # ties share the hit
        sums.append([-log[own].sum(), hits.sum(), len(row.at)])
    table, shares = np.array(sums), np.full(len(sums), 1 / len(sums))  # (N, 3), (N,)
    rng, total = np.random.default_rng(0), table.sum(axis=0)
    # One by one: all counts of a large corpus would take gigabytes.
    draws = np.array([rng.multinomial(len(sums), shares) @ table for _ in range(resamples)])
    if not total[2]:
        raise ValueError("No residue is hidden in so few: give more or longer sequences.")
    with np.errstate(invalid="ignore"):  # a draw of proteins without any <mask> is left out
        losses, hits = draws[:, 0] / draws[:, 2], draws[:, 1] / draws[:, 2]
    return MaskedScore(
        interval(float(np.exp(total[0] / total[2])), np.exp(losses), confidence),
        interval(float(total[1] / total[2]), hits, confidence),
        int(total[2]),
    )

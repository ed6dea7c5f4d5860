"""Masked language modelling: the objective that ESM-2 was pre-trained with, for any corpus.

Reference: Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a
language model", Science 379:1123 (2023), section A.2; the objective is that of Devlin et al. 2019,
"BERT", section 3.1: of each protein 15% of the residues are chosen, 80% of those are shown as
<mask>, 10% as another residue, 10% as they are; the loss is the cross-entropy at the chosen ones.

Differences from the reference: each residue is chosen on its own, so that the share varies a little
from protein to protein; only the 20 standard residues are chosen (an X has no answer), and only
they stand in for others. Scores are taken where <mask> stands: at a residue that is shown as it is,
even a poor model may copy.

Shapes: `B` proteins in a batch, `L` tokens.
"""

import hashlib
from functools import partial
from numbers import Real

import keras
import numpy as np
from keras import ops

from kft.backbones.esm2.tokens import ALPHABET, MASK, PAD
from kft.data.sequences import changes, warn_of_changes
from kft.models.losses import REDUCTION
from kft.training.batching import padded_length, silent_cuts
from kft.training.optimizers import adamw
from kft.training.pretraining.training import Steps, check_settings, run

CHOSEN = 0.15  # of the residues
AS_MASK, AS_ANOTHER = 0.8, 0.1  # of those; the rest is shown as it is
ADAMW = partial(adamw, beta_2=0.98)  # as ESM-2 was trained
STANDARD = np.array([ALPHABET.index(letter) for letter in "LAGVSERTIDPKQNFYMHWC"], dtype="int32")


# What is hidden -----------------------------------------------------------------------------------


def hide(token_ids, rng, share=CHOSEN):
    """Chooses residues and hides most of them.

    Args:
        token_ids: int array (B, L), of `encode`.
        rng: numpy.random.Generator.
        share: of the residues that are chosen.

    Returns:
        shown: int32 (B, L), what the model sees.
        chosen: bool (B, L), where it has to answer; never at special tokens, padding or X.

    Example:
        >>> import kft
        >>> token_ids = kft.backbones.esm2.encode(["MKTAYI" * 20])["token_ids"]
        >>> shown, chosen = hide(token_ids, np.random.default_rng(0))
        >>> bool((shown[~chosen] == token_ids[~chosen]).all()), int(chosen.sum())
        (True, 20)
    """
    token_ids = np.asarray(token_ids, dtype="int32")
    choice, kind = rng.random((2, *token_ids.shape))
    another = rng.choice(STANDARD, token_ids.shape)
    chosen = np.isin(token_ids, STANDARD) & (choice < share)
    shown = np.where(chosen & (kind < AS_MASK), MASK, token_ids)
    shown = np.where(chosen & (kind >= AS_MASK) & (kind < AS_MASK + AS_ANOTHER), another, shown)
    return shown.astype("int32"), chosen


def encoded(sequences, encode, first=0):
    """Turns proteins into tokens of one byte: a corpus of 34 million residues stays at 34 MB.

    Args:
        sequences: list of strings.
        encode: of an ESM-2 backbone.
        first: the number that errors give to the first one.

    Returns:
        list of int8 arrays (L,), <cls> and <eos> included.

    Raises:
        ValueError: none, one string in place of a list, or one that is no protein.
    """
    sequences = sequences if isinstance(sequences, str | bytes) else list(sequences)
    if isinstance(sequences, str | bytes) or not sequences:
        raise ValueError(f"sequences must be a list of proteins, received {sequences!r:.40}.")
    with silent_cuts():  # changes are said once for all
        rows = [
            encode([x], names=[f"sequences[{i}]"])["token_ids"][0].astype("int8")
            for i, x in enumerate(sequences, start=first)
        ]
    warn_of_changes(changes(sequences), len(sequences))
    return rows


class MaskedBatches(Steps):
    """Batches of proteins with hidden residues, as `fit` takes them; see `masked_batches`.

    `batch(step)` is that of a global step, a function of the seed and the step alone; an epoch is
    `steps` of them, and `batches[i]` is step i of the present one.

    Attributes:
        epoch: the present epoch.
        one_pass: batches until each protein, or a crop of it, has come once.
        residues: tokens of residues in one pass, crops counted as they are cut.
    """

    def __init__(self, sequences, encode, tokens, crop, steps, seed, fresh, share):
        super().__init__(seed, fresh)
        self.tokens, self.crop, self.share = tokens, crop, share
        self.rows = encoded(sequences, encode)
        if not any(np.isin(row, STANDARD).any() for row in self.rows):
            raise ValueError("No sequence has one of the 20 standard residues: nothing to learn.")
        lengths = np.array([len(row) for row in self.rows])
        cut = np.minimum(lengths, crop)
        self.residues = int((cut - 2 * (lengths <= crop)).sum())
        self.padded = np.minimum([padded_length(n) for n in cut], crop)
        self.one_pass = len(self._planned(0))
        self.steps = steps or self.one_pass
        self._plan = (None, None)

    def batch(self, step):
        """The batch of a global step: inputs, targets (B, L, 2) and weights (B, L)."""
        before = self._at(step - 1)[0] if step % self.steps == 1 else None
        length, rows = self._at(step)
        if length == before and any(other != length for other, _ in self._plan[1]):
            length += 8  # no batch of another length was left to begin this epoch, see `_mixed`
        rng = np.random.default_rng((self.seed, 1, step))
        token_ids = np.full((len(rows), length), PAD, dtype="int32")
        for out, i in zip(token_ids, rows, strict=True):
            row = self.rows[i]
            # The window moves over <cls> and <eos> too: they tell a protein's end from a crop's.
            first = rng.integers(max(len(row) - self.crop, 0) + 1)
            row = row[first : first + self.crop]
            out[: len(row)] = row
        shown, chosen = hide(token_ids, rng, self.share)
        masked = chosen & (shown == MASK)  # a <mask> of the user's own has no answer
        targets = np.stack([token_ids, masked], axis=-1).astype("int32")
        return {"token_ids": shown}, targets, chosen.astype("float32")

    def _at(self, step):
        """The length and the proteins of the batch of a global step."""
        turn, index = divmod(step, self.one_pass)
        if self._plan[0] != turn:
            self._plan = turn, self._mixed(turn)
        return self._plan[1][index]

    def _planned(self, turn):
        """The length and the proteins of each batch of a pass."""
        rng = np.random.default_rng((self.seed, 0, turn))
        found, rest = [], np.array([], dtype="int64")
        for length in np.unique(self.padded):
            there = rng.permutation(np.flatnonzero(self.padded == length))
            there = np.concatenate([rest, there])
            size = min(max(1, self.tokens // int(length)), len(self.rows))
            whole = len(there) // size * size
            found += [(int(length), rows) for rows in there[:whole].reshape(-1, size)]
            rest = there[whole:]  # go with those of the next length
        if len(rest):
            # Filled up, so that all steps are alike; for a score each protein counts once.
            more = rng.choice(len(self.rows), (size - len(rest)) * self.fresh)
            found.append((int(length), np.concatenate([rest, more])))
        return [found[i] for i in rng.permutation(len(found))]

    def _mixed(self, turn):
        """The same, with unequal lengths where an epoch begins, as far as there are enough.

        TensorFlow takes a length that the first two batches share for that of all.
        """
        plan = self._planned(turn)
        begin, last = turn * self.one_pass, len(plan) - 1
        starts = range(-begin % self.steps, len(plan), self.steps)
        pairs = {i: at + at + 1 - i for at in starts if at < last for i in (at, at + 1)}
        # These belong to a pair with a batch of another pass.
        fixed = ({0} if (begin - 1) % self.steps == 0 else set()) | {last} & set(starts)
        for at in starts:
            length = plan[at][0]
            if length == (plan[at + 1] if at < last else self._planned(turn + 1)[0])[0]:
                others = [i for i, x in enumerate(plan) if x[0] != length and i not in fixed]
                spare = [i for i in others if i not in pairs or plan[pairs[i]][0] != length]
                # With too few to spare the earlier epoch has one: trainings begin there.
                if found := spare or [i for i in others if i > at + 1]:
                    moved = min(at + 1, last)
                    plan[moved], plan[found[0]] = plan[found[0]], plan[moved]
        return plan


def masked_batches(
    sequences, encode, tokens=4096, crop=512, steps=None, seed=0, fresh=True, share=CHOSEN
):
    """Makes the batches of masked language modelling, which any Keras `fit` takes.

    Proteins are put beside others of their length, and a batch holds about as many tokens whatever
    their length. Those above `crop` show another window in every pass.

    Args:
        sequences: list of strings, of a family or of a whole corpus.
        encode: of an ESM-2 backbone.
        tokens: tokens of a batch, padding included.
        crop: most tokens of a protein.
        steps: batches of an epoch; None for one pass over all proteins.
        seed: int that order, crops and masks follow, with numpy, on every backend alike.
        fresh: False shows the same in every epoch, for validation.
        share: of the residues that are chosen, above 0 and below 1.

    Returns:
        MaskedBatches of ({"token_ids": int32 (B, L)}, targets int32 (B, L, 2), weights float32
        (B, L)). Targets hold the residue, and 1 where it is shown as <mask>; weights are 1 where a
        residue was chosen.

    Raises:
        ValueError: no sequences, one with a character that is no residue, sizes that are too small.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> batches = masked_batches(["MKTAYIAKQR"] * 8, backbone.encode, tokens=64, crop=16)
        >>> inputs, targets, weights = batches[0]
        >>> inputs["token_ids"].shape, targets.shape
        ((4, 16), (4, 16, 2))
    """
    for name, value, least in (("crop", crop, 8), ("tokens", tokens, crop), ("steps", steps, 2)):
        given = value is not None or name != "steps"
        if given and not (isinstance(value, int | np.integer) and value >= least):
            raise ValueError(f"{name} must be an integer of at least {least}, received {value!r}.")
    if not (isinstance(share, Real) and 0 < share < 1):
        raise ValueError(f"share must be above 0 and below 1, received {share!r}.")
    return MaskedBatches(sequences, encode, tokens, crop, steps, seed, fresh, share)


# How well it is filled in -------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class MaskedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of token logits at the chosen residues, in nats.

    Call with targets int (B, L, 2) and weights (B, L) of `masked_batches`, and logits (B, L, 33).
    The mean is taken over the chosen residues of a batch.
    """

    def __init__(self, name="masked_cross_entropy", reduction=REDUCTION):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true, y_pred):
        return _losses(y_true, y_pred)


def _losses(y_true, y_pred):
    """float32 (B, L)."""
    residues = ops.cast(y_true[..., 0], "int32")
    return ops.sparse_categorical_crossentropy(
        residues, ops.cast(y_pred, "float32"), from_logits=True
    )


class _MeanWhereMasked(keras.metrics.Mean):
    """A mean over all <mask>, each of which counts alike; without any it is no number."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.cast(self.values(y_true, y_pred), "float32")  # (B, L)
        masked = ops.cast(y_true[..., 1], "float32")
        # Flat: of rows Keras would take the mean, and <mask> of long proteins count less.
        super().update_state(ops.reshape(values, (-1,)), ops.reshape(masked, (-1,)))

    def result(self):
        return ops.where(self.count > 0, super().result(), float("nan"))


@keras.saving.register_keras_serializable("kft")
class Perplexity(_MeanWhereMasked):
    """exp(mean cross-entropy) where <mask> stands; 20 is a blind guess among 20 residues."""

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self._direction = "down"  # less is better, for Keras's callbacks

    values = staticmethod(_losses)

    def result(self):
        return ops.exp(super().result())


@keras.saving.register_keras_serializable("kft")
class MaskedAccuracy(_MeanWhereMasked):
    """Share of the <mask> whose residue has the highest logit."""

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self._direction = "up"

    @staticmethod
    def values(y_true, y_pred):
        best = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        return ops.equal(best, ops.cast(y_true[..., 0], "int32"))


# Training -----------------------------------------------------------------------------------------


def pretrain(
    backbone, sequences, valid=None, *, epochs=10, steps=None, tokens=4096, crop=512, rate=1e-3,
    warmup=0.05, accumulate=1, make=ADAMW, share=CHOSEN, seed=0, out=None, callbacks=(),
    verbose="auto",
):  # fmt: skip
    """Trains a backbone to fill in hidden residues: from random weights, or further on one's own.

    The latter adapts it to a family without a label (Gururangan et al. 2020, "Don't stop
    pretraining"); take a lower rate for that.

    Args:
        backbone: an ESM-2 of `kft.load`; it is trained in place.
        sequences: list of strings.
        valid: list of strings that are scored after every epoch, always with the same masks.
        epochs, steps: how many epochs of how many optimizer steps; None for one pass over the
            sequences. Another number is another schedule of the rate.
        tokens, crop, seed: as for `masked_batches`.
        rate: the highest learning rate.
        warmup: share of the steps in which it rises; then it falls along a cosine to zero.
        accumulate: batches whose gradients are averaged for one optimizer step.
        make: the optimizer, as `make(rate schedule, variables)`; see `optimizers.muon`.
        share: of the residues that are chosen in training, more than ESM-2's 15% for more answers
            from each protein (Wettig et al. 2023); scores are always taken at 15%.
        out: folder of `state.npz`, from which a training goes on that was stopped, see
            `kft.callbacks.Resume`; None keeps nothing.
        callbacks, verbose: of Keras's `fit`.

    Returns:
        Pretraining.

    Raises:
        ValueError: as `masked_batches`, or a share or count that is none.
        FloatingPointError: the loss is no number any more.

    Example:
        >>> import kft
        >>> backbone = kft.backbones.esm2.ESM2(num_blocks=1, width=32, num_heads=4)
        >>> done = pretrain(backbone, ["MKTAYIAKQR"] * 8, epochs=2, tokens=64, crop=16, verbose=0)
        >>> len(done.history)
        2
    """
    model = language_model(backbone)
    check_settings(rate, warmup, epochs=epochs, accumulate=accumulate)
    options = {"tokens": tokens, "crop": crop, "seed": seed}
    batches = steps and steps * accumulate
    train = masked_batches(sequences, backbone.encode, steps=batches, share=share, **options)
    if valid is not None:
        valid = masked_batches(valid, backbone.encode, fresh=False, **options)
    about = {
        "proteins": _digest(train),
        "validation": valid and _digest(valid),
        "backbone": backbone.get_config(),
        "share": share,
        **options,
    }
    return run(
        model, train, valid, about, ("residues", train.residues), loss=MaskedCrossEntropy(),
        metrics=[Perplexity(), MaskedAccuracy()], epochs=epochs, rate=rate, warmup=warmup,
        accumulate=accumulate, make=make, out=out, callbacks=callbacks, verbose=verbose,
    )  # fmt: skip


def language_model(backbone):
    """The backbone's `masked_lm`.

    Raises:
        ValueError: it has none.
    """
    if not hasattr(backbone, "masked_lm"):
        raise ValueError(
            f"backbone must be one with a masked_lm, an ESM-2, received {type(backbone).__name__}: "
            f"of a kft.Model give model.backbone."
        )
    return backbone.masked_lm


def _digest(batches):
    return hashlib.sha256(np.concatenate(batches.rows).tobytes()).hexdigest()

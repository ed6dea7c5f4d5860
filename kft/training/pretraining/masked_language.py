"""Masked language modelling: the objective that ESM-2 was pre-trained with, for any corpus.

Reference: Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a
language model", Science 379:1123 (2023), section A.2; the objective is that of Devlin et al. 2019,
"BERT", section 3.1: of each protein 15% of the residues are chosen, 80% of those are shown as
<mask>, 10% as another residue, 10% as they are; the loss is the cross-entropy at the chosen ones.

Differences from the reference: each residue is chosen independently, so that the fraction varies a
little from protein to protein; only the 20 standard residues are chosen (the true residue at an X
is unknown), and only they replace others. Scores are computed at <mask> only: where a residue is
shown as it is, a poor model can copy it.

Shapes: `B` proteins in a batch, `L` tokens.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_integer
from kft.backbones.residue_tokens import encode as encode_residues
from kft.data.inputs import encoder_info, listed_inputs
from kft.data.sequences import changes, warn_of_changes
from kft.keras_internals import set_direction
from kft.models.losses import REDUCTION
from kft.training.batching import silent_cuts
from kft.training.lengths import FEW_LENGTHS, padded_length
from kft.training.optimizers import OptimizerFactory, adamw
from kft.training.pretraining.training import Pretraining, Steps, check_settings, run
from kft.training.pretraining.vocabulary import Vocabulary, vocabulary_of

CHOSEN = 0.15  # of the residues
AS_MASK, AS_ANOTHER = 0.8, 0.1  # of those; the rest is shown as it is
ADAMW = partial(adamw, beta_2=0.98)  # as ESM-2 was trained
OF_ESM = vocabulary_of(encode_residues)
STANDARD = OF_ESM.standard


# What is hidden -----------------------------------------------------------------------------------


def hide(
    token_ids: np.ndarray,
    rng: np.random.Generator,
    mask_ratio: float = CHOSEN,
    vocabulary: Vocabulary = OF_ESM,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose residues and hide most of them.

    Args:
        token_ids: int array (B, L), of `encode`.
        rng: Numpy generator.
        mask_ratio: Fraction of the residues that are chosen.
        vocabulary: Tokens of the model; the default is those of ESM-2 and ESM-C.

    Returns:
        shown: int32 (B, L), the input of the model.
        chosen: bool (B, L), the positions to predict; never special tokens, padding or X.

    Example:
        >>> import kft
        >>> token_ids = kft.backbones.esm2.encode(["MKTAYI" * 20])["token_ids"]
        >>> shown, chosen = hide(token_ids, np.random.default_rng(0))
        >>> bool((shown[~chosen] == token_ids[~chosen]).all()), int(chosen.sum())
        (True, 20)
    """
    token_ids = np.asarray(token_ids, dtype="int32")
    choice, kind = rng.random((2, *token_ids.shape))
    another = rng.choice(vocabulary.standard, token_ids.shape)
    chosen = np.isin(token_ids, vocabulary.standard) & (choice < mask_ratio)
    shown = np.where(chosen & (kind < AS_MASK), vocabulary.mask, token_ids)
    shown = np.where(chosen & (kind >= AS_MASK) & (kind < AS_MASK + AS_ANOTHER), another, shown)
    return shown.astype("int32"), chosen


def encoded(sequences: Iterable[str], encode: Callable, first: int = 0) -> list[np.ndarray]:
    """Encode proteins as tokens of one byte: a corpus of 34 million residues takes 34 MB.

    Args:
        sequences: List of strings.
        encode: The `encode` of an ESM-2 or ESM-C.
        first: Number of the first one in error messages.

    Returns:
        List of int8 arrays (L,), <cls> and <eos> included.

    Raises:
        TypeError: `sequences` is not a list of strings, for example one string.
        ValueError: No sequences, or one that is no protein.

    Example:
        >>> import kft
        >>> encoded(["MK", "GSS"], kft.backbones.esm2.encode)[0].tolist()
        [0, 20, 15, 2]
    """
    sequences = listed_inputs(sequences, "sequences")
    if not sequences:
        raise ValueError("sequences is empty: give at least one protein.")
    with silent_cuts():  # changes are reported once, below
        rows = [
            encode([x], names=[f"sequences[{i}]"])["token_ids"][0].astype("int8")
            for i, x in enumerate(sequences, start=first)
        ]
    warn_of_changes(changes(sequences), len(sequences))
    return rows


class MaskedBatches(Steps):
    """Batches of proteins with hidden residues, as `fit` takes them; see `masked_batches`.

    `batch(step)` is the batch of a global step, a function of the seed and the step alone; an epoch
    has `steps` batches, and `batches[i]` is step i of the present epoch.

    Args:
        sequences: List of strings.
        encode: The `encode` of an ESM-2 or ESM-C.
        tokens: Tokens of a batch, padding included.
        crop: Most tokens of a protein.
        steps: Batches of an epoch; None for one pass over all proteins.
        seed: Int that decides order, crops and masks.
        fresh: False shows the same batches in every epoch.
        mask_ratio: Fraction of the residues that are chosen.

    Attributes:
        epoch: Present epoch.
        one_pass: Batches until each protein, or a crop of it, has come once.
        residues: Tokens of residues in one pass, of crops those within the crop.
    """

    def __init__(
        self,
        sequences: Sequence[str],
        encode: Callable[..., dict[str, np.ndarray]],
        tokens: int,
        crop: int,
        steps: int,
        seed: int,
        fresh: bool,
        mask_ratio: float,
    ):
        super().__init__(seed, fresh)
        self.tokens, self.crop, self.mask_ratio = tokens, crop, mask_ratio
        self.vocabulary = vocabulary_of(encode)
        self.rows = encoded(sequences, encode)
        if not any(np.isin(row, self.vocabulary.standard).any() for row in self.rows):
            raise ValueError("No sequence has one of the 20 standard residues: nothing to learn.")
        lengths = np.array([len(row) for row in self.rows])
        cut = np.minimum(lengths, crop)
        specials = sum(encoder_info(encode).specials)
        self.residues = int((cut - specials * (lengths <= crop)).sum())
        self.padded = np.minimum([padded_length(n, FEW_LENGTHS) for n in cut], crop)
        self.one_pass = len(self._planned(0))
        self.steps = steps or self.one_pass
        self._plan: tuple[int | None, list[tuple[int, np.ndarray]]] = (None, [])

    def batch(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Make the batch of a global step: inputs, targets (B, L, 2) and weights (B, L)."""
        before = self._at(step - 1)[0] if step % self.steps == 1 else None
        length, rows = self._at(step)
        if length == before and any(other != length for other, _ in self._plan[1]):
            length += 8  # no batch of another length was left to begin this epoch, see `_mixed`
        rng = np.random.default_rng((self.seed, 1, step))
        token_ids = np.full((len(rows), length), self.vocabulary.pad, dtype="int32")
        for out, i in zip(token_ids, rows, strict=True):
            row = self.rows[i]
            # The window moves over <cls> and <eos> too: they mark the ends of a protein, which
            # the ends of a crop are not.
            first = rng.integers(max(len(row) - self.crop, 0) + 1)
            row = row[first : first + self.crop]
            out[: len(row)] = row
        shown, chosen = hide(token_ids, rng, self.mask_ratio, self.vocabulary)
        masked = chosen & (shown == self.vocabulary.mask)  # the true residue at a <mask> is unknown
        targets = np.stack([token_ids, masked], axis=-1).astype("int32")
        return {"token_ids": shown}, targets, chosen.astype("float32")

    def _at(self, step: int) -> tuple[int, np.ndarray]:
        """The length and the proteins of the batch of a global step."""
        turn, index = divmod(step, self.one_pass)
        if self._plan[0] != turn:
            self._plan = turn, self._mixed(turn)
        return self._plan[1][index]

    def _planned(self, turn: int) -> list[tuple[int, np.ndarray]]:
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
            # Filled up, so that all steps are alike; for a score each protein comes once.
            more = rng.choice(len(self.rows), (size - len(rest)) * self.fresh)
            found.append((int(length), np.concatenate([rest, more])))
        return [found[i] for i in rng.permutation(len(found))]

    def _mixed(self, turn: int) -> list[tuple[int, np.ndarray]]:
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
    sequences: Iterable[str],
    encode: Callable,
    tokens: int = 4096,
    crop: int = 512,
    steps: int | None = None,
    seed: int = 0,
    fresh: bool = True,
    mask_ratio: float = CHOSEN,
) -> MaskedBatches:
    """Make the batches of masked language modelling, which any Keras `fit` takes.

    Proteins of about the same length are in a batch, and a batch holds about as many tokens
    whatever their length. Of proteins longer than `crop`, every pass shows another window.

    Args:
        sequences: List of strings, of a family or of a whole corpus.
        encode: The `encode` of an ESM-2 or ESM-C.
        tokens: Tokens of a batch, padding included.
        crop: Most tokens of a protein.
        steps: Batches of an epoch; None for one pass over all proteins.
        seed: Int that decides order, crops and masks, by numpy, the same on every backend.
        fresh: False shows the same batches in every epoch, for validation.
        mask_ratio: Fraction of the residues that are chosen, above 0 and below 1.

    Returns:
        MaskedBatches of ({"token_ids": int32 (B, L)}, targets int32 (B, L, 2), weights float32
        (B, L)). Targets hold the residue, and 1 where it is shown as <mask>; weights are 1 where a
        residue was chosen.

    Raises:
        ValueError: No sequences, one with a character that is no residue, sizes that are too small.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> batches = masked_batches(["MKTAYIAKQR"] * 8, backbone.encode, tokens=64, crop=16)
        >>> inputs, targets, weights = batches[0]
        >>> inputs["token_ids"].shape, targets.shape
        ((4, 16), (4, 16, 2))
    """
    check_integer("tokens", tokens, check_integer("crop", crop, 8))
    if steps is not None:
        check_integer("steps", steps, 2)
    if not (isinstance(mask_ratio, Real) and 0 < mask_ratio < 1):
        raise ValueError(f"mask_ratio must be above 0 and below 1, received {mask_ratio!r}.")
    return MaskedBatches(sequences, encode, tokens, crop, steps, seed, fresh, mask_ratio)


# How well it is filled in -------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class MaskedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of token logits at the chosen residues, in nats.

    Call with targets int (B, L, 2) and weights (B, L) of `masked_batches`, and logits (B, L, K).
    The mean is taken over the chosen residues of a batch.

    Args:
        name: Name of the loss.
        reduction: As for keras.losses.Loss.
    """

    def __init__(self, name: str = "masked_cross_entropy", reduction: str = REDUCTION):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the cross-entropy of each token, (B, L)."""
        return _losses(y_true, y_pred)


def _losses(y_true: Any, y_pred: Any) -> Any:
    """float32 (B, L)."""
    residues = ops.cast(y_true[..., 0], "int32")
    return ops.sparse_categorical_crossentropy(
        residues, ops.cast(y_pred, "float32"), from_logits=True
    )


class _MeanWhereMasked(keras.metrics.Mean):
    """A mean over all <mask>, each of the same weight; NaN without any."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        values = ops.cast(self.values(y_true, y_pred), "float32")  # (B, L)
        masked = ops.cast(y_true[..., 1], "float32")
        # Flat: Keras would take the mean of each row, and give less weight to long proteins.
        super().update_state(ops.reshape(values, (-1,)), ops.reshape(masked, (-1,)))

    def result(self) -> Any:
        return ops.where(self.count > 0, super().result(), float("nan"))


@keras.saving.register_keras_serializable("kft")
class Perplexity(_MeanWhereMasked):
    """exp(mean cross-entropy) at <mask>; a blind guess among 20 residues has 20."""

    def __init__(self, name: str = "perplexity", dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        set_direction(self, "down")  # less is better, for Keras's callbacks

    values = staticmethod(_losses)

    def result(self) -> Any:
        return ops.exp(super().result())


@keras.saving.register_keras_serializable("kft")
class MaskedAccuracy(_MeanWhereMasked):
    """Fraction of the <mask> whose residue has the highest logit."""

    def __init__(self, name: str = "accuracy", dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        set_direction(self, "up")

    @staticmethod
    def values(y_true: Any, y_pred: Any) -> Any:
        best = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        return ops.equal(best, ops.cast(y_true[..., 0], "int32"))


# Training -----------------------------------------------------------------------------------------


def pretrain(
    backbone: keras.Model,
    sequences: Iterable[str],
    valid: Iterable[str] | None = None,
    *,
    epochs: int = 10,
    steps: int | None = None,
    tokens: int = 4096,
    crop: int = 512,
    learning_rate: float = 1e-3,
    warmup: float = 0.05,
    accumulate: int = 1,
    optimizer: OptimizerFactory = ADAMW,
    mask_ratio: float = CHOSEN,
    seed: int = 0,
    out: Path | str | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
) -> Pretraining:
    """Train a backbone to fill in hidden residues, from random or from pre-trained weights.

    The latter adapts it to a family without labels (Gururangan et al. 2020, "Don't stop
    pretraining"); take a lower learning rate for that.

    Args:
        backbone: An ESM-2 or ESM-C of `kft.load`; it is trained in place.
        sequences: List of strings.
        valid: List of strings that are scored after every epoch, always with the same masks.
        epochs: Number of epochs; another number is another schedule of the learning rate.
        steps: Optimizer steps of an epoch; None for one pass over the sequences.
        tokens: Tokens of a batch, padding included.
        crop: Most tokens of a protein; of a longer one, every pass shows another window.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which it rises; then it falls along a cosine to zero.
        accumulate: Batches whose gradients are averaged for one optimizer step.
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer; see
            `kft.training.optimizers.muon`.
        mask_ratio: Fraction of the residues that are chosen in training, more than the 15% of
            ESM-2 for more predictions per protein (Wettig et al. 2023); scores are always
            computed at 15%.
        seed: Int that determines order, crops and masks.
        out: Folder of `state.npz`, from which an interrupted training continues, see
            `kft.callbacks.Resume`; None keeps nothing.
        callbacks: Keras callbacks.
        verbose: As for Keras's `fit`.

    Returns:
        Pretraining.

    Raises:
        ValueError: As `masked_batches`, or a setting out of range.
        FloatingPointError: The loss or a weight is NaN or infinity.

    Example:
        >>> import kft
        >>> backbone = kft.backbones.esm2.ESM2(num_blocks=1, width=32, num_heads=4)
        >>> done = pretrain(backbone, ["MKTAYIAKQR"] * 8, epochs=2, tokens=64, crop=16, verbose=0)
        >>> len(done.history)
        2
    """
    model = language_model(backbone)
    check_settings(learning_rate, warmup, epochs=epochs, accumulate=accumulate)
    options: dict[str, Any] = {"tokens": tokens, "crop": crop, "seed": seed}
    batches = steps and steps * accumulate
    train = masked_batches(
        sequences, backbone.encode, steps=batches, mask_ratio=mask_ratio, **options
    )
    if valid is not None:
        valid = masked_batches(valid, backbone.encode, fresh=False, **options)
    settings = {
        "proteins": _digest(train),
        "validation": valid and _digest(valid),
        "backbone": backbone.get_config(),
        "mask_ratio": mask_ratio,
        **options,
    }
    return run(
        model,
        train,
        valid,
        settings,
        ("residues", train.residues),
        loss=MaskedCrossEntropy(),
        metrics=[Perplexity(), MaskedAccuracy()],
        epochs=epochs,
        learning_rate=learning_rate,
        warmup=warmup,
        accumulate=accumulate,
        optimizer=optimizer,
        out=out,
        callbacks=callbacks,
        verbose=verbose,
    )


def language_model(backbone: keras.Model) -> keras.Model:
    """Return the `masked_lm` of a backbone.

    Args:
        backbone: An ESM-2 or ESM-C.

    Returns:
        keras.Model -> logits (B, L, K), of ESM-2 33 and of ESM-C 64.

    Raises:
        ValueError: The backbone has none.

    Example:
        >>> import kft
        >>> backbone = kft.backbones.esm2.ESM2(num_blocks=1, width=32, num_heads=4)
        >>> language_model(backbone).output.shape[-1]
        33
    """
    if not hasattr(backbone, "masked_lm"):
        raise ValueError(
            f"backbone must be one with a masked_lm, an ESM-2 or ESM-C, received "
            f"{type(backbone).__name__}: of a kft.Model give model.backbone."
        )
    return backbone.masked_lm


def _digest(batches: "MaskedBatches") -> str:
    return hashlib.sha256(np.concatenate(batches.rows).tobytes()).hexdigest()

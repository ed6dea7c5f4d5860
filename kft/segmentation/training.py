"""The training step of a model that is prompted: rounds of prompts, masks and their losses.

Reference: Kirillov et al. 2023, arXiv:2304.02643, section 3 and appendix A; the interactive rounds
of micro-sam (Archit et al. 2025) are the same. The first prompt of an object is a point or a box;
in each further round a point is added where the last mask is wrong, and in some rounds the logits
of that mask are a prompt too. Of the three masks of a round the best one learns; the predicted IoU
of all three learns from their true IoU.

Differences from the reference: losses are computed on the grid of the logits, 4 h by 4 w, not on
the image; three masks are predicted in all rounds, so that the first mask token, meant for many
prompts, keeps its weights; rounds are at most 8 and not 11.

Shapes: `B` images, `N` objects of each, `P` = 2 + R - 1 prompts of each object, `R` rounds, `s` =
4 h side of the grid of logits, `S` side of the model's input in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kft.arguments import check_integer, check_number_above, check_share

# Labels of prompts; those with "as" are for the batches of `kft.training`, which knows no family.
from kft.backbones.sam.prompts import ABSENT, NEGATIVE, POSITIVE
from kft.backbones.sam.prompts import BOTTOM_RIGHT as BOTTOM_RIGHT
from kft.backbones.sam.prompts import NOT_A_POINT as NOT_A_POINT
from kft.backbones.sam.prompts import TOP_LEFT as TOP_LEFT
from kft.keras_internals import set_direction, set_untracked
from kft.models.graphs import Learner, flat
from kft.segmentation.prompts import NOISE

FIRST = 2  # prompts of the first round: a point and NOT_A_POINT, or the corners of a box
MOST_ROUNDS = 8
COLUMNS = ("loss", "mask_loss", "iou_loss", "iou", "last_iou")  # of what the learner returns


@dataclass(frozen=True)
class Prompting:
    """How objects and prompts are drawn in training.

    Args:
        objects: Objects of an image in one step; where there are more, others are drawn each epoch.
        rounds: Rounds of prompts, at most 8.
        box_probability: Probability that the first prompt of an object is its box and not a point.
        mask_probability: Probability of a round that the last mask is a prompt, too.
        focal: Weight of the focal loss; that of the Dice loss is 1. A small one is for weights that
            are random: most cells are background, and the focal loss first learns that all are.
        best: Share of the loss of masks that is of the best of the three, from 0 to 1; the rest is
            the mean of all three. With 1, as in the paper, the three learn to answer prompts that
            may mean several things. Where they do not, less makes each mask good.
        box_noise: Standard deviation of the noise of boxes, as a share of their sides. With 0 the
            model learns to rely on boxes, which then should be exact.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> Prompting(objects=4).rounds
        3
    """

    objects: int = 8
    rounds: int = 3
    box_probability: float = 0.5
    mask_probability: float = 0.5
    focal: float = 20.0
    best: float = 1.0
    box_noise: float = NOISE

    def __post_init__(self) -> None:
        check_integer("objects", self.objects)
        check_integer("rounds", self.rounds, 1, MOST_ROUNDS)
        for name in ("box_probability", "mask_probability", "best", "box_noise"):
            check_share(name, getattr(self, name))
        check_number_above("focal", self.focal)


# The graph ----------------------------------------------------------------------------------------


class Trainer(Learner):
    """The learner of a training: its trainable weights are those of the model, in their order."""

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        return self.trained_model.trainable_variables


def trainer(
    sam: keras.Model,
    rounds: int,
    encoder: keras.Model | None = None,
    focal: float = 20.0,
    best: float = 1.0,
) -> keras.Model:
    """Return a model whose output is the losses of a step, which shares all layers with `sam`.

    Args:
        sam: A model with "prompt_encoder" and "mask_decoder", such as `kft.backbones.sam.Sam`.
        rounds: R.
        encoder: The part of the image encoder behind the frozen frontier; None where all of it is
            frozen, and the embedding itself is the input "frontier_0".
        focal: As for `Prompting`.
        best: As for `Prompting`.

    Returns:
        Functional model of `inputs_of`'s inputs and those of `encoder`; its output is float
        (B, N, 1 + columns): 1 for an object and 0 for filling, and `COLUMNS`.
    """
    if encoder is None:
        embedding = keras.Input(sam.embedding.shape[1:], name="frontier_0")
        inputs: dict[str, Any] = {"frontier_0": embedding}
    else:
        inputs = _by_name(encoder)
        embedding = encoder(encoder.input)
    drawn = _drawn(4 * sam.grid, rounds)
    prompt_encoder, decoder = (sam.get_layer(x) for x in ("prompt_encoder", "mask_decoder"))
    state = First(4 * sam.grid, name="first", dtype="float32")(drawn["points"])
    prompts = {"points": drawn["points"], "labels": drawn["labels"], **state}
    per_round = []
    for i in range(rounds):
        outputs = decoder(embedding, prompt_encoder(**prompts))
        losses = StepLosses(focal, best, name=f"losses_{i}", dtype="float32")
        per_round.append(losses(outputs, drawn["targets"], drawn["inside"]))
        if i + 1 < rounds:
            following = NextPrompts(i, sam.image_size, name=f"next_{i}", dtype="float32")
            prompts = following(outputs, prompts["points"], prompts["labels"], drawn)
    output = Summary(name="summary", dtype="float32")(per_round, drawn["present"])
    learner = flat(Learner({**inputs, **drawn}, output, name="graph"))
    learner = Trainer(learner.input, learner.output, name=f"{sam.name}_trainer")
    set_untracked(learner, trained_model=sam)
    return learner


def _by_name(model: keras.Model) -> dict[str, Any]:
    """Return {name: symbolic input} of a model."""
    return {x.name: x for x in model.inputs}


def _drawn(side: int, rounds: int) -> dict[str, keras.KerasTensor]:
    """Return the symbolic inputs that are drawn for a step.

    Args:
        side: s.
        rounds: R.

    Returns:
        "points" (B, N, P, 2) and "labels" (B, N, P) of the first prompts, ABSENT behind them;
        "draws" (B, N, R), numbers from 0 to 1 from which points are chosen, and "given" (B, N, R),
        1 where the last mask is a prompt; "targets" (B, N, s, s), the true masks; "inside"
        (B, s, s), 1 where there is an image and 0 where it is filled up; "present" (B, N), 0 for
        rows that hold no object.
    """
    count = FIRST + rounds - 1
    return {
        "points": keras.Input((None, count, 2), name="points"),
        "labels": keras.Input((None, count), dtype="int32", name="labels"),
        "draws": keras.Input((None, rounds), name="draws"),
        "given": keras.Input((None, rounds), name="given"),
        "targets": keras.Input((None, side, side), name="targets"),
        "inside": keras.Input((side, side), name="inside"),
        "present": keras.Input((None,), name="present"),
    }


class First(keras.layers.Layer):
    """No rough masks, for the first round: points (B, N, P, 2) -> "masks" and "has_mask".

    Args:
        side: s.
    """

    def __init__(self, side: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.side = side

    def call(self, points: Any) -> dict[str, Any]:
        """Return zeros."""
        none = ops.zeros_like(points[:, :, 0, 0])  # (B, N)
        row = ops.zeros((self.side, self.side), dtype=none.dtype)
        return {"masks": none[:, :, None, None] + row, "has_mask": none}

    def compute_output_spec(self, points: Any) -> dict[str, Any]:
        """Return shapes and dtypes of the outputs."""
        rows = points.shape[:2]
        return {
            "masks": keras.KerasTensor((*rows, self.side, self.side), "float32"),
            "has_mask": keras.KerasTensor(rows, "float32"),
        }


class NextPrompts(keras.layers.Layer):
    """Prompts of the next round: those so far, a point where the mask is wrong, and the mask.

    It is the mask of the highest predicted IoU. The point is one cell of the region where it is
    wrong, each with equal probability: positive where the object was missed.

    Args:
        number: Number of the round that was predicted, from 0.
        image_size: S.
    """

    def __init__(self, number: int, image_size: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.number, self.image_size = number, image_size

    def call(self, outputs: Any, points: Any, labels: Any, drawn: Mapping[str, Any]) -> Any:
        """Compute the prompts.

        Args:
            outputs: What the mask decoder returns.
            points: (B, N, P, 2), those so far.
            labels: (B, N, P), those so far.
            drawn: See `_drawn`.

        Returns:
            "points", "labels", "masks" and "has_mask", as the prompt encoder takes them.
        """
        masks, iou = (ops.cast(ops.stop_gradient(outputs[x][:, :, 1:]), "float32") for x in _OUT)
        best = ops.one_hot(ops.argmax(iou, axis=-1), iou.shape[-1], dtype="float32")
        logits = ops.sum(masks * best[:, :, :, None, None], axis=2)  # (B, N, s, s)
        targets, side = drawn["targets"], masks.shape[-1]
        differs = ops.cast((logits > 0) != (targets > 0.5), "float32")
        wrong = differs * ops.expand_dims(drawn["inside"], 1)
        objects = wrong.shape[1] or ops.shape(wrong)[1]
        flat_wrong = ops.reshape(wrong, (-1, objects, side * side))
        counts = ops.cumsum(flat_wrong, axis=-1)
        total = counts[:, :, -1:]  # (B, N, 1)
        wanted = drawn["draws"][:, :, self.number, None] * total
        cell = ops.sum(ops.cast(counts <= wanted, "int32"), axis=-1)  # the first above `wanted`
        cell = ops.minimum(cell, side * side - 1)
        chosen = ops.one_hot(cell, side * side, dtype="float32")
        missed = ops.sum(chosen * ops.reshape(targets, (-1, objects, side * side)), axis=-1) > 0.5
        label = ops.where(missed, POSITIVE, NEGATIVE)
        label = ops.where(total[:, :, 0] > 0, label, ABSENT)
        ratio = self.image_size / side
        at = ops.stack([cell % side, cell // side], axis=-1)  # x and y
        point = (ops.cast(at, "float32") + 0.5) * ratio - 0.5  # of the cell's middle
        slot = ops.arange(points.shape[2], dtype="int32") == FIRST + self.number  # (P,)
        return {
            "points": ops.where(slot[:, None], ops.expand_dims(point, 2), points),
            "labels": ops.where(slot, ops.cast(ops.expand_dims(label, 2), "int32"), labels),
            "masks": logits,
            "has_mask": drawn["given"][:, :, self.number],
        }

    def compute_output_spec(
        self, outputs: Any, points: Any, labels: Any, drawn: Mapping[str, Any]
    ) -> Any:
        """Return shapes and dtypes of the outputs."""
        rows, side = points.shape[:2], drawn["targets"].shape[-1]
        return {
            "points": keras.KerasTensor(points.shape, "float32"),
            "labels": keras.KerasTensor(labels.shape, "int32"),
            "masks": keras.KerasTensor((*rows, side, side), "float32"),
            "has_mask": keras.KerasTensor(rows, "float32"),
        }


_OUT = ("masks", "iou")


# Losses -------------------------------------------------------------------------------------------


class StepLosses(keras.layers.Layer):
    """Losses of one round: masks and IoU of the decoder, true masks -> float (B, N, 4).

    They are the loss, its part from the mask (focal and Dice loss of the best of the three masks),
    its part from the IoU (mean squared error over the three), and the true IoU of the mask of the
    highest predicted one.

    Args:
        focal: As for `Prompting`.
        best: As for `Prompting`.
    """

    def __init__(self, focal: float, best: float = 1.0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.focal, self.best = focal, best

    def call(self, outputs: Mapping[str, Any], targets: Any, inside: Any) -> Any:
        """Compute the losses, see the class."""
        logits, predicted = (ops.cast(outputs[x][:, :, 1:], "float32") for x in _OUT)
        truth, inside = ops.expand_dims(targets, 2), inside[:, None, None]  # (B, 1 or N, 1, s, s)
        of_masks = self.focal * focal_loss(logits, truth, inside)
        of_masks = of_masks + dice_loss(logits, truth, inside)
        best = ops.one_hot(ops.argmin(of_masks, axis=-1), of_masks.shape[-1], dtype="float32")
        share = self.best * best + (1 - self.best) / of_masks.shape[-1]  # of each mask
        mask_loss = ops.sum(share * of_masks, axis=-1)
        iou = true_iou(logits, truth, inside)  # (B, N, 3)
        iou_loss = ops.mean(ops.square(predicted - iou), axis=-1)
        said = ops.one_hot(ops.argmax(predicted, axis=-1), iou.shape[-1], dtype="float32")
        return ops.stack(
            [mask_loss + iou_loss, mask_loss, iou_loss, ops.sum(said * iou, axis=-1)], axis=-1
        )

    def compute_output_spec(self, outputs: Any, targets: Any, inside: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((*targets.shape[:2], 4), "float32")


def focal_loss(logits: Any, truth: Any, inside: Any, alpha: float = 0.25, gamma: float = 2) -> Any:
    """Return the focal loss of masks (Lin et al. 2017, arXiv:1708.02002, equation 5).

    Args:
        logits: Float (..., s, s).
        truth: Float (..., s, s), 0 or 1.
        inside: Float (..., s, s), 1 for the cells that count.
        alpha: Weight of the cells of the object; 1 - alpha is that of the others.
        gamma: Power with which cells that are right already are left out.

    Returns:
        Float (...), the mean over the cells that count.
    """
    # -log p of the truth, and p itself
    surprise = ops.softplus(ops.where(truth > 0.5, -logits, logits))
    right = ops.sigmoid(ops.where(truth > 0.5, logits, -logits))
    weight = ops.where(truth > 0.5, alpha, 1 - alpha)
    cells = weight * ops.power(1 - right, gamma) * surprise * inside
    return ops.sum(cells, axis=(-2, -1)) / ops.sum(inside, axis=(-2, -1))


def dice_loss(logits: Any, truth: Any, inside: Any) -> Any:
    """Return the Dice loss of masks (Milletari et al. 2016, arXiv:1606.04797).

    Args:
        logits: Float (..., s, s).
        truth: Float (..., s, s), 0 or 1.
        inside: Float (..., s, s), 1 for the cells that count.

    Returns:
        Float (...): 1 - (2 |p t| + 1) / (|p| + |t| + 1).
    """
    p, truth = ops.sigmoid(logits) * inside, truth * inside
    both = ops.sum(p * truth, axis=(-2, -1))
    each = ops.sum(p, axis=(-2, -1)) + ops.sum(truth, axis=(-2, -1))
    return 1 - (2 * both + 1) / (each + 1)


def true_iou(logits: Any, truth: Any, inside: Any) -> Any:
    """Return the intersection over union of masks, float (...); 1 where both are empty.

    Args:
        logits: Float (..., s, s); the mask is where they are above 0.
        truth: Float (..., s, s), 0 or 1.
        inside: Float (..., s, s), 1 for the cells that count.
    """
    mask, truth = ops.cast(logits > 0, "float32") * inside, truth * inside
    both = ops.sum(mask * truth, axis=(-2, -1))
    either = ops.sum(ops.maximum(mask, truth), axis=(-2, -1))
    return ops.where(either > 0, both / ops.maximum(either, 1), 1.0)


class Summary(keras.layers.Layer):
    """Means of the losses over rounds, with the IoU of the first and the last round apart."""

    def call(self, per_round: Any, present: Any) -> Any:
        """Return float (B, N, 1 + columns), see `trainer`."""
        stacked = ops.stack(per_round)  # (R, B, N, 4)
        means = ops.mean(stacked[..., :3], axis=0)
        first, last = stacked[0, :, :, 3:], stacked[-1, :, :, 3:]
        return ops.concatenate([ops.expand_dims(present, -1), means, first, last], axis=-1)

    def compute_output_spec(self, per_round: Any, present: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((*present.shape, 1 + len(COLUMNS)), "float32")


def _mean_of(column: str, losses: Any) -> Any:
    """Return the mean of a column over the objects of each image, float (B,)."""
    present, values = losses[..., 0], losses[..., 1 + COLUMNS.index(column)]
    return ops.sum(present * values, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1)


@keras.saving.register_keras_serializable("kft")
class PromptLoss(keras.losses.Loss):
    """The loss of a training with prompts, which the learner computes itself, see `trainer`."""

    def __init__(self, name: str = "prompt_loss", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean over the objects of each image, float (B,)."""
        return _mean_of("loss", y_pred)


@keras.saving.register_keras_serializable("kft")
class PromptMetric(keras.metrics.Mean):
    """Mean over images of one of `COLUMNS`.

    Args:
        column: Its name.
    """

    def __init__(self, column: str, name: str | None = None, dtype: Any = None):
        super().__init__(name=name or column, dtype=dtype)
        self.column = column
        set_direction(self, "up" if column.endswith("iou") else "down")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the images of a batch."""
        super().update_state(_mean_of(self.column, y_pred), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "column": self.column}

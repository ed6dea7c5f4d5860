"""Training of a model that is prompted: batches of images and objects, with prompts drawn anew.

The model is one such as `kft.backbones.sam.Sam`; the losses are in `kft.segmentation.training`.
What is frozen of the image encoder is computed once per image and kept.

Shapes: `B` images in a batch, `N` objects of each, `P` prompts of each object, `R` rounds, `s` side
of the grid of logits, `S` side of the model's input in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import keras
import numpy as np

from kft.arguments import check_instance
from kft.data.images.pixels import opened_as
from kft.data.label_images import checked_label_image, count_objects, numbered, object_numbers
from kft.messages import warn
from kft.segmentation.masks import boxes_of, cells_of
from kft.segmentation.prompts import draw_points, with_noise
from kft.segmentation.training import (
    ABSENT,
    BOTTOM_RIGHT,
    COLUMNS,
    FIRST,
    NOT_A_POINT,
    POSITIVE,
    TOP_LEFT,
    Prompting,
    PromptLoss,
    PromptMetric,
    trainer,
)
from kft.training.batching import Batches, records_of
from kft.training.features import MEMORY_LIMIT, Features, features_of
from kft.training.frontier import fit_value_range, split, train_as


def is_prompted(model: keras.Model) -> bool:
    """Return whether a model takes prompts, and is trained as this module does."""
    return hasattr(model, "image_encoder") and hasattr(model, "decode")


# Targets ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objects:
    """The objects of one image on the grid of the logits.

    Attributes:
        cells: (s, s), the number of the object at each cell, 0 for none.
        inside: Float (s, s), 1 where there is an image.
        numbers: (K,) numbers of the objects.
        boxes: (K, 4), x0, y0, x1 and y1 in pixels of the model's input.
        size: (2,) width and height of the image, in the same pixels.
    """

    cells: np.ndarray
    inside: np.ndarray
    numbers: np.ndarray
    boxes: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, size: int, side: int) -> "Objects":
        """Bring a label image to the grid. An object that no cell falls on gets its nearest one.

        Args:
            labels: (H, W) integers, 0 for background.
            size: S.
            side: s.
        """
        height, width = labels.shape
        ratio, cell = size / max(height, width), size / side
        rows, columns = cells_of(labels.shape, side)
        cells = np.zeros((side, side), "int32")
        inside = np.zeros((side, side), "float32")
        last = np.array([max(len(rows), 1), max(len(columns), 1)]) - 1  # cells of the image
        inside[: last[0] + 1, : last[1] + 1] = 1
        cells[: len(rows), : len(columns)] = labels[np.ix_(rows, columns)]
        numbers, boxes = object_numbers(labels), boxes_of(labels)
        between = ~np.isin(numbers, cells)
        for number, (x0, y0, x1, y1) in zip(numbers[between], boxes[between], strict=True):
            at = [int((a + b) / 2 * ratio / cell) for a, b in ((y0, y1), (x0, x1))]
            cells[tuple(np.minimum(at, last))] = number
        kept = np.isin(numbers, cells)  # tiny objects may share a cell, which holds one
        scaled = (boxes[kept] * ratio).astype("float32")
        within = np.array([width, height]) * ratio
        return cls(cells, inside, numbers[kept], scaled, within)


def first_prompts(
    objects: Objects,
    chosen: np.ndarray,
    side: float,
    prompting: Prompting,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first prompt of each of some objects: a point of it, or its box with noise.

    Args:
        objects: Those of an image.
        chosen: (N,) positions of objects.
        side: Side of a cell in pixels of the model's input.
        prompting: How prompts are drawn.
        rng: Generator of random numbers.

    Returns:
        Points (N, 2, 2) and their labels (N, 2): a point and NOT_A_POINT, or two corners.
    """
    cells, _ = draw_points(objects.cells == objects.numbers[chosen, None, None], rng)
    at = (cells + rng.random(cells.shape)) * side - 0.5  # anywhere in the cell
    points = np.stack([at, np.zeros_like(at)], axis=1)
    corners = with_noise(objects.boxes[chosen], objects.size, rng, prompting.box_noise)
    corners = corners.reshape(-1, 2, 2)
    is_box = rng.random((len(chosen), 1)) < prompting.box_probability
    return (
        np.where(is_box[..., None], corners, points).astype("float32"),
        np.where(is_box, [TOP_LEFT, BOTTOM_RIGHT], [POSITIVE, NOT_A_POINT]).astype("int32"),
    )


# Batches ------------------------------------------------------------------------------------------


class PromptedBatches(Batches):
    """Batches of images, each with some of its objects and their first prompts.

    `batches[i]` is (arrays of `kft.segmentation.training.trainer`, zeros). Objects and prompts are
    drawn anew in each epoch, and always the same where `seed` is None.

    Args:
        model: The model that is trained.
        images: List of images.
        labels: List of label images, (H, W) integers.
        prompting: How prompts are drawn.
        batch_size: B.
        seed: Int, or None for a fixed order.
        names: Names of the records in errors.
        encode: Function from images to {"images": array}; None for that of the model.
    """

    def __init__(
        self,
        model: keras.Model,
        images: list,
        labels: list[np.ndarray],
        prompting: Prompting,
        batch_size: int,
        seed: int | None,
        names: Sequence[str],
        encode: Callable | None = None,
    ):
        super().__init__(
            images, None, encode or getattr(model, "encode", None), batch_size, seed, None, names
        )
        self.targets: Any = labels
        self.prompting, self.size, self.grid = prompting, model.image_size, 4 * model.grid
        self.most = min(prompting.objects, max(len(np.unique(x[x > 0])) for x in labels))
        self.features: Features | None = None

    @cached_property
    def objects(self) -> list[Objects]:
        """The objects of each image."""
        found = [Objects.of(labels, self.size, self.grid) for labels in self.targets]
        total = count_objects(self.targets)
        if lost := total - sum(len(one.numbers) for one in found):
            warn(
                f"{lost:,} of {total:,} objects are smaller than a cell of the model's grid and "
                f"share it with another: they are left out of training. Larger images of the "
                f"same objects, such as tiles, would keep them."
            )
        return found

    def __getitem__(self, index: int) -> Any:
        self.asked_for(index)
        indices = self.record_indices[index]
        images = (
            self.inputs_of(index) if self.features is None else self.features.take(indices, None)
        )
        rows = [self._drawn(i) for i in indices]
        drawn = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return {**images, **drawn}, np.zeros((len(indices), 1), "float32")

    def _drawn(self, record: int) -> dict[str, np.ndarray]:
        """Draw objects and prompts of one image."""
        drawing, side = self.prompting, self.size / self.grid
        epoch = 0 if self.seed is None else self.epoch
        rng = np.random.default_rng((self.seed or 0, self.seed is None, epoch, record))
        objects, most = self.objects[record], self.most
        count = len(objects.numbers)
        chosen = rng.choice(count, min(count, most), replace=False)
        prompts = drawing.rounds - 1 + FIRST
        points = np.zeros((most, prompts, 2), "float32")
        labels = np.full((most, prompts), ABSENT, "int32")
        targets = np.zeros((most, self.grid, self.grid), "float32")
        first = first_prompts(objects, chosen, side, drawing, rng)
        points[: len(chosen), :FIRST], labels[: len(chosen), :FIRST] = first
        labels[len(chosen) :, 1] = NOT_A_POINT
        targets[: len(chosen)] = objects.cells == objects.numbers[chosen, None, None]
        given = rng.random((most, drawing.rounds)) < drawing.mask_probability
        return {
            "points": points,
            "labels": labels,
            "draws": rng.random((most, drawing.rounds)).astype("float32"),
            "given": given.astype("float32"),
            "targets": targets,
            "inside": objects.inside,
            "present": (np.arange(most) < len(chosen)).astype("float32"),
        }


def prompted_batches(
    model: keras.Model,
    data: Any,
    seed: int,
    batch_size: int,
    max_length: int | None = None,
    encode: Callable | None = None,
    prompting: Prompting | None = None,
) -> tuple[PromptedBatches, PromptedBatches | None]:
    """Make batches to train on and, where there are records for it, batches to validate on.

    Args:
        model: The model that is trained.
        data: A `kft.data.Dataset` of images and label images, a `Split`, or a pair (images, label
            images).
        seed: Int that determines the order of the images, and the prompts.
        batch_size: Number of images per batch.
        max_length: None; images have no length.
        encode: As for `kft.fit`.
        prompting: How prompts are drawn; None for the usual way.

    Returns:
        Batches to train on, and batches to validate on or None.

    Raises:
        ValueError: Targets that are no label images, or of another size than their images; no image
            with an object.
    """
    if max_length is not None:
        raise ValueError(f"max_length is for sequences, received {max_length} with images.")
    prompting = Prompting() if prompting is None else prompting
    check_instance("prompting", prompting, Prompting, "a kft.segmentation.Prompting")
    train = data.train if hasattr(data, "train") else data
    valid = data.valid if hasattr(data, "train") else None
    shown = _with_objects(train, "train")
    shown_valid = None if valid is None else _with_objects(valid, "valid")
    if encode is None:
        fit_value_range(model, data)

    def made(part: _Shown, order: int | None) -> PromptedBatches:
        images, labels, names = part
        return PromptedBatches(model, images, labels, prompting, batch_size, order, names, encode)

    return made(shown, seed), None if shown_valid is None else made(shown_valid, None)


_Shown = tuple[list, list[np.ndarray], list[str]]


def _with_objects(part: Any, called: str) -> _Shown:
    """Return the images that show objects, their label images, and their names in errors."""
    images, targets, weights = records_of(part)
    if weights is not None:
        raise ValueError(f"weights of records are for models without prompts, in {called}.")
    labels = [_label_image(target, f"targets[{i}]") for i, target in enumerate(targets or ())]
    if len(labels) != len(images):
        raise ValueError(f"{called} has {len(images)} images and {len(labels)} label images.")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        shape = _shape_of(image, f"inputs[{i}]")
        if label.shape not in (shape, shape[::-1] if isinstance(image, PathLike) else shape):
            raise ValueError(
                f"targets[{i}] of {called} is a label image of {label.shape} and its image has "
                f"{shape} pixels: give label images of the size of their images."
            )
    chosen = [i for i, label in enumerate(labels) if label.any()]
    if not chosen:
        raise ValueError(
            f"No image of {called} shows an object: the label images are 0 everywhere. Give label "
            f"images in which each object has a number from 1 on."
        )
    if len(chosen) < len(images):
        warn(
            f"{len(images) - len(chosen):,} of {len(images):,} images of {called} show no object "
            f"and are left out of training, since there is nothing to prompt for."
        )
    names = [f"inputs[{i}]" for i in chosen]
    return [images[i] for i in chosen], [labels[i] for i in chosen], names


def _shape_of(image: Any, name: str) -> tuple[int, int]:
    """Return (height, width) of an image; of a file, before its EXIF data rotate it."""
    if isinstance(image, PathLike):
        image = opened_as(name, image, decode=False)
    size = np.shape(image)[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    return int(size[0]), int(size[1])


def _label_image(target: Any, name: str) -> np.ndarray:
    """Return a label image of int32, whose objects are numbered from 1 without gaps."""
    return numbered(checked_label_image(target, name))[0].astype("int32")


# Training -----------------------------------------------------------------------------------------


def check_strategy(strategy: object) -> None:
    """Check that a strategy does not solve for a head, which no model that is prompted has.

    Args:
        strategy: A strategy.

    Raises:
        ValueError: It is `LinearProbe`.
    """
    if type(strategy).__name__ == "LinearProbe":
        raise ValueError(
            "linear_probe solves for a head in closed form, and a model that takes prompts has no "
            "such head: the strategies iou_head and mask_decoder train the least of a SAM."
        )


def compile_arguments_of(model: keras.Model, **given: Any) -> dict[str, Any]:
    """Return the arguments of `compile` for a model that is prompted.

    Args:
        model: The model.
        **given: Arguments of `kft.fit` that are for other models, None where they were not given.

    Raises:
        ValueError: One of those was given.
    """
    if unused := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"{', '.join(unused)}: {model.name} is trained by masks and their IoU, and takes none. "
            f"Leave it out."
        )
    return {"loss": PromptLoss(), "metrics": [PromptMetric(column) for column in COLUMNS[1:]]}


def fit_prompted(
    model: keras.Model,
    train: PromptedBatches,
    valid: PromptedBatches | None,
    at_frontier: bool = True,
    cache: Any = None,
    memory_limit: int = MEMORY_LIMIT,
    **options: Any,
) -> keras.callbacks.History:
    """Train a compiled model on prompts that are drawn anew in each epoch.

    Args:
        model: The model, compiled.
        train: Batches to train on.
        valid: Batches to validate on, or None.
        at_frontier: Whether what is frozen of the image encoder is computed once and kept.
        cache: As for `kft.fit_frontier`.
        memory_limit: As for `kft.fit_frontier`.
        **options: epochs, callbacks, verbose and initial_epoch of Keras's `fit`.

    Returns:
        keras.callbacks.History of the model.
    """
    encoder, rest = model.image_encoder, model.image_encoder
    if at_frontier:
        encoder, rest = _cut(encoder)
    for part in (train, valid):
        if part is not None:
            part.features = features_of(encoder, part, cache, memory_limit) if at_frontier else None
    drawing = train.prompting
    learner = trainer(model, drawing.rounds, rest, drawing.focal, drawing.best)
    return train_as(model, learner, train, valid, **options)


def _cut(encoder: keras.Model) -> tuple[keras.Model, keras.Model | None]:
    """Cut the image encoder at its frontier; None for the second part if all of it is frozen."""
    if encoder.trainable_variables:
        return split(encoder)
    outputs = {"frontier_0": encoder.output}
    return keras.Model(encoder.input, outputs, name=f"{encoder.name}_frozen"), None

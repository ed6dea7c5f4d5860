"""Segmentation of images by prompts: the image is encoded once, its objects are prompted for.

Reference: `segment-anything` 1.0, `predictor.py` and `Sam.postprocess_masks`.

Differences from the reference: many objects at once with different prompts; prompts outside of the
image are an error; the two interpolations from logits to the image are one sparse product.

Shapes: `N` objects, `P` points of each, `K` = 3 masks, `s` side of the grid of logits, `S` side of
the model's input, `H` and `W` of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from keras import ops
from scipy import sparse

from kft.arguments import check_instance, check_integer
from kft.backbones.sam import Sam, sizes_within
from kft.backbones.sam.prompts import ABSENT, BOTTOM_RIGHT, NOT_A_POINT, TOP_LEFT
from kft.data.images.pixels import find_range, looked_at, read_pixels
from kft.messages import warn
from kft.segmentation.automatic import Found, Settings, find_masks
from kft.segmentation.masks import cells_of

MASKS = 3
STABILITY_OFFSET = 1.0  # of the logits, above and below 0, as in the reference
_SURE = 10.0  # logit of a rough mask that is given as booleans
# Points are filled up to these numbers and objects to powers of two, so that programs that are
# compiled for each shape stay few.
_POINTS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Prediction:
    """Masks of N objects of one image, three for each.

    Attributes:
        iou: Float (N, 3), the IoU that the model predicts for each mask.
        stability: Float (N, 3), the area where the logits are above 1 divided by that where they
            are above -1; 0 for an empty mask.
        logits: Float (N, 3, s, s); those of one mask can be given as the prompt `masks`.
        shape: (H, W) of the image.
        packed: Uint8 (N, 3, bytes), the masks with eight pixels in a byte.
    """

    iou: np.ndarray
    stability: np.ndarray
    logits: np.ndarray = field(repr=False)
    shape: tuple[int, int]
    packed: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.iou)

    @property
    def masks(self) -> np.ndarray:
        """Bool (N, 3, H, W), a new array each time."""
        return self._unpacked(self.packed)

    @property
    def best(self) -> np.ndarray:
        """Bool (N, H, W): of each object the mask of the highest predicted IoU; a new array."""
        return self._unpacked(self.packed[np.arange(len(self)), self.iou.argmax(axis=1)])

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        pixels = np.unpackbits(packed, axis=-1, count=math.prod(self.shape)).view(bool)
        return pixels.reshape(*packed.shape[:-1], *self.shape)


class Predictor:
    """A SAM with an image that is encoded once, and then prompted any number of times.

    Args:
        sam: The model.
        batch_size: Objects that the mask decoder takes at once.

    Attributes:
        shape: (H, W) of the image, (0, 0) before there is one.

    Example:
        >>> import kft
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> predictor = Predictor(sam).set_image(np.zeros((20, 30), "uint8"))
        >>> predictor.predict(points=[[3, 5], [20, 10]]).masks.shape
        (2, 3, 20, 30)
    """

    def __init__(self, sam: Sam, batch_size: int = 64):
        self.sam = check_instance("sam", sam, Sam, "a SAM, such as of kft.load('sam-vit-base')")
        self.batch_size = check_integer("batch_size", batch_size)
        self.shape: tuple[int, int] = (0, 0)
        self._embedding: np.ndarray | None = None
        self._pixels: np.ndarray | None = None

    def set_image(self, image: Any) -> "Predictor":
        """Encode an image, which all following prompts are for.

        Args:
            image: Path, PIL image, or array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint16,
                other integers from 0 to 255 or floats from 0 to 1. Of 16 bits, black and white are
                `sam.value_range`, or else those of this image, which a warning states.

        Returns:
            The predictor itself.

        Raises:
            FileNotFoundError, TypeError, ValueError: As for `kft.data.images.pixels.read_pixels`.
        """
        encode = self.sam.encode
        if encode.value_range is None and looked_at(image, "image"):
            found = find_range([image])
            if found is not None:
                warn(
                    f"image has 16 bits, of which {found[0]:,g} was taken for black and "
                    f"{found[1]:,g} for white. In Python, sam.value_range = (black, white) chooses "
                    f"others, the same for all images."
                )
                encode = replace(encode, value_range=found)
        pixels = read_pixels(image, "image", encode.value_range)
        return self._encode(pixels)

    def _encode(self, pixels: np.ndarray) -> "Predictor":
        """Encode pixels (H, W, 3), of 8 bits or floats from 0 to 255."""
        images = self.sam.encode.fitted(pixels)[None]
        embedding = self.sam.image_encoder.predict_on_batch({"images": images})
        self.shape, self._pixels = (pixels.shape[0], pixels.shape[1]), pixels
        self._embedding = ops.convert_to_numpy(embedding)
        return self

    def predict(
        self, points: Any = None, labels: Any = None, boxes: Any = None, masks: Any = None
    ) -> Prediction:
        """Segment what prompts show; an object may have prompts of several kinds.

        Args:
            points: (N, P, 2), x and y in pixels of the image; (N, 2) is one point of each object.
            labels: (N, P): 1 for a point of the object, 0 for one that is not of it, -1 for
                filling; None for 1 everywhere.
            boxes: (N, 4), x0, y0, x1, y1 in pixels of the image; NaN for objects without one.
            masks: (N, s, s) logits of rough masks, such as those of a `Prediction`; or bool
                (N, H, W).

        Returns:
            `Prediction`.

        Raises:
            RuntimeError: There is no image yet.
            ValueError: No prompt, numbers of objects that differ, prompts outside of the image,
                boxes without an extent, or arrays of another shape.

        Example:
            >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
            >>> predictor = Predictor(sam).set_image(np.zeros((20, 30), "uint8"))
            >>> predictor.predict(boxes=[[2, 3, 10, 12]]).iou.shape
            (1, 3)
        """
        if self._embedding is None:
            raise RuntimeError("There is no image yet: call predictor.set_image(image) first.")
        prompts = self._encoded(points, labels, boxes, masks)
        count = len(prompts["points"])
        parts = [
            self._decoded({name: x[i : i + self.batch_size] for name, x in prompts.items()})
            for i in range(0, count, self.batch_size)
        ]
        logits, iou = (np.concatenate([part[i] for part in parts]) for i in range(2))
        packed = np.empty((count, MASKS, -(-math.prod(self.shape) // 8)), dtype=np.uint8)
        stability = np.zeros((count, MASKS))
        enlarge = _Enlarging(self.shape, self.sam.image_size, logits.shape[-1])
        for place in np.ndindex(count, MASKS):
            on_image = enlarge(logits[place])
            packed[place] = np.packbits(on_image > 0)
            low, high = (
                int(np.count_nonzero(on_image > offset))
                for offset in (-STABILITY_OFFSET, STABILITY_OFFSET)
            )
            stability[place] = high / max(low, 1)
        return Prediction(iou, stability, logits, self.shape, packed)

    def everything(self, settings: Settings | None = None) -> Found:
        """Find the masks of all objects of the image, from a grid of points.

        Args:
            settings: See `kft.segmentation.Settings`; None for those of the original, with the
                thresholds of the model.

        Returns:
            The masks that remain, the best first, with the numbers of those that do not.

        Raises:
            RuntimeError: There is no image yet.
            TypeError: `settings` is no `Settings`.
        """
        if self._pixels is None:
            raise RuntimeError("There is no image yet: call predictor.set_image(image) first.")
        whole = self._pixels
        settings = Settings() if settings is None else settings
        check_instance("settings", settings, Settings, "a kft.segmentation.Settings")
        settings = settings.with_thresholds(self.sam.automatic)

        def of_crop(crop: tuple[int, int, int, int]) -> Any:
            x0, y0, x1, y1 = crop
            other = Predictor(self.sam, self.batch_size)
            return other._encode(whole[y0:y1, x0:x1])._of_points

        return find_masks(self._of_points, self.shape, settings, of_crop)

    def _of_points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self.predict(points)
        return found.masks, found.iou, found.stability

    def _decoded(self, prompts: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Run the mask decoder on some objects; returns logits and predicted IoU of three masks."""
        count = len(prompts["points"])
        rows = min(1 << (count - 1).bit_length(), max(self.batch_size, count))
        filled = {
            name: np.concatenate([x, np.repeat(x[:1], rows - count, axis=0)])[None]
            for name, x in prompts.items()
        }
        outputs = self.sam.decode.predict_on_batch({"embedding": self._embedding, **filled})
        logits, iou = (ops.convert_to_numpy(outputs[name]) for name in ("masks", "iou"))
        return (logits[0, :count, 1:].astype("float32"), iou[0, :count, 1:].astype("float32"))

    def _encoded(self, points: Any, labels: Any, boxes: Any, masks: Any) -> dict[str, np.ndarray]:
        """Check prompts and bring them to the model's input, see `kft.backbones.sam.prompts`."""
        given = {"points": points, "boxes": boxes, "masks": masks}
        given = {name: _as_array(name, x) for name, x in given.items() if x is not None}
        if not given:
            raise ValueError("There is no prompt: give points, boxes or masks.")
        if labels is not None and points is None:
            raise ValueError("labels are those of points, and there are none: give points too.")
        counts = {name: len(x) if x.ndim else 0 for name, x in given.items()}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            said = ", ".join(f"{n} {name}" for name, n in counts.items())
            raise ValueError(
                f"points, boxes and masks must be of the same objects, at least one, received "
                f"{said}: the first axis is the objects. -1 in labels and NaN in boxes mark what "
                f"an object does not have."
            )
        count = next(iter(counts.values()))
        xy, kinds = self._points(given.get("points"), labels, count)
        corners, with_box = self._boxes(given.get("boxes"), count)
        rough, has_mask = self._masks(given.get("masks"), count)
        empty = ~(with_box | (kinds >= 0).any(axis=1) | (has_mask > 0))
        if empty.any():
            raise ValueError(
                f"{empty.sum()} of {count} objects have no prompt, the first is number "
                f"{int(empty.argmax())}: leave them out."
            )
        of_box = np.where(with_box[:, None], [TOP_LEFT, BOTTOM_RIGHT], [NOT_A_POINT, ABSENT])
        xy, kinds = np.concatenate([corners, xy], 1), np.concatenate([of_box, kinds], 1)
        length = next((n for n in _POINTS if n >= xy.shape[1]), xy.shape[1])
        missing = length - xy.shape[1]
        height, width = self.shape
        ratio = self.sam.image_size / max(height, width)
        return {
            "points": np.pad(xy * ratio, ((0, 0), (0, missing), (0, 0))).astype("float32"),
            "labels": np.pad(kinds, ((0, 0), (0, missing)), constant_values=ABSENT).astype("int32"),
            "masks": rough,
            "has_mask": has_mask,
        }

    def _points(self, points: Any, labels: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, P, 2) and their labels (N, P), ABSENT for filling."""
        if points is None:
            return np.zeros((count, 0, 2)), np.zeros((count, 0), "int32")
        points = points[:, None] if points.ndim == 2 else points
        if points.ndim != 3 or points.shape[-1] != 2 or points.dtype.kind not in "iuf":
            raise ValueError(
                f"points must be numbers (objects, points, 2) or (objects, 2), x and y, received "
                f"{points.dtype} {points.shape}."
            )
        kinds = np.ones(points.shape[:2], "int32")
        kinds = kinds if labels is None else _as_array("labels", labels)
        if kinds.ndim == 1 and points.shape[1] == 1:
            kinds = kinds[:, None]
        if kinds.shape != points.shape[:2] or not np.isin(kinds, (-1, 0, 1)).all():
            raise ValueError(
                f"labels must be 1, 0 or -1 for each point, of shape {points.shape[:2]}, received "
                f"{kinds.shape} with {np.unique(kinds)[:5].tolist()}."
            )
        kinds = np.where(kinds < 0, ABSENT, kinds)
        self._check_inside("points", points[kinds >= 0])
        return np.where((kinds >= 0)[..., None], points, 0), kinds

    def _boxes(self, boxes: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return corners (N, 2, 2), and which objects have a box (N,)."""
        if boxes is None:
            return np.zeros((count, 2, 2)), np.zeros(count, bool)
        if boxes.shape != (count, 4) or boxes.dtype.kind not in "iuf":
            raise ValueError(
                f"boxes must be numbers (objects, 4), x0, y0, x1, y1, received {boxes.dtype} "
                f"{boxes.shape}."
            )
        there = ~np.isnan(boxes.astype("float64")).all(axis=1)
        corners = np.where(there[:, None], boxes, 0).reshape(-1, 2, 2)
        self._check_inside("boxes", corners[there].reshape(-1, 2))
        without = there & (corners[:, 1] <= corners[:, 0]).any(axis=1)
        if without.any():
            i = int(without.argmax())
            raise ValueError(
                f"boxes must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, received "
                f"{boxes[i].tolist()} as number {i}: swap its corners, or give a point."
            )
        return corners, there

    def _masks(self, masks: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (N, s, s), and 1 for objects with a rough mask (N,)."""
        side, shape = 4 * self.sam.grid, self.shape
        if masks is None:
            return np.zeros((count, side, side), "float32"), np.zeros(count, "float32")
        if masks.dtype == bool and masks.shape[1:] == shape:
            grid = _on_grid(masks, side)
            return np.where(grid, _SURE, -_SURE).astype("float32"), np.ones(count, "float32")
        if masks.shape[1:] != (side, side) or masks.dtype.kind != "f":
            raise ValueError(
                f"masks must be float logits (objects, {side}, {side}), or bool (objects, "
                f"{', '.join(map(str, shape))}), received {masks.dtype} {masks.shape}."
            )
        if not np.isfinite(masks).all():
            raise ValueError("masks must be finite logits, received NaN or infinity.")
        return masks.astype("float32"), np.ones(count, "float32")

    def _check_inside(self, name: str, points: np.ndarray) -> None:
        """Raise an error for points (n, 2) outside of the image."""
        height, width = self.shape
        outside = ~((points >= 0) & (points <= [width, height])).all(axis=-1)  # NaN included
        if outside.any():
            raise ValueError(
                f"{name} must lie in the image of {width} x {height} pixels, received x, y = "
                f"{points[outside][0].tolist()} ({outside.sum()} outside): x counts columns from "
                f"the left, y rows from the top."
            )


def segment(
    sam: Sam,
    image: Any,
    points: Any = None,
    labels: Any = None,
    boxes: Any = None,
    masks: Any = None,
) -> Prediction:
    """Segment what prompts show in one image, see `Predictor` for several prompts of the same one.

    Args:
        sam: The model.
        image: As for `Predictor.set_image`.
        points: As for `Predictor.predict`.
        labels: As for `Predictor.predict`.
        boxes: As for `Predictor.predict`.
        masks: As for `Predictor.predict`.

    Returns:
        `Prediction`, three masks of each object.

    Raises:
        ValueError, TypeError, FileNotFoundError: As for `Predictor`.

    Example:
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> segment(sam, np.zeros((20, 30), "uint8"), points=[[3, 5]]).best.shape
        (1, 20, 30)
    """
    return Predictor(sam).set_image(image).predict(points, labels, boxes, masks)


def segment_everything(sam: Sam, image: Any, settings: Settings | None = None) -> Found:
    """Find the masks of all objects of an image, from a grid of points.

    `kft.segmentation.find_masks` does so with any function that predicts masks.

    Args:
        sam: The model.
        image: As for `Predictor.set_image`.
        settings: See `kft.segmentation.Settings`; None for those of the original, with the
            thresholds of the model.

    Returns:
        The masks that remain, the best first, with the numbers of those that do not.

    Raises:
        ValueError, TypeError, FileNotFoundError: As for `Predictor`.

    Example:
        >>> from kft.segmentation import Settings
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> found = segment_everything(sam, np.zeros((20, 30), "uint8"), Settings(4))
        >>> found.labels.shape
        (20, 30)
    """
    return Predictor(sam).set_image(image).everything(settings)


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return a prompt as an array; lists of different lengths are no array."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must have as many entries for each object, received lists of different "
            f"lengths: fill up points with (0, 0) and their labels with -1."
        ) from None


# Between the grid and the image -------------------------------------------------------------------


class _Enlarging:
    """Logits (s, s) to those of the image (H, W): to (S, S), cut to the image, to (H, W).

    Both steps are bilinear without smoothing, as in the reference.
    """

    def __init__(self, shape: Sequence[int], size: int, side: int):
        within = sizes_within(shape[0], shape[1], size)
        to_input = _bilinear(size, side)
        self.rows, self.columns = (
            (_bilinear(length, inside) @ to_input[:inside]).astype("float32")
            for length, inside in zip(shape, within, strict=True)
        )

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return (self.columns @ (self.rows @ logits).T).T


def _bilinear(new: int, old: int) -> sparse.csr_array:
    """Return the matrix (new, old) of bilinear interpolation, pixels counted by their middles."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), max(old - 2, 0))
    high, share = np.minimum(low + 1, old - 1), at - low
    rows = np.tile(np.arange(new), 2)
    values, columns = np.concatenate([1 - share, share]), np.concatenate([low, high])
    return sparse.csr_array((values, (rows, columns)), shape=(new, old))


def _on_grid(masks: np.ndarray, side: int) -> np.ndarray:
    """Return masks (N, H, W) at the middles of the cells of a grid, bool (N, s, s)."""
    rows, columns = cells_of(masks.shape[1:], side)
    grid = np.zeros((len(masks), side, side), bool)
    grid[:, : len(rows), : len(columns)] = masks[:, rows[:, None], columns]
    return grid

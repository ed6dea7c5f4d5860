"""Segmentation of images by prompts: the image is encoded once, its objects are prompted for.

Reference: `segment-anything` 1.0, `predictor.py` and `Sam.postprocess_masks`.

Differences from the reference: many objects at once with different prompts; prompts outside of the
image are an error; the two interpolations from logits to the image are one sparse product.

Shapes: `N` objects, `P` points of each, `K` = 3 masks, `s` side of the grid of logits, `S` side of
the model's input, `H` and `W` of the image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from keras import ops
from scipy import sparse

from kft.arguments import check_flag, check_instance, check_integer, check_number_above
from kft.backbones.sam import Sam, sizes_within
from kft.backbones.sam.prompts import (
    ABSENT,
    BOTTOM_RIGHT,
    NEGATIVE,
    NOT_A_POINT,
    POSITIVE,
    TOP_LEFT,
)
from kft.data.images.pixels import find_range, looked_at, read_pixels
from kft.messages import progress, warn
from kft.segmentation.automatic import Found, Settings, find_masks
from kft.segmentation.masks import boxes_of, cells_of
from kft.segmentation.windows import SMALLEST, Window, window_at

MASKS = 3
STABILITY_OFFSET = 1.0  # of the logits, above and below 0, as in the reference
_SURE = 10.0  # logit of a rough mask that is given as booleans
# Points are filled up to these numbers and objects to powers of two, so that programs that are
# compiled for each shape stay few.
_POINTS = (2, 4, 8, 16, 32, 64)
_KEPT = 64  # windows whose embedding is kept
LEAST_TIMES = 2.0  # of a window, as a multiple of its object
# Views of an image: whether its rows, and whether its columns are in reverse order.
_VIEWS = ((False, False), (False, True), (True, False), (True, True))


@dataclass(frozen=True)
class Prediction:
    """Masks of N objects of one image, three for each.

    Attributes:
        iou: Float (N, 3), the IoU that the model predicts for each mask.
        stability: Float (N, 3), the area where the logits are above 1 divided by that where they
            are above -1; 0 for an empty mask.
        logits: Float (N, 3, s, s), of the window of each object if there are windows; without,
            those of one mask can be given as the prompt `masks`. Those of the image as it is, also
            with `mirrored` and `clip_to_boxes`.
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
        window: Side in pixels of the square part of the image that the model is shown around the
            prompts of an object, for objects that are small in their image. The image encoder then
            runs once for each window: objects near each other share one. None for the whole image.
        times: Least side of a window as a multiple of the longer side of the object's box or rough
            mask; None for 2. Without `window`, this is its side, and points alone will not do.
        mirrored: Show the model three mirrored views of the image, too, and take the mean of the
            logits and of the predicted IoU, for four times the time.
        clip_to_boxes: Cut the masks of objects with a box to the pixels that the box touches; for
            boxes that hold the whole object.

    Attributes:
        shape: (H, W) of the image, (0, 0) before there is one.

    Example:
        >>> import kft
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> predictor = Predictor(sam).set_image(np.zeros((20, 30), "uint8"))
        >>> predictor.predict(points=[[3, 5], [20, 10]]).masks.shape
        (2, 3, 20, 30)
    """

    def __init__(
        self,
        sam: Sam,
        batch_size: int = 64,
        window: int | None = None,
        times: float | None = None,
        mirrored: bool = False,
        clip_to_boxes: bool = False,
    ):
        self.sam = check_instance("sam", sam, Sam, "a SAM, such as of kft.load('sam-vit-base')")
        self.batch_size = check_integer("batch_size", batch_size)
        self.window = None if window is None else check_integer("window", window, SMALLEST)
        self.times = None if times is None else check_number_above("times", times, 1)
        self.mirrored = check_flag("mirrored", mirrored)
        self.clip_to_boxes = check_flag("clip_to_boxes", clip_to_boxes)
        self._views = _VIEWS if mirrored else _VIEWS[:1]
        self.shape: tuple[int, int] = (0, 0)
        self._pixels: Any = None  # array (H, W, 3)
        self._embeddings: dict[Window, np.ndarray] = {}

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
        return self._show(read_pixels(image, "image", encode.value_range))

    def _show(self, pixels: np.ndarray) -> "Predictor":
        """Take pixels (H, W, 3), of 8 bits or floats from 0 to 255, as the image."""
        self.shape, self._pixels = (pixels.shape[0], pixels.shape[1]), pixels
        self._embeddings = {}
        if not self._in_windows:
            self._embedding_of(self._whole)
        return self

    @property
    def _in_windows(self) -> bool:
        return self.window is not None or self.times is not None

    @property
    def _whole(self) -> Window:
        """The window that is the whole image."""
        return Window(0, 0, self.shape[1], self.shape[0])

    def _embedding_of(self, window: Window) -> np.ndarray:
        """Encode the views of a window, or return what is kept of them, (V, h, w, C)."""
        kept = self._embeddings
        if window not in kept:
            pixels = self._pixels[window.part]
            images = np.stack([self.sam.encode.fitted(_seen(pixels, x)) for x in self._views])
            embedding = self.sam.image_encoder.predict_on_batch({"images": images})
            if len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[window] = ops.convert_to_numpy(embedding)
        return kept[window]

    def predict(
        self, points: Any = None, labels: Any = None, boxes: Any = None, masks: Any = None
    ) -> Prediction:
        """Segment what prompts show; an object may have prompts of several kinds.

        Args:
            points: (N, P, 2), x and y in pixels of the image; (N, 2) is one point of each object.
            labels: (N, P): 1 for a point of the object, 0 for one that is not of it, -1 for
                filling; None for 1 everywhere.
            boxes: (N, 4), x0, y0, x1, y1 in pixels of the image; NaN for objects without one.
            masks: Bool (N, H, W); or, without windows, (N, s, s) logits of rough masks, such as
                those of a `Prediction`.

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
        prompts = self._checked(points, labels, boxes, masks)
        windows = self._windows_of(prompts)
        if len(windows) == 1:
            return self._segmented(prompts, windows.items())
        with progress("windows") as bar:
            return self._segmented(prompts, bar.track(windows.items(), description="segmented"))

    def _segmented(
        self, prompts: dict[str, np.ndarray], windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Prediction:
        """Segment objects, given the windows that the model is shown with their numbers."""
        count, side = len(prompts["points"]), 4 * self.sam.grid
        iou, stability = np.empty((count, MASKS), "float32"), np.zeros((count, MASKS))
        logits = np.empty((count, MASKS, side, side), "float32")
        packed = np.empty((count, MASKS, -(-math.prod(self.shape) // 8)), dtype=np.uint8)
        for window, rows in windows:
            enlarge = _Enlarging(window.shape, self.sam.image_size, side)
            for start in range(0, len(rows), self.batch_size):
                some = rows[start : start + self.batch_size]
                given = {name: x[some] for name, x in prompts.items()}
                found, predicted = self._decoded(given, window)
                logits[some], iou[some] = found[0], predicted.mean(axis=0)
                for n, k in np.ndindex(len(some), MASKS):
                    views = zip(found[:, n, k], self._views, strict=True)
                    in_window: Any = sum(_seen(enlarge(x), view) for x, view in views) / len(found)
                    if self.clip_to_boxes and given["labels"][n, 0] == TOP_LEFT:
                        in_window = _clipped(in_window, given["points"][n, :2], window)
                    mask = np.zeros(self.shape, bool)
                    mask[window.part] = in_window > 0
                    packed[some[n], k] = np.packbits(mask)
                    low, high = (
                        int(np.count_nonzero(in_window > offset))
                        for offset in (-STABILITY_OFFSET, STABILITY_OFFSET)
                    )
                    stability[some[n], k] = high / max(low, 1)
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
            other = Predictor(
                self.sam, self.batch_size, self.window, self.times, mirrored=self.mirrored
            )
            return other._show(whole[y0:y1, x0:x1])._of_points

        return find_masks(self._of_points, self.shape, settings, of_crop)

    def _of_points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        prompts = self._checked(points, None, None, None)
        found = self._segmented(prompts, self._windows_of(prompts).items())
        return found.masks, found.iou, found.stability

    def _decoded(
        self, prompts: dict[str, np.ndarray], window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the mask decoder on the views of a window: logits (V, n, 3, s, s), IoU (V, n, 3)."""
        count = len(prompts["points"])
        rows = min(1 << (count - 1).bit_length(), max(self.batch_size, count))
        views = [self._encoded(prompts, window, view) for view in self._views]
        filled = {}
        for name in views[0]:
            x = np.stack([given[name] for given in views])
            filled[name] = np.concatenate([x, np.repeat(x[:, :1], rows - count, axis=1)], axis=1)
        embedding = self._embedding_of(window)
        outputs = self.sam.decode.predict_on_batch({"embedding": embedding, **filled})
        logits, iou = (ops.convert_to_numpy(outputs[name]) for name in ("masks", "iou"))
        return (logits[:, :count, 1:].astype("float32"), iou[:, :count, 1:].astype("float32"))

    def _windows_of(self, prompts: dict[str, np.ndarray]) -> dict[Window, np.ndarray]:
        """Return the windows that the model is shown, with the numbers of their objects."""
        count = len(prompts["points"])
        if not self._in_windows:
            return {self._whole: np.arange(count)}
        windows: dict[Window, list[int]] = {}
        for i in range(count):
            rough = prompts["masks"][i] if prompts["has_mask"][i] else None
            window = self._window_of(prompts["points"][i], prompts["labels"][i], rough)
            windows.setdefault(window, []).append(i)
        return {window: np.array(rows) for window, rows in windows.items()}

    def _window_of(self, points: np.ndarray, kinds: np.ndarray, rough: np.ndarray | None) -> Window:
        """Return the window around an object, which holds all its prompts."""
        beside = points[kinds == NEGATIVE]
        own = points[np.isin(kinds, (POSITIVE, TOP_LEFT, BOTTOM_RIGHT))]
        if rough is not None:
            if not rough.any():
                return self._whole
            own = np.concatenate([own, boxes_of(rough[None]).reshape(2, 2)])
        own = own if len(own) else beside
        low, high = own.min(axis=0), own.max(axis=0)
        side = (self.times or LEAST_TIMES) * (high - low).max()
        if self.window is None and not side:
            raise ValueError(
                "points alone do not say how large an object is: give window, the side of windows "
                "in pixels, to the predictor, or boxes."
            )
        middle = (low + high) / 2
        reach = np.abs(np.concatenate([own, beside]) - middle).max()
        return window_at(middle, max(self.window or SMALLEST, side, 4 * reach), self.shape)

    def _encoded(
        self, prompts: dict[str, np.ndarray], window: Window, view: tuple[bool, bool]
    ) -> dict[str, np.ndarray]:
        """Bring prompts in pixels of the image to the model's input, shown a view of a window."""
        ratio, side = self.sam.image_size / max(window.shape), 4 * self.sam.grid
        rough = prompts["masks"]
        if rough.dtype == bool:
            grid = _on_grid(_seen(rough[:, *window.part], view, (1, 2)), side)
            rough = np.where(grid, _SURE, -_SURE)
        elif any(view):
            rows, columns = (len(cells) for cells in cells_of(window.shape, side))
            rough = rough.copy()
            rough[:, :rows, :columns] = _seen(rough[:, :rows, :columns], view, (1, 2))
        points = prompts["points"] - [window.x0, window.y0]
        points = _points_seen(points, prompts["labels"], window.shape, view)
        return {
            "points": (points * ratio).astype("float32"),
            "labels": prompts["labels"],
            "masks": rough.astype("float32"),
            "has_mask": prompts["has_mask"],
        }

    def _checked(self, points: Any, labels: Any, boxes: Any, masks: Any) -> dict[str, np.ndarray]:
        """Check prompts; return arrays of `kft.backbones.sam.prompts`, in pixels of the image."""
        if self._pixels is None:
            raise RuntimeError("There is no image yet: call predictor.set_image(image) first.")
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
        return {
            "points": np.pad(xy, ((0, 0), (0, missing), (0, 0))),
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
        """Return logits (N, s, s) or bool (N, H, W), and 1 for objects with a rough mask (N,)."""
        side, shape = 4 * self.sam.grid, self.shape
        if masks is None:
            return np.zeros((count, side, side), "float32"), np.zeros(count, "float32")
        if masks.dtype == bool and masks.shape[1:] == shape:
            return masks, np.ones(count, "float32")
        if self._in_windows:
            raise ValueError(
                f"masks of a predictor with windows must be bool (objects, "
                f"{', '.join(map(str, shape))}), such as `best` of a prediction, received "
                f"{masks.dtype} {masks.shape}."
            )
        if masks.shape[1:] != (side, side) or masks.dtype.kind != "f":
            raise ValueError(
                f"masks must be float logits (objects, {side}, {side}), or bool (objects, "
                f"{', '.join(map(str, shape))}), received {masks.dtype} {masks.shape}."
            )
        if not np.isfinite(masks).all():
            raise ValueError("masks must be finite logits, received NaN or infinity.")
        return masks, np.ones(count, "float32")

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
    window: int | None = None,
    times: float | None = None,
    mirrored: bool = False,
    clip_to_boxes: bool = False,
) -> Prediction:
    """Segment what prompts show in one image, see `Predictor` for several prompts of the same one.

    Args:
        sam: The model.
        image: As for `Predictor.set_image`.
        points: As for `Predictor.predict`.
        labels: As for `Predictor.predict`.
        boxes: As for `Predictor.predict`.
        masks: As for `Predictor.predict`.
        window: As for `Predictor`.
        times: As for `Predictor`.
        mirrored: As for `Predictor`.
        clip_to_boxes: As for `Predictor`.

    Returns:
        `Prediction`, three masks of each object.

    Raises:
        ValueError, TypeError, FileNotFoundError: As for `Predictor`.

    Example:
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> segment(sam, np.zeros((20, 30), "uint8"), points=[[3, 5]]).best.shape
        (1, 20, 30)
    """
    options = {"mirrored": mirrored, "clip_to_boxes": clip_to_boxes}
    predictor = Predictor(sam, window=window, times=times, **options).set_image(image)
    return predictor.predict(points, labels, boxes, masks)


def segment_everything(
    sam: Sam,
    image: Any,
    settings: Settings | None = None,
    window: int | None = None,
    mirrored: bool = False,
) -> Found:
    """Find the masks of all objects of an image, from a grid of points.

    `kft.segmentation.find_masks` does so with any function that predicts masks.

    Args:
        sam: The model.
        image: As for `Predictor.set_image`.
        settings: See `kft.segmentation.Settings`; None for those of the original, with the
            thresholds of the model.
        window: As for `Predictor`.
        mirrored: As for `Predictor`.

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
    return Predictor(sam, window=window, mirrored=mirrored).set_image(image).everything(settings)


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return a prompt as an array; lists of different lengths are no array."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must have as many entries for each object, received lists of different "
            f"lengths: fill up points with (0, 0) and their labels with -1."
        ) from None


# Views --------------------------------------------------------------------------------------------


def _seen(x: np.ndarray, view: Sequence[bool], axes: Sequence[int] = (0, 1)) -> np.ndarray:
    """Return an array with the axes of rows and columns reversed as in a view."""
    return np.flip(x, tuple(axis for axis, reverse in zip(axes, view, strict=True) if reverse))


def _points_seen(
    points: np.ndarray, labels: np.ndarray, shape: Sequence[int], view: Sequence[bool]
) -> np.ndarray:
    """Return points (n, P, 2) as they are in a view; those of boxes lie between pixels."""
    points, with_box = points.copy(), labels[:, 0] == TOP_LEFT
    corner = np.isin(labels, (TOP_LEFT, BOTTOM_RIGHT))
    for axis, (length, reverse) in enumerate(zip(shape[::-1], view[::-1], strict=True)):
        if reverse:
            at = np.maximum(np.where(corner, length, length - 1) - points[..., axis], 0)
            at[with_box, :2] = at[with_box, 1::-1]
            points[..., axis] = at
    return points


def _clipped(logits: np.ndarray, corners: np.ndarray, window: Window) -> np.ndarray:
    """Return logits of a window that are minus infinity where the box does not touch a pixel."""
    (x0, y0), (x1, y1) = corners - [window.x0, window.y0]
    part = slice(math.floor(y0), math.ceil(y1)), slice(math.floor(x0), math.ceil(x1))
    clipped = np.full_like(logits, -np.inf)
    clipped[part] = logits[part]
    return clipped


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

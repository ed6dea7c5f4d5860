"""`kft.segmentation.Predictor`: images of any size, prompts of many objects, wrong prompts."""

import models
import numpy as np
import pytest
import torch
from parity import assert_rounds_alike

import kft
from kft.backbones.sam import sizes_within
from kft.segmentation import Settings
from kft.segmentation.predictor import Predictor, _bilinear, _Enlarging, segment

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def sam():
    return models.sam()


@pytest.fixture(scope="module")
def predictor(sam):
    image = np.random.default_rng(0).integers(0, 255, (40, 30)).astype("uint8")
    return Predictor(sam, batch_size=2).set_image(image)


# Images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1), "uint8"), ((1, 50), "uint8"), ((20, 30, 4), "uint8"), ((20, 30, 3), "float32")],
)
def test_images_of_any_size_and_kind(sam, shape, dtype):
    image = np.random.default_rng(0).random(shape)
    image = (255 * image).astype("uint8") if dtype == "uint8" else image.astype(dtype)
    found = segment(sam, image, points=[[0, 0], [shape[1], shape[0]]])
    assert found.masks.shape == (2, 3, *shape[:2])
    assert found.masks.dtype == bool
    assert np.isfinite(found.iou).all()
    assert ((found.stability >= 0) & (found.stability <= 1)).all()


def test_sixteen_bits_are_read_by_the_range_of_the_model_or_else_of_the_image():
    sam, image = models.sam(), np.random.default_rng(0).integers(0, 4000, (40, 30), "uint16")
    with pytest.warns(UserWarning, match="was taken for black"):
        alone = segment(sam, image, points=[[3, 4]])
    sam.value_range = (0, 65535)
    other = segment(sam, image, points=[[3, 4]])
    assert np.abs(alone.logits - other.logits).max() > 1e-3


def test_eight_thousand_pixels_take_one_mask_at_a_time(sam):
    image = np.zeros((8000, 8000), "uint8")
    predictor = Predictor(sam).set_image(image)
    assert predictor.shape == (8000, 8000)
    enlarge = _Enlarging(predictor.shape, sam.image_size, 16)
    assert enlarge.rows.nnz <= 8000 * 4


def test_an_image_is_encoded_once(sam, monkeypatch):
    runs, encode = [], sam.image_encoder.predict_on_batch
    monkeypatch.setattr(
        sam.image_encoder, "predict_on_batch", lambda x: runs.append(1) or encode(x)
    )
    predictor = Predictor(sam)
    with pytest.raises(RuntimeError, match="There is no image yet"):
        predictor.predict(points=[[1, 1]])
    predictor.set_image(np.zeros((9, 9), "uint8"))
    for _ in range(3):
        predictor.predict(points=[[1, 1]])
    assert runs == [1]


def test_automatic_masks_have_the_thresholds_of_the_model(sam, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30), dtype="uint8")
    own = models.sam(automatic={"iou": 0.0, "stability": 0.0})
    settings = Settings(points_per_side=3)
    assert len(kft.segment_everything(sam, image, settings)) == 0
    assert len(kft.segment_everything(own, image, settings)) > 0
    kft.backbones.save(own, tmp_path)
    assert kft.load(tmp_path).automatic == own.automatic == {"iou": 0.0, "stability": 0.0}


# Prompts ------------------------------------------------------------------------------------------


def test_objects_are_segmented_as_if_each_were_alone(predictor):
    points = np.array([[[3, 4], [5, 6]], [[1, 2], [0, 0]], [[20, 30], [9, 9]]])
    labels, boxes = [[1, 0], [1, -1], [1, 1]], [[np.nan] * 4, [1, 2, 10, 12], [np.nan] * 4]
    together = predictor.predict(points, labels, boxes)  # in two parts, of 2 and 1
    alone = [
        predictor.predict(points[:1], [[1, 0]]),
        predictor.predict([[1, 2]], boxes=[[1, 2, 10, 12]]),
        predictor.predict(points[2:]),
    ]
    for i, one in enumerate(alone):
        assert_rounds_alike(together.logits[i], one.logits[0])
        assert_rounds_alike(together.iou[i], one.iou[0])
    assert np.array_equal(together.best[0], together.masks[0, together.iou[0].argmax()])
    assert len(together) == 3


def test_masks_are_prompts_as_logits_and_as_booleans(predictor):
    first = predictor.predict(points=[[3, 4]])
    by_point = predictor.predict(points=[[3, 4]], masks=first.logits[:, 0])
    assert np.abs(by_point.logits - first.logits).max() > 1e-4
    mask = np.zeros((1, 40, 30), bool)
    mask[0, :20, :15] = True
    logits = np.full((1, 16, 16), -10.0, "float32")
    logits[0, :8, :6] = 10  # the image of 40 x 30 fills 16 x 12 cells
    one, two = (predictor.predict(masks=x) for x in (mask, logits))
    np.testing.assert_array_equal(one.logits, two.logits)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "There is no prompt"),
        ({"points": [[31, 2]]}, r"points must lie in the image of 30 x 40 pixels.*\[31, 2\]"),
        ({"points": [[-1, 2]]}, "points must lie in the image"),
        ({"points": [[np.nan, 2]]}, "points must lie in the image"),
        ({"points": [1, 2, 3]}, "points must be numbers"),
        ({"points": [["a", "b"]]}, "points must be numbers"),
        ({"points": np.zeros((0, 2))}, "at least one"),
        ({"points": [[[1, 2], [3, 4]], [[5, 6]]]}, "points must have as many entries.*with -1"),
        ({"points": [[1, 2], [3, 4]], "labels": [[1], [1, 0]]}, "labels must have as many"),
        ({"points": [[1, 2]], "labels": [[2]]}, "labels must be 1, 0 or -1"),
        ({"points": [[1, 2]], "labels": [[1, 1]]}, "labels must be 1, 0 or -1"),
        ({"points": [[1, 2]], "labels": [[-1]]}, "1 of 1 objects have no prompt"),
        ({"labels": [[1]], "boxes": [[1, 2, 3, 4]]}, "labels are those of points"),
        ({"boxes": [[5, 5, 2, 8]]}, r"x0 < x1 and y0 < y1, received \[5, 5, 2, 8\]"),
        ({"boxes": [[5, 5, 5, 8]]}, "x0 < x1"),
        ({"boxes": [[5, 5, 50, 8]]}, "boxes must lie in the image"),
        ({"boxes": [[5, np.nan, 7, 8]]}, "boxes must lie in the image"),
        ({"boxes": [1, 2, 3, 4]}, "boxes must be numbers"),
        ({"boxes": [[1, 2, 3, 4]], "points": [[1, 1], [2, 2]]}, "of the same objects"),
        (
            {"masks": np.zeros((1, 3, 3))},
            r"masks must be float logits \(objects, 16, 16\)",
        ),
        ({"masks": np.full((1, 16, 16), np.nan)}, "masks must be finite"),
    ],
)
def test_wrong_prompts_are_named(predictor, prompts, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(**prompts)


def test_a_predictor_takes_a_sam_and_an_image(sam):
    with pytest.raises(TypeError, match="sam must be a SAM"):
        Predictor("sam")
    with pytest.raises(TypeError, match="image must be a path"):
        Predictor(sam).set_image(np.zeros((0, 3)))
    with pytest.raises(FileNotFoundError):
        Predictor(sam).set_image("missing.png")


# Views and boxes ----------------------------------------------------------------------------------


def reversed_in(view, shape, points=None, boxes=None, masks=None):
    """Prompts as they are in an image (H, W) whose rows or columns are in reverse order."""
    rows, columns = view
    points, boxes = points.copy(), boxes.copy()
    if columns:
        points[..., 0] = shape[1] - 1 - points[..., 0]
        boxes = np.stack(
            [shape[1] - boxes[:, 2], boxes[:, 1], shape[1] - boxes[:, 0], boxes[:, 3]], 1
        )
    if rows:
        points[..., 1] = shape[0] - 1 - points[..., 1]
        boxes = np.stack(
            [boxes[:, 0], shape[0] - boxes[:, 3], boxes[:, 2], shape[0] - boxes[:, 1]], 1
        )
    masks = masks[:, ::-1] if rows else masks
    return {"points": points, "boxes": boxes, "masks": masks[..., ::-1] if columns else masks}


@pytest.mark.parametrize("kind", ["logits", "bool"])
def test_mirrored_views_are_averaged(sam, predictor, kind):
    """As if the model were asked about each view by itself."""
    shape, rng = (40, 30), np.random.default_rng(1)
    pixels, views = predictor._pixels, [(r, c) for r in (False, True) for c in (False, True)]
    prompts = {
        "points": np.array([[[10, 20], [3, 4]], [[29, 0], [5, 9]], [[4, 4], [9, 30]]]),
        "boxes": np.array([[5.0, 10, 20, 30], [0, 0, 7, 9], [np.nan] * 4]),
        "masks": rng.random((3, *shape)) < 0.5,
    }
    if kind == "logits":  # of which 16 x 12 cells are of the image
        prompts["masks"] = 5 * rng.standard_normal((3, 16, 16)).astype("float32")
        prompts["masks"][:, :, 12:] = 0
    labels = np.array([[1, 0], [1, -1], [1, 1]])
    enlarge = _Enlarging(shape, sam.image_size, 16)
    iou, logits = [], []
    for rows, columns in views:
        given = reversed_in((rows, columns), shape, **prompts)
        if kind == "logits":
            given["masks"] = np.roll(given["masks"], -4, axis=2) if columns else given["masks"]
        order = np.s_[:: -1 if rows else 1, :: -1 if columns else 1]
        found = (
            Predictor(sam).set_image(pixels[order].astype("uint8")).predict(labels=labels, **given)
        )
        iou.append(found.iou)
        logits.append([[enlarge(x)[order] for x in three] for three in found.logits])
    mirrored = Predictor(sam, batch_size=2, mirrored=True).set_image(pixels.astype("uint8"))
    found = mirrored.predict(labels=labels, **prompts)
    assert_rounds_alike(found.iou, np.mean(iou, axis=0))
    assert np.abs(found.iou - iou[0]).max() > 1e-3
    expected = np.mean(logits, axis=0)
    clear = np.abs(expected) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found.masks[clear], expected[clear] > 0)
    assert (found.masks != (np.array(logits[0]) > 0)).any()


def test_masks_are_clipped_to_boxes(sam, predictor, monkeypatch):
    monkeypatch.setattr("kft.segmentation.predictor.STABILITY_OFFSET", 0.01)  # logits are small
    boxes = np.array([[5.5, 10, 20, 30.2], [0, 0, 30, 40], [np.nan] * 4])
    points = np.array([[10, 20], [3, 4], [10, 20]])
    clipping = Predictor(sam, 2, clip_to_boxes=True).set_image(predictor._pixels.astype("uint8"))
    whole, clipped = (one.predict(points, boxes=boxes) for one in (predictor, clipping))
    inside = np.zeros((40, 30), bool)
    inside[10:31, 5:20] = True  # pixels that the box touches
    np.testing.assert_array_equal(clipped.masks[0], whole.masks[0] & inside)
    assert (whole.masks[0] & ~inside).any() and clipped.masks[0].any()
    np.testing.assert_array_equal(clipped.packed[1:], whole.packed[1:])
    for name in ("iou", "logits"):
        np.testing.assert_array_equal(getattr(clipped, name), getattr(whole, name))
    inner = _Enlarging((40, 30), sam.image_size, 16)(whole.logits[0, 0])[inside]
    expected = np.count_nonzero(inner > 0.01) / np.count_nonzero(inner > -0.01)
    assert clipped.stability[0, 0] == pytest.approx(expected)
    assert expected not in (0, whole.stability[0, 0])
    beside = Predictor(sam, clip_to_boxes=True, times=2).set_image(
        predictor._pixels.astype("uint8")
    )
    assert not (beside.predict(boxes=boxes[:1]).masks[0] & ~inside).any()


# From logits to the image -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 30), (7, 100), (1, 1), (300, 200)])
def test_masks_are_enlarged_as_in_the_reference(shape):
    logits = np.random.default_rng(0).standard_normal((16, 16)).astype("float32")
    options = {"mode": "bilinear", "align_corners": False}
    expected = torch.nn.functional.interpolate(
        torch.tensor(logits)[None, None], (32, 32), **options
    )
    height, width = sizes_within(*shape, 32)
    expected = torch.nn.functional.interpolate(expected[..., :height, :width], shape, **options)
    assert_rounds_alike(_Enlarging(shape, 32, 16)(logits), expected[0, 0].numpy())
    np.testing.assert_allclose(_bilinear(5, 1).toarray(), np.ones((5, 1)))

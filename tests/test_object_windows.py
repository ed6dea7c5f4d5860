"""Windows around small objects: where they lie, what is predicted in them, how they are cut."""

from dataclasses import replace

import models
import numpy as np
import pytest
from parity import assert_rounds_alike

import kft
from kft.segmentation import Predictor, Prompting, object_windows, segment
from kft.segmentation.windows import Window, window_at

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def sam():
    return models.sam()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (120, 90), dtype="uint8")


@pytest.mark.parametrize("shape", [(120, 90), (10, 200), (1, 1)])
@pytest.mark.parametrize("side", [16, 33, 150])
def test_windows_lie_in_the_image_and_hold_their_middle(shape, side):
    rng = np.random.default_rng(0)
    for middle in rng.uniform(0, 1, (50, 2)) * shape[::-1]:
        x0, y0, x1, y1 = window = window_at(middle, side, shape)
        assert 0 <= x0 < x1 <= shape[1]
        assert 0 <= y0 < y1 <= shape[0]
        assert window.shape == (min(side, shape[0]), min(side, shape[1]))
        assert x0 <= middle[0] <= x1
        assert y0 <= middle[1] <= y1


def test_an_object_is_segmented_as_in_its_window_alone(sam, image):
    boxes = np.array([[40, 50, 50, 58], [2, 3, 9, 12], [43, 52, 51, 60]])
    predictor = Predictor(sam, window=32).set_image(image)
    found = predictor.predict(boxes=boxes)
    for i, box in enumerate(boxes):
        window = window_at((box[:2] + box[2:]) / 2, 32, image.shape)
        alone = segment(sam, image[window.part], boxes=[box - [window.x0, window.y0] * 2])
        assert_rounds_alike(found.logits[i], alone.logits[0])
        assert_rounds_alike(found.iou[i], alone.iou[0])
        inside = np.zeros(image.shape, bool)
        inside[window.part] = alone.best[0]
        np.testing.assert_array_equal(found.best[i], inside)
        np.testing.assert_allclose(found.stability[i], alone.stability[0])
    again = segment(sam, image, boxes=boxes, window=32)
    np.testing.assert_array_equal(again.packed, found.packed)


def test_the_encoder_runs_once_for_each_window(sam, image, monkeypatch):
    runs, encode = [], sam.image_encoder.predict_on_batch
    monkeypatch.setattr(
        sam.image_encoder, "predict_on_batch", lambda x: runs.append(1) or encode(x)
    )
    predictor = Predictor(sam, window=32).set_image(image)
    assert runs == []
    near = np.array([[40.0, 52], [41, 53], [80, 100]])  # the first two share a window
    predictor.predict(near)
    predictor.predict(near)
    assert len(runs) == 2
    predictor.set_image(image[::-1])
    predictor.predict(near)
    assert len(runs) == 4


def test_windows_hold_all_prompts_of_an_object(sam, image):
    predictor = Predictor(sam, window=16).set_image(image)

    def window_of(**prompts):
        given = {"points": None, "labels": None, "boxes": None, "masks": None, **prompts}
        return next(iter(predictor._windows_of(predictor._checked(**given))))

    assert window_of(points=[[40, 50]]).shape == (16, 16)
    assert window_of(boxes=[[10, 20, 40, 30]]).shape == (60, 60)  # twice the longer side
    x0, _, x1, _ = window_of(points=[[[40, 50], [70, 50]]], labels=[[1, 0]])
    assert x0 <= 40 - 8
    assert x1 >= 70
    rough = np.zeros((1, 120, 90), bool)
    rough[0, 60:70, 20:30] = True
    assert window_of(masks=rough).shape == (20, 20)
    assert window_of(masks=rough & False) == Window(0, 0, 90, 120)
    found = predictor.predict(masks=rough)
    assert np.abs(found.logits - predictor.predict(boxes=[[20, 60, 30, 70]]).logits).max() > 1e-4
    with pytest.raises(ValueError, match="masks of a predictor with windows must be bool"):
        predictor.predict(masks=found.logits[:, 0])
    with pytest.raises(ValueError, match="window must be an integer of at least 16"):
        Predictor(sam, window=3)


def test_windows_grow_with_their_objects(sam, image):
    boxes = np.array([[10, 20, 20, 30], [40, 60, 60, 64]])
    predictor = Predictor(sam, times=4).set_image(image)
    sides = [
        window.shape
        for window in predictor._windows_of(predictor._checked(None, None, boxes, None))
    ]
    assert sides == [(40, 40), (80, 80)]
    np.testing.assert_array_equal(
        segment(sam, image, boxes=boxes, times=4).packed, predictor.predict(boxes=boxes).packed
    )
    with pytest.raises(ValueError, match="points alone do not say how large"):
        predictor.predict(points=[[30, 40]])


def test_automatic_masks_are_found_in_windows(sam, image):
    settings = kft.segmentation.Settings(points_per_side=3, iou=0, stability=0)
    found = kft.segment_everything(sam, image, settings, window=40)
    assert len(found) > 0
    assert found.labels.shape == image.shape


# Training -----------------------------------------------------------------------------------------


def test_windows_of_a_data_set_hold_one_object_in_their_middle():
    data = kft.data.load("cells", images=6, size=128)
    cut = object_windows(data, times=4, each=5)
    assert cut.test is data.test
    assert len(cut.train) <= 5 * len(data.train)
    for image, labels in zip(cut.train.inputs, cut.train.targets, strict=True):
        assert image.shape[:2] == labels.shape
        assert image.dtype == np.uint8
        assert np.unique(labels).tolist() == [0, 1]
    again = object_windows(data, times=4, each=5)
    for one, other in zip(cut.train.inputs, again.train.inputs, strict=True):
        np.testing.assert_array_equal(one, other)
    every = object_windows(data, times=4, each=None)
    assert len(every.train) == sum(int(x.max()) for x in data.train.targets)
    assert "Windows of 4 times" in cut.notes[-1]


def test_a_window_shows_the_pixels_of_its_object():
    labels = np.zeros((200, 300), "uint16")
    labels[90:110, 140:170] = 3
    pixels = np.where(labels > 0, 40_000, 100).astype("uint16")
    part = kft.data.Split([pixels], [labels])
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Segmentation("one", "segmentation", part, None, None, **about)
    cut = object_windows(data, times=5)
    (image,), (found,) = cut.train.inputs, cut.train.targets
    assert cut.valid is None
    assert image.dtype == np.uint16  # 16 bits keep their depth
    np.testing.assert_array_equal(image > 1000, found == 1)
    assert np.count_nonzero(found) == 600
    assert 0.75 * 150 < max(image.shape) <= 1.3 * 150
    labels[90:110, 175:180] = 7  # in the same window
    beside = object_windows(replace(data, train=kft.data.Split([pixels], [labels])), times=20)
    assert sorted(np.count_nonzero(x) for x in beside.train.targets) == [100, 600]
    with pytest.raises(ValueError, match="no image of train has an object"):
        object_windows(replace(data, train=kft.data.Split([pixels], [labels * 0])))
    with pytest.raises(TypeError, match="data must be"):
        object_windows([pixels])
    with pytest.raises(ValueError, match="times must be"):
        object_windows(data, times=0.5)


def test_a_sam_is_trained_on_windows():
    sam = models.sam()
    cut = object_windows(kft.data.load("cells", images=6, size=64), each=2)
    done = kft.fit(
        sam, cut, "mask_decoder", epochs=1, batch_size=2, verbose=0,
        prompting=Prompting(1, 1, box_probability=1, box_noise=0, best=0.3),
    )  # fmt: skip
    assert np.isfinite(done.history[0]["loss"])

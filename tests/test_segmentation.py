"""Masks: formats, scores, baselines, prompts and automatic masks. Nothing here needs a model."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from kft import data
from kft.plots import plot_masks
from kft.segmentation import automatic, baselines, masks, metrics, prompts

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cells():
    return data.simulate_cells((48, 64), "fluorescence", [0, 0])


@pytest.fixture(scope="module")
def overlapping():
    """Masks that overlap, of a size that is no square, one of a single pixel and one empty."""
    rng = np.random.default_rng(1)
    found = rng.random((6, 9, 13)) < 0.4
    found[3] = False
    found[4] = np.arange(117).reshape(9, 13) == 40
    return found


# Masks and their files ----------------------------------------------------------------------------


def test_masks_labels_and_boxes(cells):
    labels = cells[1]
    found = masks.to_masks(labels)
    assert len(found) == labels.max() and found.dtype == bool
    np.testing.assert_array_equal(masks.to_labels(found), labels)
    np.testing.assert_array_equal(masks.boxes_of(found), masks.boxes_of(labels))
    for mask, (x0, y0, x1, y1) in zip(found, masks.boxes_of(labels).astype(int), strict=True):
        window = mask[y0:y1, x0:x1]
        assert window.sum() == mask.sum()
        assert all(side.any() for side in (window[0], window[-1], window[:, 0], window[:, -1]))


def test_gaps_in_numbers_and_images_without_objects():
    labels = np.array([[0, 70_000], [3, 3]])
    np.testing.assert_array_equal(masks.boxes_of(labels), [[0, 1, 2, 2], [1, 0, 2, 1]])
    empty = np.zeros((4, 5), int)
    assert masks.to_masks(empty).shape == (0, 4, 5) and masks.boxes_of(empty).shape == (0, 4)
    assert not masks.to_labels(np.zeros((0, 4, 5))).any()
    np.testing.assert_array_equal(masks.boxes_of(np.zeros((1, 4, 5))), [[0, 0, 0, 0]])


def test_run_lengths_are_those_of_pycocotools(overlapping):
    from pycocotools import mask as reference

    encoded = masks.to_rle(overlapping)
    np.testing.assert_array_equal(masks.from_rle(json.loads(json.dumps(encoded))), overlapping)
    decoded = reference.decode(encoded).transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded, overlapping)
    boxes = reference.toBbox(encoded)[[0, 1, 2, 4, 5]]
    ours = masks.boxes_of(overlapping)[[0, 1, 2, 4, 5]]
    np.testing.assert_array_equal(np.hstack([ours[:, :2], ours[:, 2:] - ours[:, :2]]), boxes)


@pytest.mark.parametrize("ending", [".tif", ".tiff", ".png", ".json", ".npy"])
def test_files_are_read_again(tmp_path, cells, ending):
    image, labels = cells
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    where = tmp_path if ending == ".json" else tmp_path / "labels"
    path = masks.save_masks(masks.to_masks(labels), where / f"a{ending}", tmp_path / "a.png")
    assert [x.name for x in where.iterdir() if x.is_file()] == [path.name]  # nothing else is left
    if ending == ".npy":
        np.testing.assert_array_equal(np.load(path), masks.to_masks(labels))
    else:
        read = data.read_segmentation(tmp_path, split=None).train.targets[0]
        np.testing.assert_array_equal(read, labels)


def test_masks_that_a_label_image_hides_are_counted(tmp_path):
    hidden = [[[1, 0, 0]], [[1, 1, 0]], [[1, 0, 0]], [[0, 0, 0]]]
    with pytest.warns(UserWarning, match="2 of 4 masks are empty, or covered by smaller ones"):
        masks.save_masks(hidden, tmp_path / "a.tif")


def test_a_tiff_says_how_imagej_shows_it(tmp_path, cells):
    path = masks.save_masks(cells[1], tmp_path / "labels.tif")
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej and file.pages[0].dtype == np.uint16
        assert file.imagej_metadata["max"] == cells[1].max()
    many = np.arange(300 * 300).reshape(300, 300)
    masks.save_masks(many, path)
    np.testing.assert_array_equal(tifffile.imread(path), many)
    with pytest.raises(ValueError, match=r"numbers up to 89,999: a PNG has 16 bits"):
        masks.save_masks(many, tmp_path / "labels.png")
    assert [x.name for x in tmp_path.iterdir()] == ["labels.tif"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.to_labels(np.full((1, 2, 2), 0.5)), "received values from 0.5 to 0.5: comp"),
        (lambda: masks.to_labels(np.zeros((2, 2))), r"array \(objects, height, width\)"),
        (lambda: masks.save_masks(np.zeros((1, 2, 2)), "a.jpg"), r"path must end in .tif, "),
        (lambda: masks.from_rle([{"size": [2, 2], "counts": [5]}]), r"rles\[0\] has runs of 5"),
        (lambda: masks.to_coco(np.ones((2, 1, 1)), "a.png", [0.5]), "for each of 2 masks, rec"),
        (lambda: metrics.iou_matrix(np.eye(2), np.eye(3)), r"one size, received \(2, 2\) and \(3"),
        (lambda: metrics.mask_iou(np.zeros((1, 2, 2)), np.zeros((2, 2, 2))), "must have one shape"),
        (lambda: metrics.accuracy_at(np.eye(2), [0.0]), "thresholds must be above 0"),
        (lambda: metrics.score_labels([np.eye(2)], []), "one label image for each image"),
        (lambda: baselines.ellipse_in_box([[5, 0, 1, 9]], (9, 9)), r"box 0 is \[5.0, 0.0, 1.0"),
        (
            lambda: masks.from_rle([{"size": [2, i], "counts": [2 * i]} for i in (1, 2)]),
            "rles must be masks of one size, received 2 sizes",
        ),
        (lambda: baselines.ellipse_in_box([[0, 0, 1]], (9, 9)), r"x0, y0, x1, y1, .* \(1, 3\)"),
        (lambda: baselines.disc_at_point([1, 1], 2, (9, 9)), r"\(objects, 2\), x and y, received"),
        (lambda: baselines.disc_at_point([[1, 1]], 0, (9, 9)), "radius must be a number above 0"),
        (lambda: baselines.median_radius([np.zeros((2, 2))]), "hold no objects"),
        (lambda: automatic.Settings(iou=88), "iou must be a number from 0 to 1, received 88"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Scores -------------------------------------------------------------------------------------------


def test_iou_is_that_of_the_masks(cells):
    truth = cells[1]
    predicted = np.roll(truth, 2, axis=1) * 3
    found = metrics.iou_matrix(truth, predicted)
    pairs = [(a, b) for a in masks.to_masks(truth) for b in masks.to_masks(predicted)]
    expected = [(a & b).sum() / (a | b).sum() for a, b in pairs]
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-12)
    one, other = (np.array(x) for x in zip(*pairs, strict=True))
    np.testing.assert_allclose(metrics.mask_iou(one, other), expected, rtol=1e-12)
    assert metrics.mask_iou(np.zeros((1, 2, 2)), np.zeros((1, 2, 2))).tolist() == [1.0]


def test_the_most_objects_are_matched():
    rng = np.random.default_rng(0)
    for objects, found in ((5, 7), (7, 5), (1, 1), (6, 6)):
        iou = rng.random((objects, found))
        for limit in (0.05, 0.5, 0.8):
            rows, columns = linear_sum_assignment(iou >= limit, maximize=True)
            hits = (iou[rows, columns] >= limit).sum()
            expected = hits / (objects + found - hits)
            assert metrics.accuracy_at(iou, limit).tolist() == [expected]


def test_images_without_objects_or_masks():
    none = np.zeros((4, 4), int)
    one = none.copy()
    one[1:3, 1:3] = 1
    cases = ((none, none, 1), (one, none, 0), (none, one, 0), (one, one, 1))
    for truth, predicted, expected in cases:
        assert set(metrics.accuracy_at(metrics.iou_matrix(truth, predicted))) == {expected}
    scores = metrics.score_labels([one] * 4, [one, one, one, none])
    assert scores["SA"].value == 0.75 and scores.headline == "SA"
    assert scores["SA"].low < 0.75 < scores["SA"].high


def test_sa_is_the_mean_over_thresholds():
    truth, predicted = np.zeros((2, 10, 10), int)
    truth[:, :8], predicted[:, :6] = 1, 1  # IoU 0.75
    assert metrics.THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    scores = metrics.score_labels([truth] * 2, [predicted] * 2)
    assert scores["SA"].value == 0.6 and scores["TP/(TP+FP+FN) at 0.5"].value == 1


# Baselines ----------------------------------------------------------------------------------------


def test_ellipse_and_disc():
    ellipse = baselines.ellipse_in_box([[10, 20, 70, 60], [3, 4, 4, 5], [8, 8, 8, 8]], (80, 90))
    assert abs(ellipse[0].sum() / (np.pi * 30 * 20) - 1) < 0.01
    np.testing.assert_array_equal(masks.boxes_of(ellipse[:2]), [[10, 20, 70, 60], [3, 4, 4, 5]])
    disc = baselines.disc_at_point([[40, 30]], 12.0, (80, 90))
    assert abs(disc[0].sum() / (np.pi * 144) - 1) < 0.03
    assert ndimage.center_of_mass(disc[0]) == (30.0, 40.0)
    assert abs(baselines.median_radius(disc) - 12) < 0.2


@pytest.mark.parametrize("dark", [False, True])
def test_otsu_and_watershed_cut_touching_discs(dark):
    discs = baselines.disc_at_point([[14, 16], [30, 16], [45, 40], [3, 40]], 9.0, (56, 64))
    truth = masks.to_labels(discs)
    image = np.where(truth > 0, 200, 20).astype("uint16") * 50
    found = baselines.otsu_watershed(65535 - image if dark else image)
    assert found.max() == 4
    assert metrics.accuracy_at(metrics.iou_matrix(truth, found), 0.75).tolist() == [1.0]
    assert not baselines.otsu_watershed(np.full((9, 9), 7, "uint8")).any()


def test_baselines_on_nuclei(nuclei):
    """A few of the smallest images; all of them in tests/benchmarks/benchmark_segmentation.py."""
    images, labels = nuclei
    found = [baselines.otsu_watershed(image) for image in images]
    assert metrics.score_labels(labels, found)["TP/(TP+FP+FN) at 0.5"].value > 0.5
    each = []
    for image in labels:
        ellipse = baselines.ellipse_in_box(masks.boxes_of(image), image.shape)
        each.append(metrics.mask_iou(masks.to_masks(image), ellipse))
    assert 0.7 < metrics.mean_iou(each).value < 0.9


@pytest.fixture(scope="module")
def nuclei():
    import os
    from pathlib import Path

    folder = Path(os.environ.get("KFT_DATA") or "absent") / "nuclei"
    if not folder.is_dir():
        pytest.skip("the images of nuclei are not there")
    names = [x for x in sorted((folder / "images").iterdir()) if x.stat().st_size < 20_000][:6]
    read = [
        tuple(np.asarray(Image.open(folder / kind / path.name)) for kind in ("images", "labels"))
        for path in names
    ]
    return zip(*read, strict=True)


# Prompts ------------------------------------------------------------------------------------------


def test_points_are_drawn_evenly_from_each_mask(overlapping):
    rng = np.random.default_rng(0)
    counts = np.zeros(overlapping.shape)
    for _ in range(2000):
        points, there = prompts.draw_points(overlapping, rng)
        x, y = points[there].astype(int).T
        counts[np.flatnonzero(there), y, x] += 1
    assert there.tolist() == [True, True, True, False, True, True]
    assert not counts[~overlapping].any()
    assert (counts.sum(axis=(1, 2)) == 2000 * there).all()
    for mask, count in zip(overlapping[there], counts[there], strict=True):
        expected = 2000 / mask.sum()
        assert (np.abs(count[mask] - expected) < 5 * np.sqrt(expected)).all()


def test_boxes_have_noise_of_a_tenth_of_their_side():
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 80:120, 100:200] = True
    rng = np.random.default_rng(0)
    drawn = np.array([prompts.draw_boxes(mask, rng)[0] for _ in range(500)])
    noise = drawn - [100, 80, 200, 120]
    np.testing.assert_allclose(noise.std(axis=0), [10, 4, 10, 4], rtol=0.12)
    assert np.abs(noise).max() <= 20
    assert (drawn[:, 2:] > drawn[:, :2]).all()
    single = np.zeros((2, 5, 5), bool)
    single[0, 4, 4] = True
    boxes = prompts.draw_boxes(single, rng)
    assert np.isnan(boxes[1]).all() and (boxes[0, 2:] - boxes[0, :2] >= 1).all()
    assert (boxes[0] >= 0).all() and (boxes[0] <= 5).all()


def test_first_prompts_are_points_or_boxes(overlapping):
    rng = np.random.default_rng(0)
    drawn = [prompts.first_prompts(overlapping, rng) for _ in range(200)]
    boxed = np.array([~np.isnan(one.boxes[:, 0]) for one in drawn])
    pointed = np.array([one.labels[:, 0] == prompts.POSITIVE for one in drawn])
    full = overlapping.any(axis=(1, 2))
    assert (boxed ^ pointed)[:, full].all() and not (boxed | pointed)[:, ~full].any()
    assert 0.4 < boxed[:, full].mean() < 0.6
    again = prompts.first_prompts(overlapping, np.random.default_rng(0))
    np.testing.assert_array_equal(again.points, drawn[0].points)
    assert (again.points.dtype, again.labels.dtype, again.boxes.dtype) == ("f4", "i4", "f4")


def test_corrections_come_from_the_error():
    rng = np.random.default_rng(0)
    truth = np.zeros((4, 8, 8), bool)
    truth[:, 2:6, 2:6] = True
    predicted = truth.copy()
    predicted[0, 3, 3] = False  # missed
    predicted[1, 0, 7] = True  # beyond
    predicted[2] = ~truth[2]  # both
    given = prompts.first_prompts(truth, rng, 0.0)
    signs = set()
    for _ in range(40):
        more = prompts.corrected(given, truth, predicted, rng)
        assert more.points.shape == (4, 2, 2) and more.labels[:, 1].tolist()[3] == prompts.PADDING
        assert more.points[:2, 1].tolist() == [[3, 3], [7, 0]]
        assert more.labels[:2, 1].tolist() == [prompts.POSITIVE, prompts.NEGATIVE]
        x, y = more.points[2, 1].astype(int)
        assert more.labels[2, 1] == truth[2, y, x]
        signs.add(int(more.labels[2, 1]))
    assert signs == {0, 1}
    np.testing.assert_array_equal(more.points[:, 0], given.points[:, 0])


def test_the_last_mask_is_a_prompt_half_of_the_time():
    rng = np.random.default_rng(0)
    drawn = np.array([prompts.rounds_with_mask(8, rng) for _ in range(500)])
    assert not drawn[:, 0].any() and 0.45 < drawn[:, 1:].mean() < 0.55


# Automatic masks ----------------------------------------------------------------------------------


def oracle(labels, crop=None):
    """A perfect model: of each point the whole object, a part of it, and everything."""
    x0, y0, x1, y1 = crop or (0, 0, *labels.shape[::-1])
    part = labels[y0:y1, x0:x1]

    def predict(points):
        x, y = points[:, 0].astype(int).T
        number = part[y, x][:, None, None]
        whole = (part == number) & (number > 0)
        found = np.stack([whole, whole & (np.arange(part.shape[1]) % 2 > 0), whole | True], axis=1)
        n = len(points)
        return found, np.tile([0.95, 0.9, 0.5], (n, 1)), np.tile([0.97, 0.6, 0.99], (n, 1))

    return predict


def test_all_objects_are_found(cells):
    labels = cells[1]
    settings = automatic.Settings(points_per_side=24, points_per_batch=50)
    found = automatic.find_masks(oracle(labels), labels.shape, settings)
    assert metrics.accuracy_at(metrics.iou_matrix(labels, found.labels), 0.99).tolist() == [1.0]
    assert len(found) == labels.max() and (found.iou == 0.95).all()
    on = labels[tuple(np.floor(automatic.grid_of_points(24, labels.shape)).astype(int).T[::-1])] > 0
    assert found.dropped == {
        "of low predicted IoU": 576, "of low stability": 576, "empty": 576 - on.sum(),
        "on a better mask": on.sum() - len(found),
    }  # fmt: skip
    x, y = found.points.astype(int).T
    assert (found.masks[np.arange(len(found)), y, x]).all()


def test_crops_find_small_objects_and_cut_none():
    discs = baselines.disc_at_point([[30, 30], [128, 99], [150, 50], [160, 160]], 6.0, (200, 200))
    labels = masks.to_labels(discs)
    settings = automatic.Settings(points_per_side=12, crop_layers=1, crop_overlap=0.3)
    alone = automatic.Settings(points_per_side=12)
    assert len(automatic.find_masks(oracle(labels), labels.shape, alone)) < 4
    found = automatic.find_masks(
        oracle(labels), labels.shape, settings, lambda crop: oracle(labels, crop)
    )
    assert metrics.accuracy_at(metrics.iou_matrix(labels, found.labels), 0.99).tolist() == [1.0]
    with pytest.raises(ValueError, match="settings have crops, for which `crop` must be"):
        automatic.find_masks(oracle(labels), labels.shape, settings)


def test_progress_counts_each_point_of_each_crop(monkeypatch):
    seen = {"total": 0, "done": 0}

    class Bar:
        def add_task(self, name, total):
            seen["total"] += total

        def advance(self, task, points):
            seen["done"] += points

    monkeypatch.setattr(automatic, "progress", lambda unit: nullcontext(Bar()))
    labels = np.ones((60, 60), int)
    settings = automatic.Settings(points_per_side=6, points_per_batch=5, crop_layers=1)
    automatic.find_masks(oracle(labels), (60, 60), settings, lambda crop: oracle(labels, crop))
    assert seen == {"total": 5 * 36, "done": 5 * 36}


def test_areas_are_filtered_and_small_regions_removed():
    labels = np.zeros((40, 40), int)
    labels[2:12, 2:12], labels[5, 5] = 1, 0  # a hole of one pixel
    labels[20, 20] = 1  # an island
    labels[30, 30:32] = 2
    labels[20:40, 0:20] = 3
    settings = automatic.Settings(points_per_side=40, least_area=9, most_area=0.2)
    found = automatic.find_masks(oracle(labels), labels.shape, settings)
    assert len(found) == 1
    expected = np.zeros((40, 40), bool)
    expected[2:12, 2:12] = True
    np.testing.assert_array_equal(found.masks[0], expected)
    assert found.dropped["too small"] == found.dropped["too large"] == 1


def test_boxes_that_overlap_a_better_one_are_left_out():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (60, 2))
    boxes = np.hstack([low, low + rng.uniform(5, 10, (60, 2))])
    scores = rng.random(60)
    kept = automatic.box_nms(boxes, scores, 0.3)
    assert (np.diff(scores[kept]) < 0).all() and 5 < len(kept) < 60

    def overlap(a, b):
        both = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
        return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)

    for i in range(60):  # one remains unless a better one that remains is on it
        better = [k for k in kept if scores[k] > scores[i]]
        assert (i in kept) == all(overlap(boxes[i], boxes[k]) <= 0.3 for k in better)


def test_points_of_large_images_are_predicted_in_smaller_batches(monkeypatch):
    labels = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8), int))
    monkeypatch.setattr(automatic, "MOST_PIXELS", 5 * 3 * labels.size)
    batches = []

    def predict(points):
        batches.append(len(points))
        return oracle(labels)(points)

    found = automatic.find_masks(predict, labels.shape, automatic.Settings(4))
    assert batches == [5, 5, 5, 1] and len(found) == 4


def test_no_mask_at_all_is_an_answer():
    labels = np.zeros((8, 8), int)
    found = automatic.find_masks(oracle(labels), (8, 8), automatic.Settings(4, least_area=2))
    assert found.masks.shape == (0, 8, 8) and not found.labels.any()
    with pytest.raises(ValueError, match=r"predict must return masks \(16, K, 8, 8\)"):
        automatic.find_masks(oracle(np.eye(9, dtype=int)), (8, 8), automatic.Settings(4))
    with pytest.raises(TypeError, match="predict must be a function"):
        automatic.find_masks(None, (8, 8))


# The figure ---------------------------------------------------------------------------------------


def test_the_caption_says_what_is_drawn(cells):
    image, labels = cells
    count = int(labels.max())
    boxes = masks.boxes_of(labels)
    figure, caption = plot_masks(
        image, labels, truth=labels, points=[[3, 4], [5, 6]], point_labels=[1, 0], boxes=boxes[:1],
        name="a.png", scores={"SA": 0.5},
    )  # fmt: skip
    for said in (
        f"Masks of {count} objects in a.png (64 x 48 pixels)", "2 points and 1 box", "SA 0.500.",
        f"masks cover {(labels > 0).mean():.0%}", f"Of {count} true objects, {count} are covered",
    ):  # fmt: skip
        assert said in caption
    assert len(figure.axes) == 2 and len(figure.axes[0].patches) == 1
    figure.draw_without_rendering()
    wide, _ = plot_masks(np.zeros((2, 3300), "uint8"), np.zeros((2, 3300), int))
    drawn = wide.axes[0].images[0]
    assert drawn.get_array().shape == (1, 1100, 3) and drawn.get_extent() == [0, 3300, 2, 0]
    assert "there is no mask" in plot_masks(image, np.zeros_like(labels))[1]
    with pytest.raises(ValueError, match="labels has 48 x 64 pixels but the image has 64 x 48"):
        plot_masks(image, labels.T)

"""Images with the objects in them: label images, masks, COCO files, and wrong input."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from kft import data
from kft.data import Dataset, Segmentation, Split
from kft.data.label_images import object_numbers
from kft.data.segmentation.coco import decoded

pytestmark = pytest.mark.once

SHAPE = (12, 16)


def labels_of(i):
    """Two objects, one of a single pixel, in another place for each i."""
    labels = np.zeros(SHAPE, "uint16")
    labels[2:6, 3 + i : 7 + i] = 1
    labels[9, i] = 2
    return labels


def image_of(i, dtype="uint8"):
    return np.random.default_rng(i).integers(0, np.iinfo(dtype).max, SHAPE).astype(dtype)


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def run_lengths(mask):
    """COCO's counts of a mask, without pycocotools: down the columns, 0 first."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int)])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff([0, *ends, mask.size]).tolist()


def label_images(root, suffix=".png", dtype="uint16", ending=""):
    for i in range(4):
        save(image_of(i), root / "images" / f"{i}.png")
        save(labels_of(i).astype(dtype), root / "labels" / f"{i}{ending}{suffix}")


def mask_files(root):
    for i in range(4):
        save(image_of(i), root / "images" / f"{i}.png")
        for k in (1, 2):
            mask = (labels_of(i) == k).astype("uint8") * 255
            save(mask, root / "masks" / str(i) / f"{k}.png")


def own_folders(root):
    for i in range(4):
        save(image_of(i), root / str(i) / "images" / f"{i}.png")
        for k in (1, 2):
            save(labels_of(i) == k, root / str(i) / "masks" / f"{k}.png")


def side_by_side(root):
    for i in range(4):
        save(image_of(i), root / f"{i}.png")
        save(labels_of(i).astype("uint8"), root / f"{i}_masks.png")


def coco(root, encode=lambda mask: {"size": list(SHAPE), "counts": run_lengths(mask)}, **more):
    images, annotations = [], []
    for i in range(4):
        save(image_of(i), root / "images" / f"{i}.png")
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": 12, "width": 16})
        for k in (1, 2):
            mask = encode(labels_of(i) == k)
            annotations.append({"image_id": 10 + i, "segmentation": mask, "iscrowd": 0} | more)
    (root / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def compressed(mask):
    from pycocotools import mask as reference

    rle = reference.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def polygon(mask):
    rows, columns = np.nonzero(mask)
    y, x, bottom, right = (
        *(int(v.min()) for v in (rows, columns)),
        *(int(v.max()) + 1 for v in (rows, columns)),
    )
    return [[x, y, right, y, right, bottom, x, bottom]]


LAYOUTS = {
    "16-bit png": label_images,
    "8-bit png": lambda root: label_images(root, dtype="uint8", ending="_mask"),
    "32-bit tiff": lambda root: label_images(root, ".tif", "int32", "_labels"),
    "float tiff": lambda root: label_images(root, ".tif", "float32"),
    "masks": mask_files,
    "own folders": own_folders,
    "side by side": side_by_side,
    "run lengths": coco,
    "compressed run lengths": lambda root: coco(root, compressed),
    "polygons": lambda root: coco(root, polygon),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_objects(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    read = data.read_segmentation(tmp_path, split=None)
    assert isinstance(read, Segmentation) and isinstance(read, Dataset)
    assert read.task == "segmentation" and read.valid is None
    for i, (image, labels) in enumerate(zip(read.train.inputs, read.train.targets, strict=True)):
        np.testing.assert_array_equal(image, image_of(i))
        np.testing.assert_array_equal(labels, labels_of(i))
    assert "objects   train 8" in repr(read)


@pytest.mark.parametrize("inner", [False, True])
def test_folders_named_as_parts_are_kept(tmp_path, inner):
    for part in ("train", "val", "test"):
        where = [tmp_path / "images" / part, tmp_path / "labels" / part] if inner else [
            tmp_path / part / "images", tmp_path / part / "labels"
        ]  # fmt: skip
        save(image_of(0), where[0] / "a.png")
        save(labels_of(0), where[1] / "a.png")
    read = data.read_segmentation(tmp_path)
    assert {part: len(x) for part, x in read.splits.items()} == dict.fromkeys(read.splits, 1)
    assert list(read.splits) == ["train", "valid", "test"]


def test_sizes_and_depths_may_differ_and_copies_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        shape = (8 + i // 2, 10)
        deep = i // 2 % 2 == 1
        image = np.full(shape, i // 2 + 1, "uint16" if deep else "uint8") * np.uint8(10)
        save(image, tmp_path / "images" / f"{i}.png")  # each twice
        save(rng.integers(0, 3, shape).astype("uint8"), tmp_path / "labels" / f"{i}.png")
    read = data.read_segmentation(tmp_path, fractions=(0.5, 0.25, 0.25))
    assert {x.dtype.name for x in read.train.inputs} == {"uint8", "uint16"}
    assert read.value_range is not None
    digests = [{x.tobytes() for x in part.inputs} for part in read.splits.values()]
    assert sum(map(len, digests)) == len(set.union(*digests)) == 6
    groups = {f"{i}.png": str(i // 4) for i in range(12)}
    read = data.read_segmentation(tmp_path, groups=groups, fractions=(0.4, 0.3, 0.3))
    assert [len(part) for part in read.splits.values()] == [4, 4, 4]


def test_colours_palettes_and_transparency(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (*SHAPE, 4)).astype("uint8")
    colours[..., 3] = 255
    save(colours, tmp_path / "images" / "a.png")
    picture = Image.fromarray(labels_of(0).astype("uint8"), "L").convert("P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "labels" / "a.png")
    read = data.read_segmentation(tmp_path, split=None)
    np.testing.assert_array_equal(read.train.inputs[0], colours[..., :3])
    np.testing.assert_array_equal(read.train.targets[0] > 0, labels_of(0) > 0)
    grey = np.repeat(labels_of(0).astype("uint8")[..., None], 4, axis=-1)
    save(grey, tmp_path / "labels" / "a.png")
    read = data.read_segmentation(tmp_path, split=None)
    np.testing.assert_array_equal(read.train.targets[0], labels_of(0))
    save(colours, tmp_path / "labels" / "a.png")
    with pytest.raises(ValueError, match=r"labels.a.png has colours: a label image has one ch"):
        data.read_segmentation(tmp_path, split=None)


def test_what_is_left_out_is_counted(tmp_path):
    coco(tmp_path)
    path = tmp_path / "labels.json"
    content = json.loads(path.read_text())

    def encoded(mask):
        return {"size": SHAPE, "counts": run_lengths(mask)}

    whole = np.ones(SHAPE, bool)
    more = [
        {"image_id": 10, "segmentation": encoded(whole), "iscrowd": 1},
        {"image_id": 10, "segmentation": encoded(~whole)},
        {"image_id": 10, "segmentation": encoded(whole)},
        {"image_id": 11, "segmentation": encoded(labels_of(1) == 1)},
        {"image_id": 11, "bbox": [0, 0, 1, 1]},
    ]  # fmt: skip
    content["annotations"] += more
    content["images"].append({"id": 99, "file_name": "4.png"})
    save(image_of(4), tmp_path / "images" / "4.png")
    path.write_text(json.dumps(content))
    read = data.read_segmentation(tmp_path, split=None)
    notes = " ".join(read.notes)
    for said in (
        "1 regions of many objects (iscrowd) were left out", "1 empty masks were left out",
        "1 annotations without a mask were left out", "1 objects that others cover were left out",
        "33 pixels are in several masks", "1 image without objects",
    ):  # fmt: skip
        assert said in notes
    assert [len(object_numbers(x)) for x in read.train.targets] == [3, 2, 2, 2, 0]
    # The small objects are on top of the large one.
    np.testing.assert_array_equal(read.train.targets[0][labels_of(0) == 2], 2)


def test_one_number_in_several_pieces_is_noted(tmp_path):
    label_images(tmp_path)
    save((labels_of(0) > 0).astype("uint8") * 255, tmp_path / "labels" / "0.png")
    assert "1 label images have a single number, in several pieces" in " ".join(
        data.read_segmentation(tmp_path, split=None).notes
    )


def remove_labels(root):
    for path in (root / "labels").iterdir():
        path.unlink()


WRONG = {
    "no labels": (remove_labels, "4 of 4 images have no labels: 0.png"),
    "no layout": (lambda root: (root / "labels").rename(root / "others"), "has no labels that are"),
    "an image without": (lambda root: (root / "labels" / "2.png").unlink(), "1 of 4 images have"),
    "labels without": (lambda root: (root / "images" / "2.png").unlink(), "1 files without an"),
    "another size": (
        lambda root: save(labels_of(0).T, root / "labels" / "0.png"),
        r"0.png has 12 x 16 pixels but its image, .*0.png, has 16 x 12",
    ),
    "damaged": (lambda root: (root / "labels" / "1.png").write_bytes(b"no"), "cannot be read as"),
    "damaged image": (lambda root: (root / "images" / "1.png").write_bytes(b""), "cannot be read"),
    "fractions": (
        lambda root: save(labels_of(0) / np.float32(2), root / "labels" / "0.tif")
        and (root / "labels" / "0.png").unlink(),
        "values from 0.0 to 1.0, not all of them whole numbers",
    ),
    "twice": (lambda root: save(labels_of(0), root / "labels" / "0.tif"), "0.png has 2 label"),
    "no objects": (
        lambda root: [save(0 * labels_of(0), root / "labels" / f"{i}.png") for i in range(4)],
        "none of 4 images has an object in its labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_folders_are_errors(tmp_path, wrong):
    label_images(tmp_path)
    spoil, message = WRONG[wrong]
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        data.read_segmentation(tmp_path)


def test_arguments_and_missing_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is not a folder"):
        data.read_segmentation(tmp_path / "absent")
    label_images(tmp_path)
    with pytest.raises(ValueError, match="split must be one of random, None"):
        data.read_segmentation(tmp_path, split="cluster")
    with pytest.raises(ValueError, match="groups has no group for 3 of 4 images: 1.png"):
        data.read_segmentation(tmp_path, groups={"0.png": "a"})


WRONG_MASKS = {
    "short": ({"size": [12, 16], "counts": [3, 4]}, "runs of 7 pixels for a mask of 16 x 12"),
    "size": ({"size": [16, 12], "counts": [192]}, "has 12 x 16 pixels but its image has 16 x 12"),
    "text": ({"size": [12, 16], "counts": "\x01"}, "must be a run-length encoding"),
    "cut text": ({"size": [12, 16], "counts": "o"}, "must be a run-length encoding"),
    "no counts": ({"size": [12, 16]}, "must be a run-length encoding"),
    "two corners": ([[1, 1, 2, 2]], "at least three corners"),
    "odd": ([[1, 1, 2, 2, 3, 3, 4]], "at least three corners"),
    "outside": ([[1, 1, 200, 1, 200, 5]], "a corner outside of its image of 16 x 12"),
    "a word": ("mask", "must be polygons or run lengths"),
}


@pytest.mark.parametrize("wrong", WRONG_MASKS)
def test_wrong_annotations_are_errors(tmp_path, wrong):
    mask, message = WRONG_MASKS[wrong]
    coco(tmp_path, lambda _: mask)
    with pytest.raises(ValueError, match=rf"object 0 of 0.png .*{message}"):
        data.read_segmentation(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": []}', "must be a file of COCO annotations"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', "1 image that it does not list"),
        (
            '{"images": [{"id": 1, "file_name": "../a.png"}], "annotations": []}',
            "names 1 image not in",
        ),
        ('{"images": [], "annotations": []}', "has no images"),
        ("[", "is damaged: not JSON"),
    ],
)
def test_wrong_annotation_files_are_errors(tmp_path, content, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    save(image_of(0), tmp_path / "a.png")
    (folder / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        data.read_segmentation(folder)


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for density in (0, 0.02, 0.5, 1):
        mask = rng.random((37, 53)) < density
        np.testing.assert_array_equal(decoded(compressed(mask)), mask)
        plain = {"size": mask.shape, "counts": run_lengths(mask)}
        np.testing.assert_array_equal(decoded(plain), mask)


# The data classes ---------------------------------------------------------------------------------


def toy(labels, image=None, **changes):
    image = np.zeros(SHAPE, "uint8") if image is None else image
    part = Split([image], [labels])
    fields = dict.fromkeys(("source", "licence", "citation", "checksum"), "")
    return Segmentation(**{"name": "toy", "task": "segmentation", "train": part, "valid": None,
                           "test": None, **fields, **changes})  # fmt: skip


def test_a_data_set_of_label_images():
    labels = labels_of(0) * 999  # numbers need not follow each other
    read = toy(labels)
    assert read.task.level == "pixel" and read.task.outputs(read.train.targets) == 1
    assert "objects   train 2" in repr(read)
    np.testing.assert_array_equal(read.train.take([0, 0]).targets[1], labels)
    assert len(read.train.take([])) == 0
    assert toy(labels.astype("int64") * 1000).train.targets[0].dtype == np.int32
    stack = Split(np.zeros((2, *SHAPE)), np.stack([labels, labels]))
    np.testing.assert_array_equal(stack.targets[1], labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (labels_of(0).T, "has 12 x 16 pixels but its image has 16 x 12"),
        (labels_of(0) - 1.5, r"has values from -1.5 to 0.5, not all of them whole"),
        (labels_of(0).astype("int32") - 1, "has values from -1 to 1; a label image has 0"),
        (np.full(SHAPE, np.nan), "not all of them whole numbers"),
    ],
)
def test_wrong_label_images_are_errors(labels, message):
    with pytest.raises(ValueError, match=message):
        toy(labels)


def test_other_tasks_and_label_images_do_not_mix():
    with pytest.raises(ValueError, match="`task` of a Segmentation is 'segmentation'"):
        toy(labels_of(0), task="regression", train=Split(["MKT"], [1.0]))
    with pytest.raises(ValueError, match="one target per record, which does not fit `task` 'segm"):
        toy(labels_of(0), train=Split([np.zeros(SHAPE)], [1.0]))
    with pytest.raises(ValueError, match="one target per pixel, which does not fit `task` 'regr"):
        Dataset("toy", "regression", toy(labels_of(0)).train, None, None, "", "", "", "")


# Simulated cells ----------------------------------------------------------------------------------


def test_simulated_cells_depend_on_the_seed_alone():
    one, again, other = (data.load("cells", images=6, size=64, seed=s) for s in (3, 3, 4))
    assert one.checksum == again.checksum != other.checksum
    assert repr(one) == repr(again) and one.name == "cells"
    larger = data.load("cells", images=9, size=64, seed=3)
    known = {x.tobytes() for part in larger.splits.values() for x in part.inputs}
    assert known >= {x.tobytes() for part in one.splits.values() for x in part.inputs}


@pytest.mark.parametrize("style", ["fluorescence", "bright_field", "stained"])
def test_simulated_cells_touch_overlap_and_can_be_seen(style):
    touching = contrast = 0
    for k in range(12):
        image, labels = data.simulate_cells((64, 96), style, [0, k])
        assert labels.shape == (64, 96) and image.shape[:2] == (64, 96)
        assert image.dtype == np.uint8 and image.ndim == (3 if style == "stained" else 2)
        numbers, areas = np.unique(labels, return_counts=True)
        assert list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        assert areas[-1] and labels.any()
        pairs = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
        touching += pairs.any()
        grey = image.reshape(64, 96, -1).mean(axis=-1)
        spread = grey[labels == 0].std() + grey[labels > 0].std()
        contrast += abs(grey[labels > 0].mean() - grey[labels == 0].mean()) / spread
    assert touching >= 6 and contrast / 12 > 0.4


def test_simulated_cells_refuse_wrong_arguments():
    for options, message in (
        ({"size": 8}, "size must be an integer of at least 16"),
        ({"size": (64, 64, 3)}, "size must be an integer or"),
        ({"style": "x"}, "style must be one of fluorescence"),
        ({"images": 2}, "images must be an integer of at least 3"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load("cells", **{"images": 3, "size": 16, **options})

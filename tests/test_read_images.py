"""Images of one's own: folders and tables, and the ways in which they can be wrong."""

import csv
import hashlib
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from kft import data
from kft.data import Split

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not util.find_spec("PIL"), reason="needs the extra vision"),
]


def write(path, seed=0, mode="RGB", size=(9, 7)):
    from PIL import Image

    rng = np.random.default_rng(seed)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    pixels = rng.integers(0, 256, (size[1], size[0], *channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray((pixels * (200 if mode == "I;16" else 1)).astype(kind)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Twenty images of each of three classes, and litter."""
    root = tmp_path / "cells"
    for c, name in enumerate(("round", "long", "star")):
        for i in range(20):
            write(root / name / f"{i}.png", seed=100 * c + i)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "long" / "Thumbs.db").write_bytes(b"x")
    (root / "long" / ".hidden.png").write_bytes(b"x")
    (root / ".git").mkdir()
    return root


def table(path, rows, header=("path", "y", "plate", "part")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


# ---- what is right


def test_a_folder_per_class(folder):
    read = data.read_images(folder)
    assert read.task == "classification" and read.classes == ("long", "round", "star")
    assert [len(split) for split in read.splits.values()] == [42, 9, 9]
    for split in read.splits.values():
        assert all(isinstance(x, Path) for x in split.inputs)
        assert [x.parent.name for x in split.inputs] == [read.classes[t] for t in split.targets]
        assert len(set(np.bincount(split.targets, minlength=3))) == 1  # in balance
    every = [x for split in read.splits.values() for x in split.inputs]
    assert len(set(every)) == 60


def test_the_seed_splits_and_nothing_else_does(folder):
    one, again, other = (data.read_images(folder, seed=seed) for seed in (0, 0, 1))
    assert one.train.inputs == again.train.inputs and one.checksum == again.checksum
    assert one.train.inputs != other.train.inputs
    write(folder / "long" / "0.png", seed=999)
    assert data.read_images(folder).checksum != one.checksum


def test_printing_tells_images_and_not_lengths(folder):
    read = data.read_images(folder)
    assert "42 images in files" in repr(read.train)
    assert "records   train 42, valid 9, test 9" in repr(read)
    arrays = Split([np.zeros((4, 6)), np.zeros((8, 9, 3))], [0, 1])
    assert repr(arrays) == "Split(2 images of 6 x 4 to 9 x 8 pixels)"
    from PIL import Image

    assert repr(Split([Image.new("L", (6, 4))], [0])) == "Split(1 images of 6 x 4 pixels)"
    assert repr(Split(["MK"], [0])) == "Split(1 records, input lengths 2 to 2)"


def test_odd_but_valid_images_are_taken(folder):
    write(folder / "long" / "deep.tiff", mode="I;16")
    write(folder / "long" / "clear.png", mode="RGBA")
    write(folder / "long" / "grey.jpg", mode="L")
    read = data.read_images(folder)
    assert sum(map(len, read.splits.values())) == 63


def test_a_table_is_a_regression_or_a_classification(folder):
    files = sorted(folder.glob("[a-z]*/[0-9]*.png"))
    rows = [(f.relative_to(folder.parent), i / 2, i % 12, "") for i, f in enumerate(files)]
    path = table(folder.parent / "cells.csv", rows)
    read = data.read_images(path, groups="plate")
    assert read.task == "regression" and read.classes is None
    found = {x: y for s in read.splits.values() for x, y in zip(s.inputs, s.targets, strict=True)}
    assert {x.resolve(): y for x, y in found.items()} == {
        f.resolve(): i / 2 for i, f in enumerate(files)
    }
    plates = [set(split.groups) for split in read.splits.values()]
    assert len(set.union(*plates)) == sum(map(len, plates)) == 12  # each on one side

    rows = [(row[0], f.parent.name, 0, "") for row, f in zip(rows, files, strict=True)]
    read = data.read_images(table(path, rows))
    assert read.classes == ("long", "round", "star")
    rows = [(row[0], i % 2, 0, "") for i, row in enumerate(rows)]
    assert data.read_images(table(path, rows), task="classification").classes == ("0", "1")


def test_a_column_may_name_the_part(folder):
    files = sorted(folder.glob("star/[0-9]*.png"))
    parts = ["train"] * 10 + ["val"] * 5 + ["test"] * 5
    rows = [(f, float(i), 0, part) for i, (f, part) in enumerate(zip(files, parts, strict=True))]
    read = data.read_images(table(folder / "all.csv", rows), split="part")
    assert [split.inputs for split in read.splits.values()] == [
        files[:10],
        files[10:15],
        files[15:],
    ]


def test_a_table_may_lack_values(folder):
    """`missing`, `dropna` and `decimal` mean what they mean to `read_csv`."""
    files = [f"star/{i}.png" for i in range(20)]
    numbers = [f"{i},5" for i in range(18)] + ["-99", "na"]
    parts = ["train"] * 9 + [""] + ["valid"] * 4 + ["test"] * 6
    rows = list(zip(files, numbers, [1] * 20, parts, strict=True))
    path = table(folder / "all.csv", rows)
    options = {"missing": ("-99", "na"), "decimal": ","}
    with pytest.raises(ValueError, match=r"line 11: column 'part' .*\(3 cells are missing.*dropna"):
        data.read_images(path, split="part", **options)
    read = data.read_images(path, split="part", dropna=True, **options)
    assert [len(split) for split in read.splits.values()] == [9, 4, 4]
    assert read.train.targets.tolist() == [i + 0.5 for i in range(9)]
    assert read.test.inputs == [folder / name for name in files[14:18]]
    notes = " ".join(read.notes)
    assert "3 of 20 lines with a missing cell were left out (column 'y' 2, 'part' 1)" in notes
    assert "Column 'y' has decimal commas, read as points (17 numbers" in notes
    # Marks that nobody has named are said, and words that may be names are asked about.
    rows = [(name, -99 if i > 15 else i / 7, 1, "") for i, name in enumerate(files)]
    read = data.read_images(table(path, rows))
    assert "-99 is in 4 of 20" in " ".join(read.notes)
    read = data.read_images(path, missing=("-99.0",), dropna=True, split=None)
    assert read.train.targets.tolist() == [i / 7 for i in range(16)]
    rows = [(name, "na" if i > 9 else "b", 1, "") for i, name in enumerate(files)]
    with pytest.raises(ValueError, match="column 'y' is 'na', a missing value .*missing=()"):
        data.read_images(table(path, rows))
    assert data.read_images(path, missing=()).classes == ("b", "na")


@pytest.mark.parametrize("told", [{"missing": ()}, {"dropna": True}, {"decimal": "."}])
def test_a_folder_has_no_cells(folder, told):
    with pytest.raises(ValueError, match=f"no cells: `{next(iter(told))}` is for a CSV file"):
        data.read_images(folder, **told)


def test_no_split(folder):
    read = data.read_images(folder, split=None)
    assert len(read.train) == 60 and read.valid is None and read.test is None


# ---- what is wrong


def test_offenders_are_named_together(folder):
    whole = write(folder / "long" / "cut.jpg", size=(200, 200)).read_bytes()
    (folder / "long" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "round" / "notes.txt").write_text("no image")
    (folder / "star" / "nothing.png").touch()
    with pytest.raises(ValueError, match="3 of 63 files are not complete images") as error:
        data.read_images(folder)
    for part in ("cut.jpg (damaged", "notes.txt (not an image", "nothing.png (empty)"):
        assert part in str(error.value)
    assert "15.png" not in str(error.value) and "Thumbs" not in str(error.value)


def test_ten_offenders_are_named_and_the_rest_counted(folder):
    for i in range(13):
        (folder / "star" / f"bad{i}.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match="13 of 73 .* and 3 more") as error:
        data.read_images(folder)
    assert str(error.value).count("bad") == 10


def break_with_one_class(folder):
    return folder / "star"


def empty_class(folder):
    (folder / "none").mkdir()
    (folder / "none" / ".keep").touch()
    return folder


def small_class(folder):
    write(folder / "rare" / "1.png")
    write(folder / "rare" / "2.png")
    return folder


def loose_file(folder):
    write(folder / "loose.png")
    return folder


FOLDERS = {
    "one class": (break_with_one_class, "one folder per class, at least two; it holds none"),
    "empty class": (empty_class, "none, the folder of a class, is empty"),
    "small class": (small_class, "1 of 4 classes have too few images.*'rare' \\(2 images, none in"),
    "loose": (loose_file, "next to the folders of the classes: loose.png"),
    "missing": (lambda folder: folder / "no", "neither a folder nor a file"),
}


@pytest.mark.parametrize(("spoil", "message"), FOLDERS.values(), ids=FOLDERS)
def test_wrong_folders(folder, spoil, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.read_images(spoil(folder))


TABLES = {
    "missing files": (
        [("star/1.png", 1, 0, ""), ("star/no.png", 2, 0, "")],
        {},
        "names 1 of 2 images that do not exist: .*no.png",
    ),
    "twice": (
        [("star/1.png", 1, 0, ""), ("star/2.png", 2, 0, ""), ("star/../star/1.png", 2, 0, "")],
        {},
        "names 1 images more than once: .*1.png \\(lines 2, 4\\)",
    ),
    "label without image": ([("", 1, 0, "")], {}, "line 2: column 'path' is '', a missing value"),
    "no column": (
        [("star/1.png", 1, 0, "")],
        {"target": "area"},
        "`target` is 'area', which is not",
    ),
    "no split": (
        [("star/1.png", 1, 0, "")],
        {"split": "fold"},
        "`split` must be .*received 'fold'",
    ),
    "word": (
        [("star/1.png", 1, 0, ""), ("star/2.png", "big", 0, "")],
        {},
        "line 3: column 'y' is 'big', but other lines hold numbers",
    ),
    "cluster": ([("star/1.png", 1, 0, "")], {"split": "cluster"}, "which is for sequences"),
    "residues": ([("star/1.png", 1, 0, "")], {"task": "residue_classification"}, "for images"),
}


@pytest.mark.parametrize(("rows", "options", "message"), TABLES.values(), ids=TABLES)
def test_wrong_tables(folder, rows, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.read_images(table(folder / "t.csv", rows), **options)


def test_a_folder_has_no_columns(folder):
    for options in ({"groups": "plate"}, {"split": "part"}, {"task": "regression"}):
        with pytest.raises(ValueError, match="is a folder, which has no columns"):
            data.read_images(folder, **options)


# ---- digits


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    loaded = data.load("digits")
    assert [len(split) for split in loaded.splits.values()] == [1258, 269, 270]
    known = {
        np.rint(x * 255 / 16).astype(np.uint8).tobytes(): t
        for x, t in zip(*(load_digits()[k] for k in ("images", "target")), strict=True)
    }
    for split in loaded.splits.values():
        assert all(x.dtype == np.uint8 and x.shape == (8, 8) for x in split.inputs)
        assert [known[x.tobytes()] for x in split.inputs] == split.targets.tolist()
        counts = np.bincount(split.targets)
        assert counts.max() - counts.min() <= 0.05 * len(split)
    assert "doi" in loaded.citation and "CC BY 4.0" in loaded.licence
    pixels = load_digits().images
    assert (
        loaded.checksum == hashlib.sha256(np.rint(pixels * 255 / 16).astype(np.uint8)).hexdigest()
    )
    assert repr(loaded.train).startswith("Split(1,25")

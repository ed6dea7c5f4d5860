"""Images of one's own: folders and tables, and the ways in which they can be wrong."""

import csv
import hashlib
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from models import BACKBONES

import kft
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

    assert repr(Split([Image.new("L", (6, 4))], [0])) == "Split(1 image of 6 x 4 pixels)"
    assert repr(Split(["MK"], [0])) == "Split(1 record, input lengths 2 to 2)"


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


def test_labels_are_read_from_columns_and_from_names(folder):
    """As `read_csv` reads them; `target` of a table of images with a column per label."""
    files = [f"{kind}/{i}.png" for kind in ("star", "long") for i in range(20)]
    labels = [(int("star" in name), i % 2, 0) for i, name in enumerate(files)]
    names = ("star", "odd", "never")
    rows = [(name, *row) for name, row in zip(files, labels, strict=True)]
    by_columns = data.read_images(
        table(folder / "columns.csv", rows, ("path", *names)), target=names
    )
    cells = [";".join(n for n, true in zip(names, row, strict=True) if true) for row in labels]
    path = table(folder / "names.csv", zip(files, cells, strict=True), ("path", "y"))
    by_names = data.read_images(path, task="multilabel")
    for read, classes in ((by_columns, names), (by_names, ("odd", "star"))):
        assert read.task == "multilabel" and read.classes == classes
        assert [len(split) for split in read.splits.values()] == [28, 6, 6]
        for split in read.splits.values():
            assert split.targets.shape == (len(split), len(classes))
            for image, row in zip(split.inputs, split.targets, strict=True):
                found = dict(zip(classes, row.tolist(), strict=True))
                assert found["star"] == (image.parent.name == "star")
                assert found["odd"] == int(image.stem) % 2
    notes = " ".join(by_columns.notes)
    assert "Label 'never' is false for all 40 records" in notes
    assert "1 of 3 labels have no images in test: never." in notes


def test_labels_of_copies_are_compared(folder):
    (folder / "star" / "copy.png").write_bytes((folder / "star" / "0.png").read_bytes())
    rows = [(f"star/{i}.png", i % 2, 1 - i % 2) for i in range(20)] + [("star/copy.png", 0, 0)]
    path = table(folder / "t.csv", rows, ("path", "a", "b"))
    notes = " ".join(data.read_images(path, target=["a", "b"]).notes)
    assert "2 images, copies and originals, have different targets" in notes


def test_labels_may_be_missing(folder):
    rows = [(f"star/{i}.png", i % 2, "" if i == 3 else 1) for i in range(20)]
    path = table(folder / "t.csv", rows, ("path", "a", "b"))
    with pytest.raises(ValueError, match="line 5: column 'b' is '', a missing value.*dropna"):
        data.read_images(path, target=["a", "b"])
    read = data.read_images(path, target=["a", "b"], dropna=True, split=None)
    assert len(read.train) == 19 and "1 of 20 lines with a missing cell" in " ".join(read.notes)
    for options, message in (
        ({"target": ["a", "c"]}, r"`target\[1\]` is 'c', which is not among"),
        ({"target": ["a", "a"]}, "names column 'a' twice"),
        ({"target": []}, "is an empty list"),
        ({"target": ["a"], "task": "regression"}, "which is for task='multilabel'"),
        ({"target": ["a", "path"], "missing": ()}, "is 'star/0.png'; expected 0 or 1"),
    ):
        with pytest.raises(ValueError, match=message):
            data.read_images(path, **options)


def test_labels_go_through_fit_predict_and_evaluate(tmp_path):
    """And through what is drawn and compared before and after."""
    pytest.importorskip("keras_hub")
    from PIL import Image

    rows = []
    for i in range(40):
        left, top = i % 2, i // 2 % 2
        pixels = np.random.default_rng(i).integers(0, 60, (16, 16))
        pixels[:, :8] += 120 * left
        pixels[:8] += 70 * top
        Image.fromarray(pixels.astype("uint8")).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", left, top))
    path = table(tmp_path / "t.csv", rows, ("path", "left", "top"))
    read = data.read_images(path, target=["left", "top"], fractions=(0.5, 0.25, 0.25))
    model = kft.Model(kft.backbones.randomised(BACKBONES["vit"](), 0), kft.heads.for_data(read))
    kft.fit(model, read, "linear_probe", verbose=0)
    assert kft.fit(model, read, "head_only", 1, verbose=0).history[0]["val_loss"] > 0
    answers = kft.predict(model, read.test.inputs)
    assert answers.shape == (10, 2) and ((answers > 0) & (answers < 1)).all()
    scores = kft.evaluate(model, read, resamples=50)
    assert list(scores) == ["macro AUROC", "macro F1", "subset accuracy"]
    assert scores["macro AUROC"].value > 0.8
    baselines = kft.comparison.scoring.baseline_rows(read, resamples=20)
    assert len(baselines) == 2 and not any(row.error for row in baselines)


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
        "names 1 image more than once: .*1.png \\(lines 2, 4\\)",
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
    for options in (
        {"groups": "plate"}, {"split": "part"}, {"task": "regression"}, {"task": "multilabel"},
        {"target": "area"}, {"target": ["a", "b"]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"is a folder, which has no columns.* Leave out \w+="):
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

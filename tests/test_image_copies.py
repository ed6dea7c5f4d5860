"""Images that are there twice, and folders that are splits already."""

import csv
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from kft import data

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not util.find_spec("PIL"), reason="needs the extra vision"),
]


def write(path, seed, **options):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype="uint8")
    Image.fromarray(pixels).save(path, **options)
    return path


def classes(root, n=20, first=0):
    for c, name in enumerate(("long", "round")):
        for i in range(n):
            write(root / name / f"{i:02}.png", first + 1000 * c + i)
    return root


def parts_of(read):
    return {x.name: part for part, split in read.splits.items() for x in split.inputs}


# ---- copies


def test_copies_are_on_one_side_whatever_their_format(tmp_path):
    """Of 20 images and 20 copies under other names, half have been in train and in test."""
    root = classes(tmp_path / "cells")
    for name, c in (("long", 0), ("round", 1)):
        for i in range(20):
            kind = (".png", ".bmp", ".tif", ".webp")[i % 4]
            write(root / name / f"{i:02}_copy{kind}", 1000 * c + i,
                  **({"lossless": True} if kind == ".webp" else {}))  # fmt: skip
    for seed in range(3):
        read = data.read_images(root, seed=seed)
        homes = parts_of(read)
        for i in range(20):
            kind = (".png", ".bmp", ".tif", ".webp")[i % 4]
            assert homes[f"{i:02}.png"] is not None
        for split in read.splits.values():
            stems = [(x.parent.name, x.name[:2]) for x in split.inputs]
            assert all(stems.count(stem) == 2 for stem in stems)
        assert "40 images have the same pixels as another; they were kept." in read.notes
        assert len(read.notes) == 2
        sides = [set(split.groups) for split in read.splits.values()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 40
    assert data.read_images(classes(tmp_path / "other")).train.groups is None


def test_other_spellings_of_the_same_pixels(tmp_path):
    from PIL import Image

    root = classes(tmp_path / "cells")
    grey = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 6), dtype="uint8"))
    turned = grey.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned back
    grey.save(root / "long" / "grey.png")
    grey.convert("RGB").save(root / "long" / "colours.png")
    grey.convert("RGBA").save(root / "long" / "clear.png")
    turned.save(root / "long" / "turned.png", exif=exif)
    grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "long" / "mirrored.png")
    read = data.read_images(root)
    assert "3 images have the same pixels as another; they were kept." in read.notes
    homes = parts_of(read)
    assert len({homes[x] for x in ("grey.png", "colours.png", "clear.png", "turned.png")}) == 1


def test_copies_with_other_targets_are_reported(tmp_path):
    root = classes(tmp_path / "cells")
    for i in range(3):
        write(root / "round" / f"same{i}.png", i)  # as long/0i.png
    read = data.read_images(root)
    assert "6 images, copies and originals, have different targets" in read.notes[2]


def table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "y", "plate", "part"), *rows])
    return path


def test_copies_join_groups(tmp_path):
    """Plates 0 and 1 share an image, and so do 1 and 2: all three are on one side."""
    rows = []
    for i in range(60):
        seed = {9: 1, 19: 22}.get(i, i)
        write(tmp_path / f"{i}.png", seed)
        rows.append((f"{i}.png", i / 7, f"plate {i % 12}", ""))
    assert rows[9][2] == "plate 9" and rows[1][2] == "plate 1" and rows[19][2] == "plate 7"
    for seed in range(4):
        read = data.read_images(table(tmp_path / "t.csv", rows), groups="plate", seed=seed)
        homes = {}
        for part, split in read.splits.items():
            for x in split.inputs:
                homes.setdefault(f"plate {int(x.stem) % 12}", set()).add(part)
        assert all(len(found) == 1 for found in homes.values())
        assert homes["plate 1"] == homes["plate 9"] and homes["plate 7"] == homes["plate 10"]
        names = [name for split in read.splits.values() for name in split.groups]
        assert len(set(names)) == 10 and set(names) <= {row[2] for row in rows}


def test_copies_across_a_split_that_was_told_are_counted(tmp_path):
    rows = []
    for i in range(12):
        write(tmp_path / f"{i}.png", {8: 0, 9: 1, 10: 4, 5: 2}.get(i, i))
        rows.append((f"{i}.png", i / 7, "", "train" if i < 4 else "val" if i < 8 else "test"))
    read = data.read_images(table(tmp_path / "t.csv", rows), split="part")
    said = "\n".join(read.notes)
    assert "1 valid images are also in train" in said
    assert "3 test images are also in train or valid, so test scores are too high" in said


# ---- folders that are splits


def split_folders(root, names=("train", "val", "test"), inside=False):
    for k, part in enumerate(names):
        for c, name in enumerate(("long", "round")):
            for i in range(4 if k else 8):
                where = root / name / part if inside else root / part / name
                write(where / f"{k}{c}{i}.png", 100 * k + 10 * c + i)
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("Train", "Validation", "TEST"), ("training", "dev", "test")],
)
def test_folders_of_splits_are_read_as_they_are(tmp_path, names, inside):
    """They were three classes, and were split anew; or, within classes, were passed over."""
    read = data.read_images(split_folders(tmp_path / "cells", names, inside))
    assert read.classes == ("long", "round") and read.task == "classification"
    assert [len(split) for split in read.splits.values()] == [16, 8, 8]
    for k, split in enumerate(read.splits.values()):
        assert {x.name[0] for x in split.inputs} == {str(k)}
        assert [x.name[1] for x in split.inputs] == [str(t) for t in split.targets]
    assert read.notes == ("Split by the folders train, valid and test.",)
    whole = data.read_images(tmp_path / "cells", split=None)
    assert len(whole.train) == 32 and whole.classes == ("long", "round")


def test_copies_and_classes_that_folders_of_splits_lack(tmp_path):
    root = split_folders(tmp_path / "cells")
    write(root / "test" / "long" / "copy.png", 0)
    write(root / "train" / "star" / "only.png", 77)
    said = "\n".join(data.read_images(root).notes)
    assert "1 test images are also in train" in said
    assert (
        "1 of 3 classes have no images in valid: star." in said
        and "no images in test: star." in said
    )


def new_class(root):
    write(root / "test" / "Long" / "x.png", 5)


def no_valid(root):
    (root / "val").rename(root.parent / "val")


def beside(root):
    write(root / "cats" / "x.png", 5)


def twice(root):
    write(root / "valid" / "long" / "x.png", 5)


def loose(root):
    write(root / "test" / "x.png", 5)


WRONG = {
    "a class that is not in train": (new_class, "1 of 3 classes have no images in train: Long"),
    "two of three": (no_valid, "holds the folders test, train, and some .* train, valid and test"),
    "others beside": (beside, "holds the folders cats, test, train, val, and some"),
    "twice": (twice, "holds the folders test, train, val, valid, and some"),
    "loose": (loose, "test holds files next to the folders of the classes: x.png"),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_wrong_folders_of_splits(tmp_path, spoil, message):
    root = split_folders(tmp_path / "cells")
    spoil(root)
    with pytest.raises(ValueError, match=message):
        data.read_images(root)


def test_one_class_may_be_called_as_a_split_is(tmp_path):
    """A train is on rails."""
    for c, name in enumerate(("train", "plane", "car")):
        for i in range(10):
            write(tmp_path / "cells" / name / f"{i}.png", 100 * c + i)
    assert data.read_images(tmp_path / "cells").classes == ("car", "plane", "train")


def test_a_table_whose_paths_tell_a_split_that_is_not_used(tmp_path):
    root = split_folders(tmp_path / "cells")
    files = sorted(root.rglob("*.png"))
    rows = [(x.relative_to(tmp_path), i / 7, "", x.parts[-3]) for i, x in enumerate(files)]
    path = table(tmp_path / "t.csv", rows)
    assert (
        "folders named test, train, valid, which were ignored" in data.read_images(path).notes[-1]
    )
    assert len(data.read_images(path, split="part").notes) == 1
    assert isinstance(files[0], Path)

"""`kft segment`: prompts as they are written, and what the verb writes."""

import json

import models
import numpy as np
import pytest
import tifffile
import typer
from PIL import Image
from typer.testing import CliRunner

import kft
from kft.cli import app
from kft.cli.prompts import boxes_of, points_of
from kft.segmentation import Settings, from_rle, segment, segment_everything

pytestmark = pytest.mark.once


def test_points_of_several_objects():
    points, labels = points_of(["120,80 60,70,0; 1.5,2,1", "5,6"])
    np.testing.assert_array_equal(points[0], [[120, 80], [60, 70], [1.5, 2]])
    np.testing.assert_array_equal(points[1, 0], [5, 6])
    assert labels.tolist() == [[1, 0, 1], [1, -1, -1]]
    assert points_of([]) is None and boxes_of([]) is None


def test_prompts_from_tables(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("object,x,y,label\na,1,2,1\nb,3,4,1\na,5,6,0\n")
    points, labels = points_of([str(path)])
    assert points.tolist() == [[[1, 2], [5, 6]], [[3, 4], [0, 0]]]
    assert labels.tolist() == [[1, 0], [1, -1]]
    path.write_text("X;Y\n1;2\n3;4\n")
    assert points_of([str(path)])[0].tolist() == [[[1, 2]], [[3, 4]]]
    path.write_text("x0,y0,x1,y1\n1,2,3,4\n5,6,7,8\n")
    assert boxes_of([str(path)]).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes_of(["1,2,3,4", "5,6,7,8"]).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: points_of(["1"]), "--points takes \"X,Y\", .*received '1'"),
        (lambda path: points_of(["1,2,3"]), "the third number is 1 for a point of the object"),
        (lambda path: points_of([""]), "received an empty text"),
        (lambda path: boxes_of(["1,2,3"]), "--boxes takes X0,Y0,X1,Y1, received '1,2,3'"),
        (lambda path: boxes_of(["1,2,3,four"]), "--boxes takes .*, received '1,2,3,four'"),
        (lambda path: boxes_of(["1,2,3,nan"]), "--boxes takes X0,Y0,X1,Y1"),
        (lambda path: boxes_of([path]), "has no column x0, x1, y1; it has x, y0"),
        (lambda path: points_of([path]), "has no column y; it has x, y0"),
        (lambda path: points_of([path[:-5] + "b.csv"]), "--points: .*b.csv has no rows"),
        (lambda path: points_of([path[:-5] + "absent.csv"]), "cannot be read"),
    ],
)
def test_wrong_prompts_are_named(tmp_path, call, message):
    path = tmp_path / "a.csv"
    path.write_text("x,y0\n1,2\n")
    (tmp_path / "b.csv").write_text("x,y\n")
    with pytest.raises(typer.BadParameter, match=message):
        call(str(path))


# The verb -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sam():
    return models.sam()


@pytest.fixture
def run(sam, tmp_path, monkeypatch):
    """Runs `kft segment` on an image of 24 x 20 pixels, with a small SAM; returns its result."""
    monkeypatch.setattr(kft, "load", {"kft_sam_tiny": sam}.__getitem__)
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (20, 24)).astype("uint8")
    Image.fromarray(image).save("image.png")
    return lambda *options: CliRunner().invoke(app, ["segment", "image.png", *options])


def test_prompts_are_segmented(run, sam, tmp_path):
    prompts = ["--points", "3,4 10,9,0", "--points", "12,9"]
    result = run("masks.json", *prompts, "--figure", "masks.png", "--json")
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    points, labels = points_of(prompts[1::2])
    expected = segment(sam, tmp_path / "image.png", points, labels)
    assert about["objects"] == 2 and about["written"] == ["masks.json", "masks.png"]
    np.testing.assert_allclose(about["predicted_iou"], expected.iou.max(axis=1), rtol=1e-5)
    written = json.loads((tmp_path / "masks.json").read_text())
    found = from_rle([one["segmentation"] for one in written["annotations"]])
    np.testing.assert_array_equal(found, expected.best)
    assert written["images"][0]["file_name"] == "image.png"
    assert "3 points of the prompts" in (tmp_path / "masks.txt").read_text()


def test_small_objects_are_shown_in_windows(run, sam, tmp_path):
    result = run("masks.npy", "--boxes", "3,4,7,8", "--window", "16", "--times", "5")
    assert result.exit_code == 0, result.output
    image, box = tmp_path / "image.png", [[3, 4, 7, 8]]
    expected = segment(sam, image, boxes=box, window=16, times=5)
    np.testing.assert_array_equal(np.load("masks.npy"), expected.best)
    assert np.abs(expected.logits - segment(sam, image, boxes=box).logits).max() > 1e-4


def test_masks_are_mirrored_and_clipped(run, tmp_path, sam):
    result = run("masks.npy", "--boxes", "3,4,7,8", "--mirrored", "--clip-to-boxes")
    assert result.exit_code == 0, result.output
    image, box = tmp_path / "image.png", [[3, 4, 7, 8]]
    expected = segment(sam, image, boxes=box, mirrored=True, clip_to_boxes=True)
    np.testing.assert_array_equal(np.load("masks.npy"), expected.best)
    limits = ["--points-per-side", "3", "--iou", "0", "--stability", "0"]
    result = run("labels.tif", "--everything", "--mirrored", *limits)
    assert result.exit_code == 0, result.output
    found = segment_everything(sam, image, Settings(3, iou=0, stability=0), mirrored=True)
    np.testing.assert_array_equal(tifffile.imread("labels.tif"), found.labels)


def test_everything_is_segmented(run, sam, tmp_path):
    limits = ["--points-per-side", "3", "--iou", "0", "--stability", "0"]
    result = run("--everything", "--out", "labels.tif", *limits)
    assert result.exit_code == 0, result.output
    found = segment_everything(sam, tmp_path / "image.png", Settings(3, iou=0, stability=0))
    assert "1 object. Left out of the masks of the grid: " in result.stdout and len(found) == 1
    assert f"{found.dropped['on a better mask']} on a better mask" in result.stdout
    np.testing.assert_array_equal(tifffile.imread("labels.tif"), found.labels)


def test_where_no_mask_is_left_it_is_said_what_keeps_more(run):
    result = run("--everything", "--out", "labels.tif", "--points-per-side", "3", "--iou", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("0 objects. Left out of the masks of the grid: ")
    assert "A lower --iou or --stability keeps more of them." in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["masks.tif"], 2, "give points or boxes, or --everything"),
        (["masks.tif", "--everything", "--points", "1,2"], 2, "give points or boxes, or"),
        (["--points", "1,2"], 2, "give OUT, or --figure alone, once, received it 0 times"),
        (["a.tif", "--out", "b.tif", "--points", "1,2"], 2, "received it 2 times"),
        (["a.tif", "--points", "1,2", "--least-area", "5"], 2, "--least-area is for --everything"),
        (["a.tif", "--everything", "--times", "3"], 2, "--times is for --boxes"),
        (["a.tif", "--points", "1,2", "--clip-to-boxes"], 2, "--clip-to-boxes is for --boxes"),
        (["a.tif", "--points", "1,2", "--times", "3"], 1, "points alone do not say how large"),
        (["a.tif", "--points", "1,2", "--window", "3"], 1, "window must be an integer of at least"),
        (["a.tif", "--points", "1,2", "--figure", "b.pdf"], 1, "--figure must end in .png or"),
        (["masks.tif", "--points", "50,2"], 1, "points must lie in the image of 24 x 20 pixels"),
        (["masks.gif", "--points", "5,2"], 1, "OUT must end in .tif"),
        (["masks.tif", "--boxes", "9,2,3,9"], 1, "boxes must be x0, y0, x1, y1 with x0 < x1"),
    ],
)
def test_wrong_commands_write_nothing(run, tmp_path, options, code, message):
    result = run(*options)
    assert result.exit_code == code and message in " ".join(result.stderr.replace("│", "").split())
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_crops_share_black_and_white(sam):
    """Of 16 bits: a crop of the dark half is not stretched by itself."""
    image = np.random.default_rng(0).integers(0, 200, (30, 30)).astype("uint16")
    image[:, 15:] += 40_000
    sam.value_range = (0, 65_535)
    settings = Settings(2, iou=0, stability=0, crop_layers=1)
    deep = segment_everything(sam, image, settings)
    floats = segment_everything(sam, image / 65_535, settings)
    np.testing.assert_array_equal(deep.labels, floats.labels)

"""Images of 16 bits: the values in use are found in the training part, and kept."""

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from models import BACKBONES, perturb
from PIL import Image

import kft
from kft.backbones.vision.images import ImageEncoder
from kft.comparison import expecting, runs
from kft.data import Dataset, Split
from kft.data.images import pixels
from kft.evaluation import baselines
from kft.training import frontier

PLAIN = {"mean": (0,) * 3, "std": (1,) * 3}


def camera(n, side=32, black=128, white=143, seed=0):
    """Pictures of two kinds, of which a camera of 16 bits uses few values."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(n) % 2
    light = rng.random((n, side, side)) * 0.3
    light[kinds == 1, :, : side // 2] += 0.7
    light[kinds == 0, :, side // 2 :] += 0.7
    return list(np.rint(black + (white - black) * light).astype("uint16")), kinds


def deep_png(path, colours):
    """A file of 16-bit colours (h, w, 3), which Pillow does not write."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


def tiff(pages):
    """A file of grey pages (h, w) of 8 bits, each with its NewSubfileType: 1 is a smaller copy."""
    content = b"II*\0" + struct.pack("<I", 8)
    for number, (page, kind) in enumerate(pages, start=1):
        height, width = page.shape
        after = len(content) + 2 + 8 * 12 + 4
        tags = {254: kind, 256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: after,
                279: page.size}  # fmt: skip
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        follows = after + page.size if number < len(pages) else 0
        content += struct.pack("<H", 8) + rows + struct.pack("<I", follows) + page.tobytes()
    return content


def folder(root, images, kinds):
    for i, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        path = root / "ab"[kind] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


# ---- reading


@pytest.mark.once
def test_twelve_bits_in_sixteen_are_seen_as_eight_bits_are(tmp_path):
    """They were nearly black: 16 of 255 at most."""
    eight = np.random.default_rng(0).integers(0, 256, (20, 30), dtype="uint8")
    twelve = eight.astype("uint16") * 16
    Image.fromarray(twelve).save(tmp_path / "a.png")
    Image.fromarray(twelve).save(tmp_path / "a.tif")
    big = np.asarray(twelve, dtype=">u2")
    Image.frombytes("I;16B", twelve.shape[::-1], big.tobytes()).save(tmp_path / "big.tif")
    given = [
        twelve, big, twelve[..., None], np.stack([twelve] * 3, -1),
        Image.fromarray(twelve), tmp_path / "a.png", str(tmp_path / "a.tif"), tmp_path / "big.tif",
    ]  # fmt: skip
    expected = ImageEncoder((8, 9), **PLAIN)([eight.astype("float32") / 255])["images"][0]
    for image in given:
        encode = ImageEncoder((8, 9), value_range=pixels.find_range([image], (0, 100)), **PLAIN)
        assert encode.value_range == (0, 4080)
        np.testing.assert_allclose(encode([image])["images"][0], expected, atol=1e-3)
        # Images of 8 bits beside them are as they were.
        assert (encode([eight])["images"] == ImageEncoder((8, 9), **PLAIN)([eight])["images"]).all()


@pytest.mark.once
def test_what_is_seen_through_has_no_range():
    image = np.full((4, 4, 4), 300, dtype="uint16")
    image[..., 3] = 65535 // 4
    found = pixels.read_pixels(image, "it", (100, 500))
    np.testing.assert_allclose(found, 255 * (0.5 * 0.25 + 0.75), rtol=1e-4)
    assert pixels.find_range([image], (0, 100)) == (300, 301)


@pytest.mark.once
def test_colours_of_sixteen_bits(tmp_path):
    """Pillow gives the upper 8 bits of them, as if they were all: of 12 bits 16 levels."""
    colours = np.random.default_rng(0).integers(0, 4096, (16, 16, 3)).astype("uint16")
    path = deep_png(tmp_path / "a.png", colours)
    with Image.open(path) as opened:
        assert opened.mode == "RGB" and pixels.is_deep(opened)
    found = pixels.read_pixels(path, "it", (0, 4095))
    assert found.max() > 230
    np.testing.assert_allclose(found, pixels.read_pixels(colours, "it", (0, 4095)), atol=17)
    rgb565 = tmp_path / "a.bmp"  # "16 bits" of another kind
    Image.fromarray(colours.astype("uint8")).save(rgb565)
    assert not pixels.looked_at(rgb565, "it")


@pytest.mark.once
def test_the_range_is_that_of_percentiles():
    images = [np.random.default_rng(i).integers(0, 3000, (9 + i, 11)).astype("uint16")
              for i in range(3)]  # fmt: skip
    values = np.concatenate([image.ravel() for image in images])
    for shares in ((0, 100), (0.1, 99.9), (5, 50)):
        expected = np.percentile(values, shares, method="inverted_cdf")
        assert pixels.find_range([*images, np.zeros((3, 3), "uint8")], shares) == tuple(expected)
    hot = images[0].copy()
    hot[0, 0] = 65535  # one in 330
    assert pixels.find_range([hot, *images[1:]], (0.1, 99)) == pixels.find_range(images, (0.1, 99))
    assert pixels.find_range([np.zeros((3, 3)), np.zeros((3, 3), "uint8")]) is None
    for shares in ((99, 1), (0, 101), (5,), None, ("a", "b"), (np.nan, 5)):
        with pytest.raises(ValueError, match="percentiles must be"):
            pixels.find_range(images, shares)
    for value_range in ((5, 5), (0, 70000), (-1, 4), (1, np.nan), 7, "ab"):
        with pytest.raises(ValueError, match="value_range must be"):
            ImageEncoder((8, 8), value_range=value_range)


@pytest.mark.once
def test_an_unknown_range_is_refused(tmp_path):
    images, _ = camera(3)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    Image.fromarray(images[0].astype("uint8")).save(tmp_path / "b.png")
    encode = ImageEncoder((8, 8))
    with pytest.raises(ValueError, match=r"images\[1\] has values of 16 bits.*data.value_range"):
        encode([tmp_path / "b.png", tmp_path / "a.png"])
    given = [tmp_path / "b.png", tmp_path / "a.png", *images, np.zeros((4, 4))]
    with pytest.raises(ValueError, match=r"4 of 6 images, inputs\[1\] first, have values of 16"):
        kft.batches(given, encode)
    with pytest.raises(ValueError, match="Give images of 16 bits as uint16"):
        encode([images[0].astype("int32") * 5])


# ---- stacks


@pytest.mark.once
def test_a_stack_is_not_cut_to_one(tmp_path):
    slices = [Image.fromarray(x) for x in camera(31)[0]]
    slices[0].save(tmp_path / "a.tif", save_all=True, append_images=slices[1:])
    frames = [Image.fromarray(np.full((8, 8), 60 * i, "uint8")) for i in range(3)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:])
    encode = ImageEncoder((8, 8), value_range=(0, 65535))
    for name, count in (("a.tif", 31), ("b.gif", 3), ("c.png", 3)):
        said = rf"{name}, cannot be read as an image: a stack of {count} images"
        for look in (encode, lambda x: encode.check(x, ["it"])):
            with pytest.raises(ValueError, match=said):
                look([tmp_path / name])
        with (Image.open(tmp_path / name) as stack,
              pytest.raises(ValueError, match=rf"stack of {count} .*image.copy\(\)")):  # fmt: skip
            encode([stack])
    with Image.open(tmp_path / "a.tif") as stack:
        stack.seek(7)
        np.testing.assert_array_equal(encode([stack.copy()])["images"],
                                      encode([slices[7]])["images"])  # fmt: skip
    root = folder(tmp_path / "cells", *camera(12))
    (tmp_path / "a.tif").rename(root / "a" / "stack.tif")
    with pytest.raises(ValueError, match=r"1 of 13 files .*stack.tif \(a stack of 31 images"):
        kft.data.read_images(root)


@pytest.mark.once
def test_a_photograph_with_previews_is_no_stack(tmp_path):
    whole, small = (Image.fromarray(np.full((n, n), 60, "uint8")) for n in (32, 8))
    whole.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[small])
    (tmp_path / "scan.tif").write_bytes(tiff([(np.asarray(whole), 0), (np.asarray(small), 1)]))
    with Image.open(tmp_path / "scan.tif") as scan:
        assert scan.n_frames == 2
    for name in ("phone.jpg", "scan.tif"):
        found = ImageEncoder((8, 8), **PLAIN)([tmp_path / name])["images"]
        np.testing.assert_allclose(found, 60, atol=1)


# ---- data sets


def read(root, **options):
    return kft.data.read_images(root, **{"fractions": (0.5, 0.25, 0.25), **options})


@pytest.mark.once
def test_it_is_found_in_the_training_part_alone(tmp_path):
    root = folder(tmp_path / "cells", *camera(40))
    data = read(root)
    assert data.value_range == pixels.find_range(data.train.inputs)
    assert "40 images of 16 bits, with 12" in data.notes[1]
    assert "percentiles 0.1 and 99.9 of the 20 in train" in data.notes[1]
    assert "16 bits" in repr(data)
    # What is in the other parts does not count, but what does not reach the range is said.
    Image.fromarray(np.full((32, 32), 60000, "uint16")).save(data.test.inputs[0])
    Image.fromarray(np.full((32, 32), 3, "uint16")).save(data.valid.inputs[0])
    again = read(root)
    assert again.value_range == data.value_range
    assert "1 reach no more than a tenth" in again.notes[1]
    assert read(root, percentiles=(0, 50)).value_range[1] < data.value_range[1]
    told = read(root, value_range=(0, 4095))
    assert told.value_range == (0, 4095) and "as given" in told.notes[1]
    for options in ({"value_range": (5, 1)}, {"percentiles": (5, 1)}):
        with pytest.raises(ValueError, match="must be"):
            read(root, **options)
    eight = read(folder(tmp_path / "eight", *eight_bits(40)))
    assert eight.value_range is None and len(eight.notes) == 1
    deep_png(eight.test.inputs[0], np.full((8, 8, 3), 900, "uint16"))
    assert "1 image of 16 bits, and none in train" in read(tmp_path / "eight").notes[1]
    deep_png(eight.train.inputs[0], np.full((8, 8, 3), 900, "uint16"))
    assert "2 have colours, and Pillow" in read(tmp_path / "eight").notes[1]


def eight_bits(n):
    images, kinds = camera(n, black=0, white=255)
    return [image.astype("uint8") for image in images], kinds


@pytest.mark.once
def test_baselines_and_kept_runs_know_the_range(tmp_path):
    data = read(folder(tmp_path / "cells", *camera(40)))
    found = baselines.nearest_neighbours(data)
    assert (found.predictions.argmax(1) == data.test.targets).all()
    in_memory = replace(data, value_range=None, train=Split(*camera(40)), valid=Split(*camera(8)))
    assert baselines.nearest_neighbours(in_memory).predictions.shape == found.predictions.shape
    other = replace(data, value_range=(0, 4095))
    assert runs.digest_of_data(data) != runs.digest_of_data(other)


# ---- models


def model_of(name="efficientnet"):
    backbone = kft.backbones.randomised(BACKBONES[name](), 0)
    return kft.Model(backbone, kft.heads.Classification(2))


@pytest.mark.in_turn("jax")
def test_a_model_keeps_the_range_that_it_learned_in(tmp_path, as_written):
    images, kinds = camera(12)
    model = model_of("vit")
    message = "computed from the 12 images for training: 128 for black"
    with pytest.warns(UserWarning, match=message):
        kft.fit(model, (images, kinds), "head_only", 1, verbose=0)
    known = model.backbone.value_range
    assert known == pixels.find_range(images)
    one = kft.predict(model, images[:1])  # not in the range of what it is asked about
    np.testing.assert_allclose(kft.predict(model, images)[:1], one, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.backbone.value_range == known
    np.testing.assert_array_equal(kft.predict(loaded, images), kft.predict(model, images))
    assert runs.new_model(model.backbone, kft.heads.Classification(2)).backbone.value_range == known
    assert model.backbone.resized(64).value_range == known


@pytest.mark.in_turn("torch")
def test_an_adapter_keeps_the_range_that_it_learned_in(tmp_path, as_written):
    images, _ = camera(12)
    model = model_of("vit")
    kft.add_lora(model, 2)
    model.backbone.value_range = pixels.find_range(images)
    perturb(model, 0.1, learning=True)
    expected = kft.predict(model, images)
    assert np.ptp(expected[:, 0]) > 1e-3  # it sees more than black
    vectors = kft.embed(model, images)
    kft.save_adapter(model, tmp_path / "adapter")
    again = model_of("vit")
    with pytest.raises(ValueError, match="values of 16 bits"):
        kft.predict(again, images)
    kft.load_adapter(again, tmp_path / "adapter")
    assert again.backbone.value_range == model.backbone.value_range
    np.testing.assert_array_equal(kft.predict(again, images), expected)
    np.testing.assert_array_equal(kft.embed(again.backbone, images), vectors)
    other = model_of("vit")
    other.backbone.value_range = (0, 65535)
    with pytest.warns(UserWarning, match="keeps 0 for black and 65,535 for white.*value_range"):
        kft.load_adapter(other, tmp_path / "adapter")
    assert other.backbone.value_range == (0, 65535)


@pytest.mark.once
def test_the_range_in_the_files_of_an_adapter(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    model = model_of("vit")
    kft.add_lora(model, 2)
    file = kft.save_adapter(model, tmp_path / "unknown") / "adapter_model.safetensors"
    with safe_open(file, "numpy") as opened:
        about = opened.metadata()
    assert "kft_value_range" not in about
    known = model_of("vit")
    known.backbone.value_range = (100, 200)
    kft.load_adapter(known, tmp_path / "unknown")  # it learned from images of 8 bits: no warning
    assert known.backbone.value_range == (100, 200)
    for wrong in ("no JSON", "[5, 1]", "7"):
        save_file(load_file(file), file, {**about, "kft_value_range": wrong})
        fresh = model_of("vit")
        with pytest.raises(ValueError, match=r"kft_value_range .* must be \[black, white\]"):
            kft.load_adapter(fresh, tmp_path / "unknown")
        assert not kft.lora.names(fresh)  # nothing is changed by then


@pytest.mark.once
def test_which_range_is_taken(tmp_path):
    images, kinds = camera(8)
    part = Split(images, kinds)
    about = {"source": "", "licence": "", "citation": "", "checksum": "", "classes": ("a", "b")}
    data = Dataset("cells", "classification", part, part, part, **about, value_range=(100, 200))
    model = model_of()
    frontier.fit_value_range(model, data)  # what the data know is taken without a word
    assert model.backbone.value_range == (100, 200)
    frontier.fit_value_range(model, replace(data, value_range=None))
    with pytest.warns(UserWarning, match="keeps .*100 for black and 200 for white"):
        frontier.fit_value_range(model, replace(data, value_range=(100, 300)))
    assert model.backbone.value_range == (100, 200)
    model.backbone.value_range = (100, 300)
    assert model.encode.value_range == (100, 300)
    assert len(kft.batches(data.train, model.encode)) == 1
    plain = model_of()
    frontier.fit_value_range(plain, ([image.astype("uint8") for image in images], kinds))
    assert plain.backbone.value_range is None
    kft.dreaming.dream(model.backbone, images[0], "stem", steps=1, octaves=1)
    with pytest.raises(ValueError, match="image has values of 16 bits"):
        kft.dreaming.dream(plain.backbone, images[0], "stem", steps=1, octaves=1)


@pytest.mark.once
def test_what_a_run_will_cost_is_measured_in_the_same_range(tmp_path, as_written):
    data = read(folder(tmp_path / "cells", *camera(40)))
    backbone = model_of().backbone
    expecting.measured_step(backbone, kft.heads.Classification(2), data, 8, None)
    assert backbone.value_range is None  # asking changes nothing


@pytest.mark.once
@pytest.mark.skipif("KFT_DATA" not in os.environ, reason="needs KFT_DATA")
def test_half_of_the_real_images_may_have_sixteen_bits():
    """Many or few nuclei in a microscope image, told by its nearest neighbours."""
    root = Path(os.environ["KFT_DATA"], "nuclei")
    if not root.is_dir():
        pytest.skip("needs the images of nuclei in KFT_DATA")
    images, counts = [], []
    for path in sorted((root / "images").iterdir())[:160]:
        with Image.open(path) as picture:
            images.append(np.asarray(picture.convert("L").resize((64, 64))))
        with Image.open(root / "labels" / path.name) as labels:
            counts.append(int(np.asarray(labels).max()))
    kinds = (np.array(counts) > np.median(counts)).astype("int32")
    half = [x.astype("uint16") * 16 if i % 4 in (0, 3) else x for i, x in enumerate(images)]
    parts = {"train": slice(0, 90), "valid": slice(90, 115), "test": slice(115, 160)}

    def accuracy(given, value_range=None):
        split = {name: Split(given[at], kinds[at]) for name, at in parts.items()}
        data = Dataset("nuclei", "classification", **split, source="", licence="", citation="",
                       checksum="", classes=("few", "many"), value_range=value_range)  # fmt: skip
        found = baselines.nearest_neighbours(data)
        return (found.predictions.argmax(axis=1) == data.test.targets).mean()

    print(accuracy(images), accuracy(half, (0, 65535)), accuracy(half))
    assert accuracy(half) == pytest.approx(accuracy(images), abs=0.05)
    assert accuracy(half, (0, 65535)) < accuracy(half) - 0.05

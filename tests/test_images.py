"""Images of every kind become what a vision backbone takes, or an error that says why not."""

import numpy as np
import pytest
from PIL import Image

import kft
from kft.backbones.vision import images as vision_images
from kft.backbones.vision import weights as vision_weights
from kft.data.images import pixels

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)


def test_images_as_transformers_prepares_them():
    """Exactly its pixels, for ViT, DeiT and DINOv2 (8-bit, three channels)."""
    from transformers import BitImageProcessorPil, DeiTImageProcessorPil, ViTImageProcessorPil

    images = [RNG.integers(0, 256, shape, dtype="uint8") for shape in ((50, 70, 3), (300, 240, 3))]
    for processor, family in (
        (ViTImageProcessorPil(), "vit"),
        (DeiTImageProcessorPil(), "deit"),
        (BitImageProcessorPil(size={"shortest_edge": 256}, image_mean=[0.485, 0.456, 0.406],
                              image_std=[0.229, 0.224, 0.225]), "dinov2"),
    ):  # fmt: skip
        arguments = vision_weights.preprocessing_of(processor.to_dict(), family, 224, "it")
        encode = vision_images.ImageEncoder(**arguments)
        expected = processor(images, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(encode(images)["images"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8,)}, r"size must be \(height, width\) in pixels, received \(8,\)"),
        ({"size": (8, 0)}, r"size must be \(height, width\) in pixels, received \(8, 0\)"),
        ({"size": (8, 8), "resize": 4}, "too little to cut out; received resize=4"),
        ({"size": (8, 8), "resample": "best"}, "resample must be one of .*, received 'best'"),
    ],
)
def test_sizes_and_resampling_that_give_no_image(arguments, message):
    with pytest.raises(ValueError, match=message):
        vision_images.ImageEncoder(**arguments, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_preprocessing_of_older_files_and_without_statistics():
    older = vision_weights.preprocessing_of({"size": 256, "crop_size": 224}, "dinov2", 224, "it")
    newer = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    assert older == vision_weights.preprocessing_of(newer, "dinov2", 224, "it")
    plain = vision_weights.preprocessing_of({"do_normalize": False}, "vit", 224, "it")
    assert (plain["mean"], plain["std"]) == ([0.0] * 3, [255.0] * 3)  # divided by 255 alone
    unset = vision_weights.preprocessing_of(
        {"resample": None, "rescale_factor": None}, "vit", 224, "it"
    )
    assert unset == vision_weights.preprocessing_of({}, "vit", 224, "it")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rescale_factor": 0.5}, "rescale_factor in .* is 0.5, expected 1/255"),
        ({"image_mean": [0.5]}, "image_mean in .* must be three numbers, received"),
        ({"image_std": [1.0, 0.0, 1.0]}, "image_std in .* must be three numbers, received"),
        ({"image_mean": [0.5, 0.5, "x"]}, "image_mean in .* must be three numbers, received"),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": False},
            "resizes to one side and crops nothing, so that images differ in size",
        ),
    ],
)
def test_preprocessing_that_kft_does_not_do_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        vision_weights.preprocessing_of(config, "dinov2", 224, "it")


def test_images_as_transformers_prepares_them_for_dinov3():
    """Its processor needs torchvision, whose resizing of float images is torch's."""
    torch = pytest.importorskip("torch")
    settings = {"resample": 2, "size": {"height": 24, "width": 40}, "do_center_crop": None}
    arguments = vision_weights.preprocessing_of(settings, "dinov3_vit", 224, "it")
    encode = vision_images.ImageEncoder(**arguments)
    for shape in ((50, 70, 3), (10, 90, 3)):
        image = RNG.integers(0, 256, shape, dtype="uint8")
        x = torch.tensor(image.transpose(2, 0, 1)[None] / np.float32(255))
        x = torch.nn.functional.interpolate(x, (24, 40), mode="bilinear", antialias=True)
        expected = x[0].numpy().transpose(1, 2, 0)
        expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(encode([image])["images"][0], expected, atol=1e-5)
    assert vision_images.ImageEncoder(**encode.get_config()) == encode


def test_grey_is_repeated(tmp_path):
    encode = vision_images.ImageEncoder((8, 8), mean=(0,) * 3, std=(255,) * 3)
    grey = RNG.integers(0, 256, (8, 8), dtype="uint8")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "rgba.png")
    given = [grey, grey[..., None], np.stack([grey] * 3, -1), grey / 255, Image.fromarray(grey),
             tmp_path / "grey.png", str(tmp_path / "rgba.png")]  # fmt: skip
    found = encode(given)["images"]
    assert found.shape == (7, 8, 8, 3) and found.dtype == np.float32
    for one in found:
        np.testing.assert_allclose(one, np.stack([grey] * 3, -1) / 255, atol=1e-6)


def test_sixteen_bits_keep_their_precision(tmp_path):
    deep = (np.arange(64).reshape(8, 8) * 1000).astype("uint16")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    black_is_none = {"mean": (0,) * 3, "std": (255,) * 3, "value_range": (0, 65535)}
    encode = vision_images.ImageEncoder((8, 8), **black_is_none)
    found = encode([tmp_path / "deep.png"])["images"][0, ..., 0]
    np.testing.assert_allclose(found, deep / 65535, atol=1e-6)


def test_pixels_keep_their_depth_and_transparent_ones_lie_over_white():
    clear = np.zeros((2, 2, 4), "uint16")
    clear[0, 0] = [1000, 2000, 3000, 65535]  # opaque; all others are transparent
    found = pixels.read_as_stored(clear, "image")
    assert found.dtype == "uint16" and found[0, 0].tolist() == [1000, 2000, 3000]
    assert (found[1] == 65535).all()
    mask = np.array([[True, False]])
    assert pixels.read_as_stored(mask, "image").tolist() == [[255, 0]]
    with pytest.raises(ValueError, match=r"image has shape .*: expected 1, 3 or 4 channels"):
        pixels.read_as_stored(np.zeros((9, 9, 2), "uint16"), "image")


class OnADevice:
    """What cannot be converted, as a tensor of another device."""

    shape, ndim = (4, 4), 2

    def __array__(self, *_, **__):
        raise RuntimeError("it is on a device")


BAD = (
    ([OnADevice()], TypeError, r"images\[0\] is not an array \(it is on a device\): give a path"),
    ([], ValueError, "empty"),
    ("a.png", TypeError, r"write \[image\]"),
    (np.zeros((4, 4, 3)), TypeError, r"write \[image\]"),
    (["no.png"], FileNotFoundError, r"images\[0\] is 'no.png'"),
    ([None], TypeError, r"images\[0\]"),
    ([np.full((4, 4), 300)], ValueError, "from 300 to 300"),
    ([np.full((4, 4), 1.5)], ValueError, "floats within 0 to 1"),
    ([np.full((4, 4), np.nan)], ValueError, "floats within 0 to 1"),
    ([np.zeros((3, 40, 50), "uint8")], ValueError, "transpose"),
)


@pytest.mark.parametrize(("images", "error", "message"), BAD)
def test_bad_images(images, error, message):
    with pytest.raises(error, match=message):
        vision_images.ImageEncoder((8, 8))(images)


def test_damaged_files(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype="uint8")).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    Image.new("F", (4, 4)).save(tmp_path / "floats.tiff")
    Image.new("RGB", (4, 4)).save(tmp_path / "exif.png", exif=b"junk")
    Image.fromarray(RNG.integers(0, 256, (300, 300, 3), dtype="uint8")).save(tmp_path / "large.png")
    first, second, *rest = (tmp_path / "large.png").read_bytes().split(b"IDAT")
    # What `read_images` lets pass can be encoded, and nothing else.
    (tmp_path / "bad").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "bad" / "good.png")
    rows = ["path,y", "bad/good.png,1"]
    for name, content, message in (
        ("cut.jpg", whole[: len(whole) // 2], "cannot be read as an image: damaged"),
        ("empty.jpg", b"", "cannot be read as an image"),
        ("text.jpg", b"no image at all", "cannot be read as an image"),
        ("floats.tiff", None, "mode 'F'"),
        ("exif.png", None, "cannot be read as an image: damaged"),
        ("chunk.png", b"IDAT".join([first, second]) + b"\0\1\2\3" + b"IDAT".join(rest),
         "cannot be read as an image: damaged"),
    ):  # fmt: skip
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            vision_images.ImageEncoder((8, 8))([tmp_path / "whole.jpg", path])
        assert "images[1]" in str(error.value)
        rows.append(f"{name},2")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="6 of 7 files are not complete images"):
        kft.data.read_images(tmp_path / "all.csv")


def test_batches_look_at_every_image_first(tmp_path):
    """A file that is none is an error now, not in the third epoch; paths are not taken for text."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((5, 5), "uint8")).save(path)
    (tmp_path / "b.png").write_text("no image")
    encode = vision_images.ImageEncoder((8, 8))
    batches = kft.batches(([str(path)] * 3, [0, 1, 0]), encode, 2)
    assert batches.lengths is None
    assert {batches[i][0]["images"].shape for i in range(2)} == {(2, 8, 8, 3), (1, 8, 8, 3)}
    with pytest.raises(ValueError, match=r"inputs\[1\]"):
        kft.batches(([path, tmp_path / "b.png"], [0, 1]), encode, 2)
    # A header can be whole alone: then the file is named when its turn comes.
    Image.new("L", (5, 5)).save(tmp_path / "c.png", exif=b"junk")
    batches = kft.batches(([path, tmp_path / "c.png"], [0, 1]), encode, 2)
    with pytest.raises(ValueError, match=r"c\.png, cannot be read as an image: damaged"):
        batches[0]

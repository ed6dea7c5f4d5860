"""The recipes on SAM that train more than its IoU head, or nothing."""

import re

import numpy as np
import pytest
from keras import ops
from PIL import Image
from pretrain_sam import SHAPE
from recipe.sam_direct import MASK, Direct
from recipe.sam_on_windows import Prompted
from recipe.sam_prompts import open_decoder
from recipe.sam_start import begin
from recipe.sam_windows import Windows
from recipe.simulated import simulated
from recipe_runs import run

import kft
from kft.backbones.sam import Sam
from kft.backbones.sam.prompts import ABSENT, NOT_A_POINT, POSITIVE


@pytest.mark.in_turn("torch")
def test_sam_decoder_and_lora(tmp_path):
    """Scores before and after, beside what costs nothing; what is written can be read again."""
    for name in ("sam_decoder", "sam_lora"):
        printed = run(name, tmp_path, "--tiny")
        assert (
            len(re.findall(r"mean IoU of one point 0\.\d{3} .*, of one box 0\.\d{3}", printed)) == 3
        )
    assert kft.load_model(tmp_path / "sam_decoder" / "sam.keras").image_size == 64
    assert (tmp_path / "sam_lora" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.once
def test_sam_prompt(tmp_path):
    """Three label images of the simulated one, each with a figure and its caption."""
    printed = run("sam_prompt", tmp_path, "--tiny")
    for name in ("points", "boxes", "everything"):
        assert np.asarray(Image.open(tmp_path / f"{name}.tif")).shape == (64, 64)
        assert " ".join((tmp_path / f"{name}.txt").read_text().split()) in " ".join(printed.split())


@pytest.mark.in_turn("torch")
def test_pretrain_sam(tmp_path):
    """It writes a model that kft.load reads; once all is done, the same command trains nothing."""
    first = run("pretrain_sam", tmp_path, "--tiny")
    written = (tmp_path / "model" / "model.safetensors").read_bytes()
    second = run("pretrain_sam", tmp_path, "--tiny")
    assert first.count(" - loss: ") == 2
    assert not second.count(" - loss: ")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == written
    assert kft.load(tmp_path / "model").image_size == 64


@pytest.mark.once
def test_a_small_sam_begins_with_discs():
    """Before any training masks are highest at their points, and still so in the open decoder."""
    sam = Sam(**{**SHAPE, "num_blocks": 1, "global_blocks": ()})
    images, labels = simulated(1, sam.image_size, 0, each=1)
    begin(sam, images, 0, MASK)
    batch = Windows(images, labels, 8, sam.grid, 1, 1, 2, 0)[0][0]
    points = [[[60, 150], [180, 110]]]
    batch["points"][:, :, 0] = points
    batch["labels"][:] = [POSITIVE, NOT_A_POINT, ABSENT]
    batch = {name: ops.convert_to_tensor(x) for name, x in batch.items()}
    direct, prompted = Direct(sam), Prompted(sam)
    embedding = prompted.embedding(batch["images"], batch["corner"])
    before = direct.masks(embedding, batch)[0]
    open_decoder(sam, MASK)
    after = prompted.masks(embedding, batch, batch["points"], batch["labels"])["masks"]
    places = np.stack(np.meshgrid(*[(np.arange(128) + 0.5) * 2] * 2), axis=-1)  # x and y
    for logits in map(ops.convert_to_numpy, (before, after[:, :, MASK])):
        highest = logits.reshape(1, 2, -1).argmax(axis=-1)
        assert np.abs(places.reshape(-1, 2)[highest] - points).max() < 16

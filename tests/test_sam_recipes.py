"""The recipes on SAM that train more than its IoU head, or nothing."""

import re

import numpy as np
import pytest
from PIL import Image
from recipe_runs import run

import kft


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
    assert first.count(" - loss: ") == 4
    assert not second.count(" - loss: ")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == written
    assert kft.load(tmp_path / "model").image_size == 64

"""Fingerprints and the table of parameters."""

import re

import keras
import numpy as np
import pytest
from models import MODELS, dense, make_cnn, make_esm, make_sequential

from kft import params

# Fingerprints ---------------------------------------------------------------------------------


def test_fingerprints_are_the_same_after_a_reload_and_on_every_backend(tmp_path):
    hidden = [dense(4, "a"), keras.layers.BatchNormalization(name="norm"), dense(4, "b")]
    model = keras.Sequential([keras.Input((6,)), *hidden, dense(1, "out")])
    rng = np.random.default_rng(0)
    model.set_weights([rng.integers(-9, 9, w.shape).astype("float32") for w in model.weights])
    params.freeze(model, ["a", "norm"])
    here = [params.fingerprint(model, trainable) for trainable in (False, True, None)]
    assert [found[:12] for found in here] == ["1ec9503c4767", "bb9908f0f10e", "f803a3713f47"]
    assert {len(found) for found in here} == {64}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [params.fingerprint(loaded, t) for t in (False, True, None)] == here


def test_fingerprints_of_known_values():
    """The same digits on every backend, bfloat16 included."""
    digits = {"float32": "a0402aa54c30", "float16": "13606807ee92", "bfloat16": "7915992e12db"}
    for dtype, expected in digits.items():
        variable = keras.Variable([[0.5, -2.0, 3.0]], dtype=dtype)
        assert (dtype, params.digest(variable)[:12]) == (dtype, expected)


def test_one_number_or_one_path_changes_the_fingerprint():
    model = make_sequential()
    found = {params.fingerprint(model, None)}
    kernel = model.get_layer("b").kernel
    kernel.assign(kernel + np.eye(4) * 1e-6)
    found.add(params.fingerprint(model, None))
    model.get_layer("b").name = "c"
    found.add(params.fingerprint(model, None))
    assert len(found) == 3
    assert params.fingerprint(model) == params.fingerprint(make_cnn())  # of nothing frozen


# The table ------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_the_table_counts(name):
    make, pattern, count, _ = MODELS[name]
    model = make()
    params.freeze(model, pattern)
    table = params.parameters(model)
    assert table.total == model.count_params()
    assert table.trainable == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert table.frozen == table.total - table.trainable
    assert len(table.rows) == count
    frame = table.to_frame()
    assert list(frame) == ["module", "weight", "shape", "parameters", "trainable", "dtype"]
    assert frame.parameters[frame.trainable].sum() == table.trainable
    assert f"{table.total:,}" in str(table)


@pytest.mark.once
def test_what_repeats_is_written_once():
    model = make_esm(4)
    params.freeze(model, ["embedding", "block_0"])
    lines = str(params.parameters(model)).splitlines()
    (block,) = [line.split("   ")[0] for line in lines if "…" in line]
    assert block == "block_1 … block_3 (3 ×)"
    assert sum(line.split()[0] == "query" for line in lines) == 2
    assert [line.split() for line in lines if "query" in line][1][-3:] == ["816", "yes", "float32"]
    assert sum(line.startswith("block_0 ") for line in lines) == 1
    assert lines[-2].split() == ["trainable", "9,905", "72.2", "%"]
    assert max(map(len, lines)) <= 90 and all(line == line.rstrip() for line in lines)
    params.freeze(model, "block_2/query")
    assert "…" not in str(params.parameters(model))


@pytest.mark.once
def test_nested_repeats_are_written_once():
    def encoder(name):
        blocks = [dense(4, f"layer_{i}") for i in range(12)]
        return keras.Sequential([keras.Input((4,)), *blocks], name=name)

    model = keras.Sequential([keras.Input((4,)), encoder("encoder_0"), encoder("encoder_1")])
    head, _, *lines, _, total, _, _ = str(params.parameters(model)).splitlines()
    assert head.split() == ["module", "weight", "shape", "parameters", "trainable", "dtype"]
    assert [re.sub("   +", "  ", line) for line in lines] == [
        "encoder_0, encoder_1 (2 ×)  480  yes  float32",
        "  layer_0 … layer_11 (12 ×)  kernel 4 × 4, bias 4  480  yes  float32",
    ]
    assert total.split() == ["total", "480"]

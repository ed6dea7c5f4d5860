"""What an earlier kft wrote is read by this one: `stored/write.py` tells what the files hold."""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from models import in_turn

import kft

pytestmark = pytest.mark.usefixtures("as_written")

STORED = Path(__file__).parent / "stored"
COMPILED = ("autoencoder", "classification", "masked_lm", "multilabel", "regression")
NAMES = sorted(path.stem for path in STORED.glob("*.keras"))


@pytest.fixture(scope="module")
def expected():
    """{"a/b/name": array}, in a function of the part before the name."""
    with np.load(STORED / "expected.npz") as kept:
        arrays = dict(kept)

    def under(path):
        named = ((key.rpartition("/"), array) for key, array in arrays.items())
        return {name: array for (folder, _, name), array in named if folder == path}

    return under


def load(name):
    model = keras.saving.load_model(STORED / f"{name}.keras")
    # As written by torch; on JAX one program is sooner compiled than each operation.
    model.jit_compile = keras.backend.backend() == "jax"
    return model


def assert_near(found, wanted, rtol=1e-5, atol=1e-6):
    """Compares an array, or a dict of them, with a stored dict."""
    found = found if isinstance(found, dict) else {"answer": found}
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol, atol, err_msg=name)


def test_all_files_are_there():
    assert len(NAMES) == 27 and set(COMPILED) < set(NAMES)


@pytest.mark.parametrize("name", in_turn(NAMES))
def test_models(name, expected):
    """It answers as before, as many weights learn, and what it was compiled with is as it was."""
    model = load(name)
    inputs = expected(f"{name}/inputs")
    assert_near(model.predict_on_batch(inputs), expected(f"{name}/answers"))
    about, table = expected(name), kft.parameters(model)
    assert [table.trainable, table.total] == about["parameters"].tolist()
    if name in COMPILED:
        state = [np.abs(keras.ops.convert_to_numpy(v)).sum() for v in model.optimizer.variables]
        np.testing.assert_allclose(state, about["optimizer"], rtol=1e-5)
        targets, weights = about["targets"], about.get("weights")
        options = {"sample_weight": weights, "verbose": 0, "return_dict": True}
        scores = model.evaluate(inputs, targets, len(targets), **options)
        assert_near(scores, expected(f"{name}/scores"), rtol=1e-4)


def test_models_of_a_backbone(expected):
    backbone, inputs = load("esm2"), expected("esm2/inputs")
    assert_near(backbone.masked_lm.predict_on_batch(inputs), expected("esm2/masked_lm"))
    assert_near(backbone.contacts.predict_on_batch(inputs), expected("esm2/contacts"))


def test_weights_alone(expected):
    model = load("one_block")
    model.load_weights(STORED / "one_block.weights.h5")
    assert_near(model.predict_on_batch(expected("one_block/inputs")), expected("weights/answers"))


@pytest.mark.in_turn("jax")
def test_several_adapters(expected):
    model, inputs = load("lora"), expected("lora/inputs")
    assert sorted(kft.lora.names(model)) == ["first", "second"]
    for name in ("second", "first", None):
        kft.lora.use(model, name)
        assert_near(model.predict_on_batch(inputs), expected(f"lora/{name or 'base'}"))


def test_merged_adapters(expected):
    model = load("lora_merged")
    kft.unmerge_lora(model)
    found = model.predict_on_batch(expected("lora_merged/inputs"))
    assert_near(found, expected("lora_merged/unmerged"))


def test_an_adapter_in_its_folder(expected):
    model = kft.Model(load("esm2"), kft.heads.Classification(3))
    kft.load_adapter(model, STORED / "adapter")
    assert_near(model.predict_on_batch(expected("esm2/inputs")), expected("adapter/answers"))


@pytest.mark.in_turn("torch")
def test_a_pretraining_goes_on(expected, tmp_path):
    """After its first of two epochs, to where it would have come without the interruption."""
    shutil.copy(STORED / "pretraining" / "state.npz", tmp_path)
    about = expected("pretraining")
    done = kft.pretraining.pretrain(
        load("esm2_one_block"), about["sequences"].tolist(), about["valid"].tolist(),
        epochs=2, tokens=64, crop=16, learning_rate=1e-3, out=tmp_path, verbose=0,
    )  # fmt: skip
    assert done.history[0]["seconds"] == about["seconds"]  # the first epoch was not run again
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose([row[name] for row in done.history], about[name], rtol=1e-4)
    found = done.model.predict_on_batch(expected("esm2_one_block/inputs"))
    # Adam divides by the size of the gradient, rounding included: a step may be off by a hundredth.
    assert_near(found, expected("pretraining/answers"), rtol=1e-3, atol=1e-4)


@pytest.mark.once
def test_a_comparison_is_read_again(tmp_path):
    """Nothing is trained: the strategies' seconds and memory are those of then."""
    out = shutil.copytree(STORED / "comparison", tmp_path / "comparison")
    stored = pd.read_csv(out / "peptides.csv", index_col="method")
    record = json.loads((out / "peptides.json").read_text())
    if (record["keras"], record["backend"]) != (keras.__version__, keras.backend.backend()):
        pytest.skip("with another Keras or backend a comparison is made anew, as it should be")
    before = sorted((out / "runs").iterdir())
    data = kft.data.read_csv(STORED / "peptides.csv", split="split")
    found = kft.compare(
        load("esm2_one_block"), data, ["head_only", "lora"], 2, epochs=6, batch_size=4,
        resamples=100, out=out, verbose=False, copies=False,
    )  # fmt: skip
    assert len(before) == 8 and sorted((out / "runs").iterdir()) == before
    tables = [stored, pd.read_csv(out / "peptides.csv", index_col="method")]  # it is written anew
    for table in tables:  # baselines are fitted each time, and the cheapest may be another
        table.loc[table["kind"] == "baseline", "seconds"] = np.nan
    # Intervals of accuracies were percentiles of the bootstrap then, and are exact ones now.
    left = ["recommended", "accuracy low", "accuracy high"]
    pd.testing.assert_frame_equal(*(table.drop(columns=left) for table in tables))
    assert [row.name for row in found.rows] == stored.index.tolist()


@pytest.mark.once
def test_no_two_classes_are_stored_under_one_name():
    """A file names its classes, and the later of two with one name would take the other's place."""
    by_name = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("kft.")]:
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                name = keras.saving.get_registered_name(value)
                if name.startswith("kft>"):
                    by_name.setdefault(name, set()).add(value)
    assert len(by_name) > 50
    assert {name: found for name, found in by_name.items() if len(found) > 1} == {}

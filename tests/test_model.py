"""kft.Model is a plain Keras model, saved, frozen and moved to another backend unchanged.

kft.predict and kft.embed say what it says one by one, from a list or a file of any size.
"""

import csv
import gzip
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
from models import esm2, perturb
from parity import assert_rounds_alike

import kft
import kft.inference.embedding as module
from kft.backbones.esm2.model import ESM2
from kft.inference import records
from kft.training import pretraining

BACKEND = keras.backend.backend()
ANOTHER = {"jax": "torch", "torch": "jax", "tensorflow": "jax"}[BACKEND]

# Two lengths, 8 and 16 tokens. The target is the share of alanine.
SEQUENCES = ["AAAAAA", "WWWWWW", "AWAWAW", "AAWAAW", "W" * 12, "A" * 12, "AWWWAWWWAWWW", "AAAW" * 3]
TARGETS = np.array([s.count("A") / len(s) for s in SEQUENCES])


def make_model():
    backbone = kft.backbones.randomised(ESM2(2, 16, 2), 0)
    model = kft.Model(backbone, kft.heads.Regression(mean=0.5, pooling="attention"))
    model.compile(keras.optimizers.Adam(0.01), "mean_squared_error")
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model whose embedding and first block are frozen, the loss before and after, its file."""
    model = make_model()
    model.backbone.trainable = False
    for stage in model.backbone.stages[2:]:
        stage.trainable = True
    model.compile(keras.optimizers.Adam(0.03), "mean_squared_error")
    frozen = [w for stage in model.backbone.stages[:2] for w in stage.get_weights()]
    train = kft.batches((SEQUENCES, TARGETS), model.encode, 4)
    losses = model.fit(train, epochs=8, verbose=0).history["loss"]
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return {"model": model, "losses": losses, "path": path, "frozen": frozen}


@pytest.mark.once
def test_the_layers_of_both_parts_lie_flat_in_one_functional_graph():
    model = make_model()
    names = ["token_ids", "embedding", "attention_mask", "block_0", "block_1", "final_norm"]
    assert sorted(layer.name for layer in model.layers) == sorted([*names, "position_mask", "head"])
    assert isinstance(model, keras.src.models.Functional)
    assert model.head is model.get_layer("head")
    assert [stage is model.get_layer(stage.name) for stage in model.backbone.stages] == [True] * 4
    listed = [id(w) for w in model.weights]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(w) for part in (model.backbone, model.head) for w in part.weights}


def test_freezing_speaks_of_stages_and_of_the_backbone():
    model = make_model()
    stages, head = model.backbone.stages, model.head
    assert len(model.trainable_weights) == len(model.weights)
    model.backbone.trainable = False
    assert paths(model.trainable_weights) == paths(head.weights)
    assert paths(model.non_trainable_weights) == paths(model.backbone.weights)
    stages[2].trainable = True
    assert paths(model.trainable_weights) == paths([*stages[2].weights, *head.weights])
    model.backbone.trainable = True
    assert len(model.trainable_weights) == len(model.weights)


def paths(weights):
    return sorted(w.path for w in weights)


def test_fit_learns_and_leaves_the_frozen_alone(trained):
    assert trained["losses"][-1] < 0.3 * trained["losses"][0]
    stages = trained["model"].backbone.stages[:2]
    after = [w for stage in stages for w in stage.get_weights()]
    for old, new in zip(trained["frozen"], after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["model", "masked_lm"])
def test_fit_leaves_batches_of_pretraining_in_their_order(kind, monkeypatch):
    """Keras would shuffle them once more, with Python's global random state."""
    backbone, served = ESM2(1, 16, 2), []
    batches = pretraining.masked_batches(["MKTAYI"] * 90, backbone.encode, 64, 16)
    monkeypatch.setattr(batches, "batch", lambda i, of=batches.batch: (served.append(i), of(i))[1])
    head = kft.heads.ResidueClassification(33)
    model = backbone.masked_lm if kind == "masked_lm" else kft.Model(backbone, head)
    model.compile("sgd", pretraining.MaskedCrossEntropy())
    model.fit(batches, epochs=2, verbose=0)
    last = served[-len(batches) :]
    assert len(batches) > 10 and last == sorted(last)


def test_save_and_load_in_safe_mode(trained):
    model, loaded = trained["model"], keras.saving.load_model(trained["path"], safe_mode=True)
    expected = kft.predict(model, SEQUENCES)
    np.testing.assert_array_equal(kft.predict(loaded, SEQUENCES), expected)
    assert type(loaded) is kft.Model
    assert loaded.head.get_config() == model.head.get_config()
    assert [stage.name for stage in loaded.backbone.stages] == [
        stage.name for stage in model.backbone.stages
    ]
    np.testing.assert_array_equal(kft.embed(loaded, SEQUENCES), kft.embed(model, SEQUENCES))
    # "auto" as resolved on this backend would mean a minute of tracing on torch.
    assert model.get_compile_config()["jit_compile"] == "auto"
    # What was frozen is frozen, and training goes on where it was: the optimizer's state fits.
    assert paths(loaded.trainable_weights) == paths(model.trainable_weights)
    old, new = ([v.numpy() for v in m.optimizer.variables] for m in (model, loaded))
    for a, b in zip(map(np.asarray, old), map(np.asarray, new), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.in_turn("torch")  # on every backend in the tests of heads
@pytest.mark.parametrize("head", ["Classification", "Regression"])
def test_every_head_is_saved(head, tmp_path):
    made = {"Classification": lambda: kft.heads.Classification(3, pooling="cls")}
    made["Regression"] = lambda: kft.heads.Regression(2, mean=1.0, std=2.0)
    model = kft.Model(kft.backbones.randomised(ESM2(1, 16, 2), 0), made[head]())
    model.head.dense.kernel.assign(
        np.random.default_rng(0).normal(size=(16, model.output_shape[1]))
    )
    model.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    tokens = model.encode(SEQUENCES[:4], pad_lengths=[8])
    np.testing.assert_array_equal(loaded.predict_on_batch(tokens), model.predict_on_batch(tokens))


ELSEWHERE = """
import json, sys
import numpy as np
import kft
import keras
path, out, sequences = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = keras.saving.load_model(path)
np.savez(out, backend=keras.backend.backend(), answers=kft.predict(model, sequences))
"""


@pytest.mark.once
def test_files_with_the_earlier_name_of_the_mask_are_loaded(tmp_path):
    """The argument position_mask, and the layer, were called residue_mask."""
    for head in (kft.heads.Regression(pooling="attention"), kft.heads.EsmClassification(2)):
        model = perturb(kft.Model(esm2(), head))
        model.trainable = head.pooling is not None  # else all layers are named as frozen
        path, earlier = tmp_path / "now.keras", tmp_path / "earlier.keras"
        model.save(path)
        with zipfile.ZipFile(path) as now, zipfile.ZipFile(earlier, "w") as then:
            for name in now.namelist():
                content = now.read(name)
                if name == "config.json":
                    assert b"position_mask_shape" in content
                    assert (b'"position_mask"' in content) == (not model.trainable)
                    content = content.replace(b"position_mask", b"residue_mask")
                then.writestr(name, content)
        loaded = keras.saving.load_model(earlier)
        found, wanted = (kft.predict(x, PROTEINS) for x in (loaded, model))
        np.testing.assert_array_equal(found, wanted)
        assert kft.parameters(loaded).trainable == kft.parameters(model).trainable


@pytest.mark.in_turn("torch")
def test_another_backend_answers_the_same(trained, tmp_path):
    if not kft.importlib.util.find_spec(ANOTHER):
        pytest.skip(f"{ANOTHER} is not installed")
    out = tmp_path / "answers.npz"
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, trained["path"], out, json.dumps(SEQUENCES)],
        check=True,
        env=os.environ | {"KERAS_BACKEND": ANOTHER},
    )
    there = np.load(out)
    assert there["backend"] == ANOTHER
    expected = kft.predict(trained["model"], SEQUENCES)
    assert_rounds_alike(there["answers"], expected)


def test_a_backbone_without_a_mask_will_do():
    image = keras.Input((4, 8), name="features")
    model = kft.Model(keras.Model(image, keras.layers.Dense(8)(image)), kft.heads.Regression())
    assert model.predict_on_batch(np.ones((2, 4, 8))).shape == (2, 1)


# Predictions from raw inputs ------------------------------------------------------------------

PROTEINS = ["MKTAYIAKQRQ", "GA", "WWWWWWWWWW", "ACD<mask>E", "M", "GSSGSSGSSGSSGS", "KK", "LLLL"]
NAMES = [f"P{i} protein {i}, with a comma" for i in range(len(PROTEINS))]


@pytest.fixture(scope="module")
def predictor():
    head = kft.heads.Regression(2)
    predictor = kft.Model(kft.backbones.randomised(ESM2(1, 16, 2), 0), head)
    rng = np.random.default_rng(1)
    for variable in predictor.weights:
        variable.assign(0.2 * rng.standard_normal(variable.shape, dtype="float32"))
    return predictor


@pytest.fixture(scope="module")
def hidden(predictor):
    """What the backbone says of each protein alone, without padding but for one common shape."""
    rows = [predictor.backbone.encode([s], pad_lengths=[16])["token_ids"] for s in PROTEINS]
    return [predictor.backbone.predict_on_batch({"token_ids": row})[0] for row in rows]


@pytest.fixture(scope="module")
def means(predictor, hidden):
    lengths = [predictor.backbone.encode([s])["token_ids"].shape[1] - 2 for s in PROTEINS]
    return np.stack([h[1 : 1 + n].mean(axis=0) for h, n in zip(hidden, lengths, strict=True)])


@pytest.fixture(scope="module")
def answers(predictor, means):
    kernel, bias = map(
        keras.ops.convert_to_numpy, (predictor.head.dense.kernel, predictor.head.dense.bias)
    )
    return means @ kernel + bias


@pytest.fixture(params=["plain", "gz"])
def fasta(request, tmp_path):
    return write_fasta(tmp_path / "in.fasta", PROTEINS, request.param == "gz")


def write_fasta(path, sequences, zipped=False):
    text = "".join(f">{n}\n{s}\n" for n, s in zip(NAMES, sequences, strict=False))
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


ONCE = pytest.mark.once


@pytest.mark.parametrize(
    "kind", [list, *(pytest.param(kind, marks=ONCE) for kind in (tuple, np.array, iter))]
)
def test_predict_keeps_the_order(predictor, answers, kind):
    found = kft.predict(predictor, kind(PROTEINS), batch_size=3)
    assert found.dtype == "float32"
    assert np.ptp(answers, axis=0).min() > 0.01
    assert_rounds_alike(found, answers)


@pytest.mark.once
def test_two_inputs_in_a_tuple_are_two_inputs(predictor, answers):
    found = kft.predict(predictor, (PROTEINS[0], PROTEINS[1]), batch_size=3)
    assert_rounds_alike(found, answers[:2])


@pytest.mark.in_turn("torch")
def test_embed_pools_residues_or_takes_the_first_token(predictor, hidden, means):
    found = kft.embed(predictor.backbone, PROTEINS, batch_size=3)
    assert found.dtype == "float32"
    assert_rounds_alike(found, means)
    np.testing.assert_array_equal(kft.embed(predictor, PROTEINS, batch_size=3), found)
    first = kft.embed(predictor, PROTEINS, pooling="cls", batch_size=3)
    assert_rounds_alike(first, [h[0] for h in hidden])


@pytest.mark.once
def test_embed_builds_its_model_once(predictor, monkeypatch):
    kft.embed(predictor, PROTEINS, batch_size=3)
    built = []
    monkeypatch.setattr(module, "Pooling", lambda *args: built.append(args))
    kft.embed(predictor, PROTEINS, batch_size=3)
    kft.embed(predictor.backbone, PROTEINS, batch_size=3)
    assert not built


@pytest.mark.once
def test_max_length_cuts_and_says_so_once(predictor, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "CHUNK", 3)
    path = write_fasta(tmp_path / "in.fasta", PROTEINS)
    with pytest.warns(UserWarning) as caught:
        found = kft.predict(predictor, path, max_length=9, batch_size=3)
    assert [str(w.message) for w in caught if w.category is UserWarning] == [
        "3 of 8 inputs were longer than max_length=9: 8 residues cut from their ends."
    ]
    cut = [s if "<" in s else s[:9] for s in PROTEINS]
    assert_rounds_alike(found, kft.predict(predictor, cut, batch_size=3))


def read_csv(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype="float32")


@pytest.mark.once
@pytest.mark.parametrize("chunk", [3, 8, 100], ids=["chunks", "just one", "less than one"])
def test_from_fasta_to_csv_and_npz(predictor, answers, fasta, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(records, "CHUNK", chunk)
    found = kft.predict(predictor, fasta, batch_size=3)
    assert_rounds_alike(found, answers)

    written = kft.predict(predictor, str(fasta), batch_size=3, out=tmp_path / "new" / "out.csv")
    table = pd.read_csv(written, keep_default_na=False)
    assert table.columns.tolist() == ["id", "description", "prediction_0", "prediction_1"]
    assert (table.id + " " + table.description).str.strip().tolist() == NAMES
    values = table[["prediction_0", "prediction_1"]].astype("float32")
    np.testing.assert_array_equal(values, found)

    out = kft.predict(predictor, fasta, batch_size=3, out=tmp_path / "new" / "out.npz")
    archive = kft.load_embeddings(out)
    assert archive.names == NAMES
    assert archive.values.dtype == "float32"
    np.testing.assert_array_equal(archive.values, found)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["out.csv", "out.npz"]


@pytest.mark.once
def test_embed_to_files(predictor, means, tmp_path):
    out = kft.embed(predictor, PROTEINS, batch_size=3, out=str(tmp_path / "out.npz"))
    archive = kft.load_embeddings(out)
    assert archive.names == [f"inputs[{i}]" for i in range(len(PROTEINS))]
    assert_rounds_alike(archive.values, means)
    _, _, values = read_csv(kft.embed(predictor, PROTEINS, batch_size=3, out=tmp_path / "out.csv"))
    np.testing.assert_array_equal(values, archive.values)


@pytest.mark.once
@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_an_error_halfway_leaves_an_earlier_file_as_it_was(
    predictor, tmp_path, monkeypatch, suffix
):
    monkeypatch.setattr(records, "CHUNK", 3)
    path = write_fasta(tmp_path / "in.fasta", [*PROTEINS[:7], "LLJL"])
    out = tmp_path / f"out.{suffix}"
    with pytest.raises(ValueError, match="record P7 has 'J' at position 3") as caught:
        kft.predict(predictor, path, batch_size=3, out=out)
    assert caught.value.__notes__ == [
        f"What was computed is kept next to {out}: the same call continues from it, and another "
        f"one that writes {out.name} removes it."
    ]
    assert [p.name for p in tmp_path.iterdir() if p.name[0] != "."] == ["in.fasta"]
    out.write_text("from an earlier run")
    with pytest.raises(ValueError, match="P7"):
        kft.predict(predictor, path, batch_size=3, out=out)
    assert out.read_text() == "from an earlier run"
    write_fasta(path, PROTEINS)  # two parts are the same as before
    kft.predict(predictor, path, batch_size=3, out=out)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.fasta", out.name])


@pytest.mark.once
@pytest.mark.parametrize("do", [kft.predict, kft.embed])
def test_bad_input(predictor, tmp_path, do):
    empty = tmp_path / "empty.fasta"
    empty.write_text("")
    for inputs, error, message in (
        ([], ValueError, "at least one"),
        ([None, "MK"], TypeError, r"inputs\[0\] must be a string"),
        (["MK", 3], TypeError, r"inputs\[1\] must be a string"),
        (["MK", "M1"], ValueError, r"inputs\[1\] has '1' at position 2"),
        (empty, ValueError, "empty.fasta holds no FASTA record"),
        ("MKTAYI", FileNotFoundError, "'MKTAYI', which is not a file.* list of raw inputs"),
        ("MKTAYI" * 100, FileNotFoundError, "which is not a file.* list of raw inputs"),
    ):
        with pytest.raises(error, match=message):
            do(predictor, inputs)
    with pytest.raises(ValueError, match=r"must end in .csv, .*.npz.* or .\w+, received .*out.txt"):
        do(predictor, PROTEINS, out=tmp_path / "out.txt")
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        do(predictor, PROTEINS, batch_size=0)
    with pytest.raises(ValueError, match="pooling must be one of mean, cls; received 'max'"):
        kft.embed(predictor, PROTEINS, pooling="max")
    assert [p.name for p in tmp_path.iterdir()] == ["empty.fasta"]


@pytest.mark.once
def test_progress_is_for_terminals(predictor, capfd, monkeypatch):
    kft.predict(predictor, PROTEINS, batch_size=3)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    kft.predict(predictor, PROTEINS, batch_size=3)
    written = capfd.readouterr()
    assert "predicting" in written.err
    assert written.out == ""


@pytest.mark.once
@pytest.mark.parametrize("inputs", [None, 3])
def test_inputs_that_are_no_list(inputs):
    model = make_model()
    for call in (lambda: kft.predict(model, inputs), lambda: kft.batches(inputs, model.encode)):
        with pytest.raises(TypeError, match="inputs must be a list of inputs, received"):
            call()

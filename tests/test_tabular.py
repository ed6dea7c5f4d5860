"""Tables of plain columns as inputs, and the dense backbone on them."""

import json

import contracts
import keras
import numpy as np
import pandas as pd
import pytest
from models import in_turn, perturb, perturb_adapters, same, values

import kft
from kft import preparation
from kft.backbones.tabular import Column, DenseBackbone, RowEncoder, columns_of
from kft.data.rows import frame_of, records_of

COLUMNS = ["age", "year", "sex"]


def table(n=96, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 5, n).round(2),
            "year": rng.integers(2000, 2020, n),
            "sex": rng.choice(["f", "m"], n),
        }
    )
    frame["y"] = ((frame.age - 40) / 5 + (frame.sex == "m") + rng.normal(0, 0.1, n)).round(3)
    return frame


FRAME = table()
DATA = kft.data.read_csv(FRAME, inputs=COLUMNS, target="y")
ROWS = DATA.test.inputs


def make(**options):
    backbone = kft.backbones.randomised(DenseBackbone.for_data(DATA, width=8, num_blocks=2), 0)
    head = kft.heads.Regression(kernel_initializer="glorot_uniform", **options)
    return kft.Model(backbone, head)


# The backbone -------------------------------------------------------------------------------------


def with_lora(model):
    kft.freeze(model, ["embedding", "block_0/dense_in"])
    kft.add_lora(model, rank=2, name="first")
    kft.add_lora(model, rank=3, name="second", bias="lora_only")
    return perturb(model, 0.1)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["backbone", "model"])
def test_copies(kind, tmp_path):
    model = with_lora(make())
    for way in contracts.WAYS:
        contracts.check_copy(model.backbone if kind == "backbone" else model, way, tmp_path)


@pytest.mark.parametrize("trained", in_turn(["head", ["final_norm", "head"], ["block_1", "head"]]))
def test_the_frozen_frontier(trained):
    model = make()
    kft.train_only(model, trained)
    contracts.check_split(model, model.encode(ROWS))


@pytest.mark.in_turn("torch")
def test_the_base_is_kept():
    contracts.check_base_is_kept(make(), make().encode(ROWS))


@pytest.mark.in_turn("torch")  # adapters of dense layers are tested on every backend
def test_adapters_are_trained_and_written(tmp_path):
    model, again = make(), make()
    assert kft.add_lora(model, 2)[:2] == ["block_0/dense_in", "block_0/dense_out"]
    perturb_adapters(model)
    contracts.check_adapter_training(model, DATA, tmp_path, rank=2)
    contracts.check_adapter_file(model, again, model.encode(ROWS), tmp_path / "adapter")


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("name", in_turn(["full", "last_blocks"], everywhere=["last_blocks"]))
def test_strategies(name, tmp_path):
    frozen = [] if name == "full" else ["embedding", "block_0"]
    options = {"blocks": 1} if name == "last_blocks" else {}
    strategy = kft.strategies.get(name, epochs=2, learning_rate=1e-2, **options)
    contracts.check_training(strategy, make(), DATA, frozen, tmp_path)


def test_it_computes_what_it_says():
    """As numpy does: scaling, embedding, residual blocks, norm."""
    backbone = perturb(make().backbone, 0.1)
    w = values(backbone)

    def norm(x, path):
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
        return x * w[f"{path}/gamma"] + w[f"{path}/beta"]

    def dense(x, path):
        return x @ w[f"{path}/kernel"] + w[f"{path}/bias"]

    train = frame_of(DATA.train.inputs)[["age", "year"]]
    frame = frame_of(ROWS)
    scaled = (frame[["age", "year"]] - train.mean()) / train.std(ddof=0)
    x = np.column_stack([scaled, frame.sex == "f", frame.sex == "m"]).astype("float64")
    x = dense(x, "embedding")
    for i in range(2):
        hidden = np.maximum(dense(norm(x, f"block_{i}/norm"), f"block_{i}/dense_in"), 0)
        x = x + dense(hidden, f"block_{i}/dense_out")
    expected = norm(x, "final_norm")
    np.testing.assert_allclose(
        backbone.predict_on_batch(backbone.encode(ROWS)), expected, atol=2e-4
    )


@pytest.mark.once
def test_folders(tmp_path):
    backbone = make().backbone
    kft.backbones.save(backbone, tmp_path)
    again = kft.load(tmp_path)
    assert again.columns == backbone.columns and same(values(again), values(backbone))
    assert len(again.load_report.filled) == len(backbone.weights)
    assert not same(values(kft.load(tmp_path, weights=False, seed=1)), values(backbone))
    with pytest.raises(ValueError, match="data is for 'dense'; .* has columns of its own"):
        kft.load(tmp_path, data=DATA)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "width": 9}))
    with pytest.raises(ValueError, match="does not fit a dense network of this size"):
        kft.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "kft_dense"}))
    with pytest.raises(ValueError, match="config.json that is damaged: 'columns'"):
        kft.load(tmp_path)


@pytest.mark.once
def test_how_it_is_loaded():
    backbone = kft.load("dense", weights=False, data=DATA)
    assert [stage.name for stage in backbone.stages] == [
        "input_scaling", "embedding", "block_0", "block_1", "block_2", "final_norm",
    ]  # fmt: skip
    for options in ({}, {"weights": False}, {"data": DATA}):
        with pytest.raises(ValueError, match="'dense' has no published weights, and its columns"):
            kft.load("dense", **options)
    with pytest.raises(ValueError, match="data is not an option of kft_esm2_tiny"):
        kft.load("kft_esm2_tiny", data=DATA)
    with pytest.raises(ValueError, match="columns is empty"):
        DenseBackbone([])
    with pytest.raises(ValueError, match="data must have rows of a table as inputs"):
        columns_of(["MKT"])
    assert columns_of([{"x": 3.0}])[0] == Column("x", None, 3.0, 1.0)


# Rows ---------------------------------------------------------------------------------------------


@pytest.mark.once
def test_encoding():
    encode = RowEncoder((Column("age"), Column("sex", ("f", "m"))))
    assert encode.features == ["age", "sex=f", "sex=m"]
    row = {"age": 31, "sex": "m"}
    found = encode([row, {"sex": "x", "age": 2.5, "other": 1}])["columns"]
    assert found.tolist() == [[31, 0, 1], [2.5, 0, 0]] and found.dtype == "float32"
    for wrong, error, message in (
        ("MKT", TypeError, "it must be a dict of the columns of a table, received 'MKT'"),
        ({"age": 1}, ValueError, "it has no column 'sex'; it has age, and the model takes"),
        ({**row, "age": float("nan")}, ValueError, "it has no value in column 'age': fill"),
        ({**row, "sex": None}, ValueError, "it has no value in column 'sex'"),
        ({**row, "age": "old"}, TypeError, "it must have a number in column 'age', received"),
        ({**row, "age": np.inf}, ValueError, "it is inf in column 'age': give a finite"),
    ):
        with pytest.raises(error, match=message):
            encode([wrong], names=["it"])
    with pytest.warns(UserWarning, match=r"2 of 3 rows hold categories of column 'sex' .*\(x\)"):
        encode.check([{**row, "sex": "x"}, row, {**row, "sex": "x"}], ["a", "b", "c"])


@pytest.mark.once
def test_reading(tmp_path):
    frame = FRAME.assign(zip=10115, note="")
    frame.loc[3, "age"], frame.loc[4, "sex"] = np.nan, None
    path = tmp_path / "x.csv"
    frame.to_csv(path, index=False)
    data = kft.data.read_csv(
        path, inputs=[*COLUMNS, "zip"], target="y", split=None, categories=["zip"]
    )
    assert data.input_kind == "table" and data.train.inputs[0]["zip"] == "10115"
    assert np.isnan(data.train.inputs[3]["age"]) and data.train.inputs[4]["sex"] is None
    assert repr(data.train) == "Split(96 rows of 4 columns)"
    again = records_of(frame_of(data.train.inputs))
    assert repr(again) == repr(data.train.inputs)
    of_frame = kft.data.read_csv(
        frame, inputs=[*COLUMNS, "zip"], target="y", split=None, categories=["zip"]
    )
    assert repr(of_frame.train.inputs) == repr(data.train.inputs)
    frame.age = frame.age.astype(object)
    frame.loc[7, "age"] = "12 nM"
    with pytest.raises(ValueError, match="row 7: column 'age' is '12 nM', but it holds numbers"):
        kft.data.read_csv(frame, inputs=COLUMNS, target="y")
    repeated = pd.concat([FRAME, FRAME])
    notes = " ".join(kft.data.read_csv(repeated, inputs=COLUMNS, target="y").notes)
    assert "96 records repeat the row of an earlier one" in notes
    assert "test rows are also in train or valid" in notes


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": []}, "`inputs` is an empty list"),
        ({"inputs": ["age", "age"]}, "`inputs` names column 'age' twice"),
        ({"inputs": ["age", "y"]}, "`inputs` names 'y', which is the target"),
        ({"inputs": ["age", "size"]}, "`inputs` is 'size', which is not among the columns"),
        ({"split": "cluster"}, "`split` is 'cluster', which is for sequences"),
        ({"split": "sex", "inputs": ["age", "sex"]}, "names 'sex', which is the `split`"),
        ({"task": "residue_regression"}, "rows of a table have no residues"),
    ],
)
def test_arguments_of_the_reader(options, message):
    with pytest.raises(ValueError, match=message):
        kft.data.read_csv(FRAME, **{"inputs": COLUMNS, "target": "y", **options})


@pytest.mark.once
def test_predictions_of_rows(tmp_path):
    model = make()
    frame = frame_of(ROWS)
    expected = kft.predict(model, ROWS)
    frame.assign(id=range(len(frame)))[["id", "sex", "year", "age"]].to_csv(
        tmp_path / "new.csv", index=False
    )
    for new in (DATA.test, frame, tmp_path / "new.csv"):
        np.testing.assert_array_equal(kft.predict(model, new), expected)
    shown = kft.predict(model, tmp_path / "new.csv", as_frame=True)
    assert list(shown) == ["id", "sex", "year", "age", "prediction"]
    assert list(kft.predict(model, ROWS, as_frame=True)) == [*COLUMNS, "prediction"]
    broken = frame.assign(age=frame.age.where(frame.index != 1))
    with pytest.raises(ValueError, match="row 1 has no value in column 'age': fill missing"):
        kft.predict(model, broken)
    with pytest.warns(UserWarning, match="row 1"):
        found = kft.predict(model, broken, skip_invalid=True)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()
    assert kft.embed(model, frame).shape == (len(ROWS), 8)


# Baselines, comparison, preparation ---------------------------------------------------------------


@pytest.mark.once
def test_baselines_and_a_comparison(tmp_path):
    found = kft.compare(
        make().backbone, DATA, ["head_only"], seeds=1, epochs=1, resamples=20, verbose=False,
        controls=False, out=tmp_path,
    )  # fmt: skip
    assert [row.name for row in found.rows] == [
        "mean", "linear model", "random forest", "gradient boosting", "head_only"
    ]  # fmt: skip
    assert not any(row.error for row in found.rows)
    scores = {row.name: found.score(row).value for row in found.rows[1:]}
    assert scores["linear model"] > 0.8 and scores["random forest"] > 0.6


@pytest.mark.once
@pytest.mark.parametrize("target", ["c", ["c0", "c1"]])
def test_baselines_of_classes_and_labels(target):
    frame = FRAME.assign(c=np.where(FRAME.y > 0.5, "hi", "lo"), c0=(FRAME.y > 0).astype(int))
    frame["c1"] = (frame.sex == "m").astype(int)
    frame.loc[::5, "age"], frame.loc[::7, "sex"] = np.nan, None
    data = kft.data.read_csv(frame, inputs=COLUMNS, target=target)
    contracts.check_scored(data)


@pytest.mark.once
def test_a_target_is_learned_as_a_logarithm_and_predicted_as_measured(tmp_path):
    frame = FRAME.assign(y=np.exp(3 * FRAME.y))
    raw = kft.data.read_csv(frame, inputs=COLUMNS, target="y")
    data = kft.prepare(raw, steps=[preparation.TransformTarget("log")])
    np.testing.assert_allclose(data.test.targets, np.log(raw.test.targets))
    model = kft.Model(make().backbone, kft.heads.for_data(data))
    kft.fit(model, data, "head_only", epochs=1, verbose=0)
    found = kft.predict(model, ROWS)
    inside = keras.ops.convert_to_numpy(model.predict_on_batch(model.encode(ROWS)))
    np.testing.assert_allclose(np.log(found), inside, rtol=1e-3, atol=1e-4)
    expected = np.abs(found[:, 0] - raw.test.targets).mean()
    for one in (data, raw):
        judged = kft.evaluate(model, one)
        assert judged["MAE"].value == pytest.approx(expected, rel=1e-5)
        worst = judged.worst(5)
        np.testing.assert_allclose(worst.target, raw.test.targets[worst.index], rtol=1e-6)
    shown = kft.predict(model, ROWS, as_frame=True)
    np.testing.assert_array_equal(shown["predicted_y"], found[:, 0])
    written = kft.predict(model, ROWS, out=tmp_path / "new.npz")
    np.testing.assert_array_equal(kft.load_embeddings(written).values, found)
    model.save(tmp_path / "model.keras")
    again = kft.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(kft.predict(again, ROWS), found)
    kft.fit(again, DATA, "head_only", epochs=1, verbose=0)
    assert again.target_transform is None
    rows = kft.comparison.scoring.baseline_rows(data, resamples=5)
    assert rows[0].scores["MAE"].value == pytest.approx(
        np.abs(raw.test.targets - np.exp(np.log(_outside(raw)).mean())).mean()
    )


def _outside(data):
    return np.concatenate([data.train.targets, data.valid.targets])


@pytest.mark.once  # Keras computes them, see the tests of losses
def test_class_weights_reach_the_loss():
    frame = FRAME.assign(y=np.where(FRAME.y > 1, "rare", "often"))
    raw = kft.data.read_csv(frame, inputs=COLUMNS, target="y")
    data = kft.prepare(raw, steps=[preparation.WeightClasses()])
    fitted = []
    for part, weight in ((data, None), (raw, "balanced"), (raw, None)):
        model = kft.Model(make().backbone, kft.heads.Classification(2))
        kft.fit(model, part, "head_only", epochs=1, class_weight=weight, verbose=0)
        fitted.append(kft.predict(model, ROWS))
    np.testing.assert_array_equal(fitted[0], fitted[1])
    assert np.abs(fitted[0] - fitted[2]).max() > 1e-4


# Two cities ---------------------------------------------------------------------------------------


@pytest.mark.once
def test_two_cities():
    north, south = (kft.data.load("two_cities", city=x, records=600) for x in ("north", "south"))
    contracts.check_loaded_twice(south, city="south", records=600)
    assert list(north.train.inputs[0]) == list(south.train.inputs[0])
    means = [np.mean([x["temperature"] for x in data.train.inputs]) for data in (north, south)]
    assert means[0] < 12 < 20 < means[1] and (south.train.targets > 0).all()
    groups = [set(part.groups) for part in south.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    assert not kft.explore(south).at_least("error")
    with pytest.raises(ValueError, match="city must be one of north, south; received 'east'"):
        kft.data.load("two_cities", city="east")

"""`kft.prepare`: each defect has its finding and its step, and nothing is learned from the test."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import kft
from kft import preparation
from kft.data import Dataset, Split

pytestmark = pytest.mark.once


def table(n=200, seed=0):
    """Columns of numbers and categories, and targets that depend on them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "mass": rng.normal(80, 10, n),
            "jets": rng.integers(0, 5, n).astype(float),
            "kind": rng.choice(["a", "b"], n),
            "angle": rng.uniform(0, 3, n),
        }
    )
    frame["y"] = np.where(frame.mass + 5 * frame.jets + rng.normal(0, 5, n) > 90, "signal", "noise")
    return frame


def read(frame, inputs=("mass", "jets", "kind", "angle"), **options):
    return kft.data.read_csv(frame, inputs=list(inputs), target="y", **options)


def names(prepared):
    return [done.step.name for done in prepared.steps]


def test_a_sentinel_that_tells_the_target():
    frame = table()
    rng = np.random.default_rng(1)
    marked = (frame.y == "noise") & (rng.random(len(frame)) < 0.7)
    frame.loc[marked, "mass"] = -999.0
    data = read(frame)
    found = kft.explore(data)
    assert {"suspected-sentinel", "missing-tells-target"} <= set(found.codes)
    prepared = kft.prepare(data, found)
    done = {x.step.name: x for x in prepared.steps}
    assert sum(done["sentinel to missing"].numbers["cells"].values()) == marked.sum()
    assert "mark of missing values" in done["sentinel to missing"].reason
    present = [x["mass"] for x in data.train.inputs if x["mass"] != -999]
    fitted = done["missing values filled"].fitted
    assert fitted["values"]["mass"] == pytest.approx(np.median(present))
    assert fitted["indicators"] == ["mass"]
    assert [x["mass is missing"] for x in prepared.test.inputs] == [
        float(x["mass"] == -999) for x in data.test.inputs
    ]
    assert "suspected-sentinel" not in kft.explore(prepared).codes
    assert "missing-tells-target" not in prepared.preparation.left


def test_a_scaler_fitted_on_all_data():
    frame = table()
    raw = read(frame)
    scaled = frame.assign(mass=(frame.mass - frame.mass.mean()) / frame.mass.std())
    data = read(scaled)
    assert "scaled-on-all-data" not in kft.explore(raw).codes
    (finding,) = kft.explore(data).of("scaled-on-all-data")
    assert finding.evidence["columns"] == ["mass"]
    prepared = kft.prepare(data)
    train = np.array([x["mass"] for x in prepared.train.inputs])
    assert abs(train.mean()) < 1e-12 and train.std() == pytest.approx(1)
    # Nothing is left of what the test told: it is as if the raw numbers had been scaled by train.
    expected = kft.prepare(raw, steps=[preparation.Scale(columns="mass")])
    for part, other in zip(prepared.splits.values(), expected.splits.values(), strict=True):
        np.testing.assert_allclose(
            [x["mass"] for x in part.inputs], [x["mass"] for x in other.inputs], rtol=1e-9
        )
    assert "scaled-on-all-data" not in kft.explore(prepared).codes


def test_a_group_on_both_sides_of_a_split():
    data = read(table())

    def grouped(part, seed):
        groups = np.random.default_rng(seed).integers(0, 40, len(part)).astype(str)
        return replace(part, groups=groups)

    data = replace(data, **{name: grouped(x, i) for i, (name, x) in enumerate(data.splits.items())})
    assert "groups-across-splits" in kft.explore(data).codes
    prepared = kft.prepare(data)
    groups = [set(part.groups) for part in prepared.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    assert sum(map(len, prepared.splits.values())) == 200
    assert "groups-across-splits" not in kft.explore(prepared).codes


def test_a_duplicate_with_conflicting_labels():
    frame = table()
    frame.loc[10, ["mass", "jets", "kind", "angle"]] = frame.loc[20, :]
    frame.loc[[10, 20], "y"] = ["signal", "noise"]
    frame.loc[[30, 31, 32], :] = frame.loc[[33, 33, 33], :].to_numpy()
    data = read(frame)
    assert "conflicting-labels" in kft.explore(data).codes
    prepared = kft.prepare(data)
    assert names(prepared)[:2] == ["conflicting labels left out", "duplicates left out"]
    assert sum(map(len, prepared.splits.values())) == 200 - 2 - 3
    assert not {"conflicting-labels", "duplicate-rows", "rows-across-splits"} & set(
        kft.explore(prepared).codes
    )


def test_copies_are_taken_out_of_train_and_repeats_are_averaged():
    def part(rows, targets):
        return Split([{"x": float(x), "z": 0.0} for x in rows], targets)

    parts = part([1, 2, 3], [1.0, 2.0, 3.0]), part([4, 5], [4.0, 5.0]), part([1, 6, 6], [9, 2.0, 4])
    data = Dataset("toy", "regression", *parts, "typed in", "none", "", "")
    prepared = kft.prepare(data, steps=[preparation.DropDuplicates()])
    assert [x["x"] for x in prepared.train.inputs] == [2.0, 3.0]
    assert prepared.test.targets.tolist() == [9.0, 3.0]
    assert prepared.steps[0].numbers == {"records": {"train": 1, "test": 1}}


def test_weights_count_where_repeats_are_averaged_and_classes_weighed():
    def part(rows, targets, weights):
        return Split([{"x": float(x), "z": 0.0} for x in rows], targets, weights=weights)

    rows, weights = [6, 6, 1, 7, 7], np.array([3.0, 1.0, 0.3, 0.0, 0.0])
    parts = part(rows, np.array([2.0, 4.0, 0.1, 1.0, 2.0]), weights), None, part([8], [1.0], [1.0])
    data = Dataset("toy", "regression", *parts, "typed in", "none", "", "")
    train = kft.prepare(data, steps=[preparation.DropDuplicates()]).train
    assert train.targets.tolist() == [2.5, 0.1, 1.5]
    assert train.weights.tolist() == [2.0, 0.3, 0.0]
    labels = part(rows, np.array([0, 0, 1, 1, 1]), weights)
    data = Dataset("toy", "classification", labels, None, None, "", "", "", "", classes=("a", "b"))
    kept = kft.prepare(data, steps=[preparation.DropDuplicates()])
    assert kept.train.weights.tolist() == [2.0, 0.3, 0.0]
    weighed = kft.prepare(data, steps=[preparation.WeightClasses()])
    totals = np.bincount(labels.targets, weights * np.take(weighed.class_weight, labels.targets))
    assert totals == pytest.approx([2.15, 2.15])
    nothing = replace(data, train=part(rows, labels.targets, np.array([1.0, 1, 0, 0, 0])))
    with pytest.raises(ValueError, match="class 'b' has no record with a weight above 0"):
        kft.prepare(nothing, steps=[preparation.WeightClasses()])


def test_sequences_are_split_by_cluster_and_left_as_they_are():
    rng = np.random.default_rng(0)
    proteins = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(60)]
    copies = [x[:15] + "A" + x[16:] for x in proteins]
    frame = pd.DataFrame({"sequence": proteins + copies, "y": ["a", "b"] * 60})
    data = kft.data.read_csv(frame)
    assert "similar-across-splits" in kft.explore(data).codes
    prepared = kft.prepare(data)
    assert "similar-across-splits" not in kft.explore(prepared).codes
    assert prepared.steps[0].step == preparation.Resplit("cluster")
    with pytest.raises(ValueError, match="'columns scaled' changes columns of a table, but"):
        kft.prepare(data, steps=[preparation.Scale()])
    with pytest.raises(ValueError, match="transform is for rows of a table"):
        prepared.transform(frame)


def test_predefined_and_grouped_splits_by_columns():
    frame = table(60).assign(part=["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    frame["plate"] = [f"p{i % 12}" for i in range(60)]
    data = read(frame, ["mass", "part", "plate"])
    by_part = kft.prepare(data, steps=[preparation.Resplit("part")])
    assert {name: len(x) for name, x in by_part.splits.items()} == {
        "train": 40, "valid": 10, "test": 10
    }  # fmt: skip
    assert list(by_part.train.inputs[0]) == ["mass", "plate"]
    by_plate = kft.prepare(data, steps=[preparation.Resplit("group", groups="plate")])
    assert list(by_plate.transform(frame[["mass", "part"]])) == ["mass", "part"]
    plates = [set(x.groups) for x in by_plate.splits.values()]
    assert sum(map(len, plates)) == len(set.union(*plates)) == 12
    with pytest.raises(ValueError, match="'size' is not among the columns of the inputs"):
        kft.prepare(data, steps=[preparation.Resplit("size")])


def test_weights_of_records_stay_with_them():
    frame = table(60).assign(weight=np.arange(60) / 10)
    frame["mass"] = frame.weight
    data = read(frame, ["mass", "jets"], weights="weight")
    steps = [preparation.Resplit("random", seed=1), preparation.DropDuplicates()]
    for part in kft.prepare(data, steps=steps).splits.values():
        assert part.weights.tolist() == [row["mass"] for row in part.inputs]
    with pytest.raises(ValueError, match="`inputs` names 'weight', which is the `weights`"):
        read(frame, ["mass", "weight"], weights="weight")


def test_what_is_learned_is_of_the_training_part_alone():
    frame = table()
    frame.loc[::7, "mass"] = np.nan
    frame.loc[::9, "kind"] = None
    data = read(frame)
    steps = [preparation.Impute("mean"), preparation.Scale("robust")]
    prepared = kft.prepare(data, steps=steps)
    other = replace(data.test, inputs=[x | {"mass": 1e6} for x in data.test.inputs])
    again = kft.prepare(replace(data, test=other), steps=steps)
    assert [x.fitted for x in again.steps] == [x.fitted for x in prepared.steps]
    assert again.train.inputs == prepared.train.inputs


def test_new_data_are_prepared_in_the_same_way(tmp_path):
    frame = table().assign(constant=1.0)
    frame.loc[::7, "mass"] = -999.0
    frame.loc[::9, "kind"] = None
    data = read(frame, ["mass", "jets", "kind", "angle", "constant"])
    prepared = kft.prepare(data)
    assert "columns left out" in names(prepared)
    path = prepared.preparation.save(tmp_path / "steps.json")
    loaded = preparation.load(path)
    assert loaded.to_json() == prepared.preparation.to_json()
    assert str(loaded) == str(prepared.preparation)
    frame.drop(columns="constant").to_csv(tmp_path / "new.csv", index=False)
    test = pd.DataFrame(prepared.test.inputs)
    for new in (data.test, data.test.inputs, pd.DataFrame(data.test.inputs)):
        pd.testing.assert_frame_equal(loaded.transform(new), test, check_dtype=False)
    assert len(loaded.transform(tmp_path / "new.csv")) == len(frame)
    (tmp_path / "other.json").write_text('{"steps": [{"step": "magic"}]}')
    with pytest.raises(ValueError, match="holds no preparation of kft: step 'magic' is none of"):
        preparation.load(tmp_path / "other.json")


def test_every_defect_of_a_table_of_numbers_has_its_step():
    rng = np.random.default_rng(0)
    mass, far, y = rng.normal(80, 10, 200), rng.normal(size=200), np.exp(rng.normal(0, 1.2, 200))
    mass[7], far[:6], y[:12] = np.inf, [40, -50, 60, 45, -38, 70], 999.0
    runs = [f"r{i}" for i in range(200)]
    frame = pd.DataFrame({"mass": mass, "again": mass, "far": far, "empty": np.nan, "run": runs})
    data = read(frame.assign(y=y), frame.columns, task="regression")
    prepared = kft.prepare(data)
    assert [x.step for x in prepared.steps] == [
        preparation.DropColumns(("empty", "again", "run")),
        preparation.InfiniteToMissing(("mass",)),
        preparation.Impute(),
        preparation.Scale("robust", ("far",)),
        preparation.DropTargets(999.0),
        preparation.TransformTarget("log1p"),
    ]
    numbers = {x.step.name: x.numbers for x in prepared.steps}
    assert sum(numbers["infinite to missing"]["cells"].values()) == 1
    assert sum(numbers["records without a target left out"]["records"].values()) == 12
    assert sum(map(len, prepared.splits.values())) == 188
    names = {"mass", "far", "mass is missing"}
    rows = [row for part in prepared.splits.values() for row in part.inputs]
    assert all(set(row) == names and np.isfinite(list(row.values())).all() for row in rows)
    kept = data.train.targets[data.train.targets != 999]
    assert np.mean(prepared.train.targets) == pytest.approx(np.log1p(kept).mean())


def test_rare_classes_of_records_and_of_residues_are_weighed():
    frame = table().assign(y=["rare"] * 12 + ["common"] * 188)
    done = kft.prepare(read(frame)).steps
    assert preparation.WeightClasses() in [x.step for x in done]
    masks = [np.array([True, True, False]), np.array([True, True])]
    part = Split(["MKT", "GS"], [np.array([0, 0, 1]), np.array([0, 1])], masks=masks)
    data = Dataset(
        "toy", "residue_classification", part, None, None, "", "", "", "", classes=("a", "b")
    )
    weighed = kft.prepare(data, steps=[preparation.WeightClasses()])
    assert weighed.class_weight == pytest.approx([4 / 6, 2.0])  # the masked residue is not counted
    weights = replace(part, weights=np.array([1.0, 3.0]))
    weighed = kft.prepare(replace(data, train=weights), steps=[preparation.WeightClasses()])
    assert weighed.class_weight == pytest.approx([8 / 10, 8 / 6])


def test_steps_that_the_numbers_of_a_data_set_forbid():
    rows = [{"x": float(i), "part": "both" if i == 3 else "train"} for i in range(6)]
    data = Dataset("toy", "regression", Split(rows, np.arange(6.0)), None, None, "", "", "", "")
    changed = kft.prepare(data, steps=[preparation.TransformTarget()])
    equal = replace(data, train=replace(data.train, targets=np.ones(6)))
    for one, step, message in (
        (data, preparation.Resplit("part"), "split column 'part' holds 'both'; expected train"),
        (data, preparation.WeightClasses(), "one class per record; the task is 'regression'"),
        (changed, preparation.TransformTarget(), "the targets are changed by 'log1p' already"),
        (equal, preparation.DropTargets(1.0), "No record of train would be left"),
        (equal, preparation.TransformTarget("standardize"), "needs targets that differ"),
        (data, preparation.TransformTarget("log"), "needs targets above 0, but 1 of 6 are not"),
    ):
        with pytest.raises(ValueError, match=message):
            kft.prepare(one, steps=[step])


def test_a_table_of_categories_is_left_as_it_is_by_steps_for_numbers():
    data = read(table(40), ["kind"])
    prepared = kft.prepare(data, steps=[preparation.Impute(), preparation.Scale()])
    assert prepared.train.inputs == data.train.inputs
    assert [x.fitted for x in prepared.steps][1] == {"center": {}, "scale": {}}


def test_findings_without_a_step_are_named():
    frame = table().assign(copy=lambda x: (x.y == "signal").astype(float))
    prepared = kft.prepare(read(frame, ["mass", "jets", "copy"]))
    assert "column-tells-target" in prepared.preparation.left
    assert "column-tells-target" in str(prepared.preparation) and "Left to you" in repr(
        str(prepared.preparation)
    )
    assert any("column-tells-target" in note for note in prepared.notes)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([preparation.Scale(columns="size")], "columns scaled names column 'size', which is not"),
        ([preparation.Scale(columns="kind")], "column 'kind' holds categories, not numbers"),
        (
            [preparation.DropColumns(("mass", "jets", "kind", "angle"))],
            "names all columns; keep at least",
        ),
        ([preparation.TransformTarget("log")], "target transformed is for regressions; the task"),
        ([preparation.DropTargets(1.0)], "is for numbers to predict; the task is 'classification'"),
        ([preparation.Resplit("group")], "split='group' needs groups: name their column"),
        ([preparation.Resplit("cluster")], "split='cluster' is for sequences"),
    ],
)
def test_steps_that_cannot_be_done(steps, message):
    with pytest.raises(ValueError, match=message):
        kft.prepare(read(table(40)), steps=steps)


def test_arguments():
    data = read(table(40))
    with pytest.raises(TypeError, match="data must be a kft.data.Dataset, received a DataFrame"):
        kft.prepare(table(40))
    with pytest.raises(ValueError, match="findings and steps are both given"):
        kft.prepare(data, kft.explore(data), [])
    with pytest.raises(TypeError, match="steps must hold steps of kft.preparation, received 'no'"):
        kft.prepare(data, steps=["no"])
    with pytest.raises(ValueError, match="strategy must be one of median, mean, .* 'guess'"):
        preparation.Impute("guess")
    empty = read(table(40).assign(mass=np.nan))
    with pytest.raises(ValueError, match=r"column 'mass' has no value .*DropColumns\('mass'\)"):
        kft.prepare(empty, steps=[preparation.Impute()])
    done = kft.prepare(data, steps={"It is rare.": preparation.WeightClasses()})
    assert done.steps[0].reason == "It is rare." and "It is rare." in done.notes[-1]
    assert np.dot(done.class_weight, np.bincount(done.train.targets)) == pytest.approx(
        len(done.train)
    )

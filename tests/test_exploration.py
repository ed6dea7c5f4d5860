"""`kft.explore` finds defects that were planted, and hardly any in clean data."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import datasets

import kft
from kft.exploration import Severity, explore
from kft.exploration.findings import Finding, Findings

pytestmark = pytest.mark.once

LETTERS = np.array(list("ACDEFGHIKLNPQRSTVWY"))  # without M


def plain(n=200, seed=0):
    """A table without defects."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    frame = pd.DataFrame({f"x{i}": rng.normal(i, 1 + i, n) + 0.5 * y for i in range(4)})
    return frame.assign(site=rng.choice(["a", "b", "c"], n), y=np.where(y, "yes", "no"))


def peptides(n=120, seed=0):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(LETTERS, rng.integers(12, 30))) for _ in range(n)]
    split = np.resize(["train", "train", "valid", "test"], n)
    return pd.DataFrame({"sequence": texts, "split": split, "y": rng.choice(["no", "yes"], n)})


@pytest.fixture(scope="module")
def clean_table():
    return explore(plain(), target="y")


@pytest.fixture(scope="module")
def clean_peptides():
    return explore(peptides(), target="y", split="split")


@pytest.fixture(scope="module")
def amp():
    return kft.data.load("amp")


# Planted defects ----------------------------------------------------------------------------------

PLANTED = {}


def planted(code, **options):
    """Registers a function that plants a defect in a table, which is found by this code."""

    def register(plant):
        PLANTED[plant.__name__] = code, plant, options
        return plant

    return register


@planted("missing-values")
def nan(t):
    t.loc[:40, "x1"] = np.nan


@planted("missing-words")
def words_for_missing(t):
    t.loc[:5, "site"] = "n/a"


@planted("suspected-sentinel")
def minus_999(t):
    t.loc[::20, "x1"] = -999


@planted("suspected-sentinel")
def minus_1_beside_positive(t):
    t["x1"] = t["x1"].abs()
    t.loc[::20, "x1"] = -1


@planted("suspected-sentinel")
def zero_far_from_the_rest(t):
    t["x1"] = t["x1"].abs() + 30
    t.loc[::20, "x1"] = 0


@planted("suspected-sentinel")
def large_9999(t):
    t.loc[::20, "x1"] = 9999


@planted("missing-together")
def two_columns_missing_at_once(t):
    t.loc[:20, ["x1", "x2"]] = np.nan


@planted("missing-tells-target")
def missing_in_one_class(t):
    t.loc[t.index[t["y"] == "yes"][:60], "x1"] = np.nan


@planted("empty-column")
def nothing_there(t):
    t["x1"] = np.nan


@planted("missing-target")
def no_target(t):
    t.loc[:3, "y"] = None


@planted("constant-column")
def one_value(t):
    t["x1"] = 3.0


@planted("nearly-constant")
def hardly_another_value(t):
    t["x1"] = 0
    t.loc[0, "x1"] = 1


@planted("identifier")
def number_of_the_record(t):
    t["id"] = np.random.default_rng(1).permutation(len(t))


@planted("numbers-as-text")
def a_word_among_numbers(t):
    t["x1"] = t["x1"].astype(str).where(t.index != 7, "high")


@planted("mixed-types")
def words_and_numbers(t):
    t["site"] = t["site"].astype(object).where(t.index > 5, 1)


@planted("infinite-values")
def infinite(t):
    t.loc[3, "x1"] = np.inf


@planted("isolated-values")
def lost_decimal_point(t):
    t.loc[3, "x1"] = 4000.0


@planted("skewed")
def long_tail(t):
    t["x1"] = np.exp(1.5 * t["x1"])


@planted("equal-columns")
def copied_column(t):
    t["copy"] = t["x1"]


@planted("near-duplicate-columns")
def other_unit(t):
    t["pounds"] = 2.2 * t["x1"] + np.random.default_rng(1).normal(0, 0.01, len(t))


@planted("several-spellings")
def other_case(t):
    t.loc[:9, "site"] = " A"


@planted("duplicate-rows")
def repeated_rows(t):
    t.loc[:30] = t.loc[100:130].to_numpy()


@planted("conflicting-labels")
def two_labels_for_one(t):
    t.loc[0] = t.loc[1].to_numpy()
    t.loc[[0, 1], "y"] = "no", "yes"


@planted("class-imbalance")
def hardly_any_yes(t):
    t.loc[15:, "y"] = "no"
    t.loc[:14, "y"] = "yes"


@planted("rare-class")
def third_class(t):
    t.loc[:2, "y"] = "maybe"


@planted("constant-target")
def one_class(t):
    t["y"] = "no"


@planted("column-tells-target")
def result_of_the_target(t):
    t["outcome"] = np.where(t["y"] == "yes", 5.0, 2.0)


@planted("sorted-by-target")
def in_order(t):
    t["y"] = np.sort(t["y"])


@planted("few-records")
def small(t):
    return t.head(20)


@planted("rare-combination")
def faces(t):
    t["sex"] = ["f"] * 7 + ["m"] * 193
    t["light"] = ["no"] + ["yes"] * 149 + ["no"] * 50


@planted("groups-across-splits", groups="patient", split="split")
def patients_in_several_splits(t):
    t["patient"] = np.arange(len(t)) // 8
    t["split"] = np.resize(["train", "valid", "test"], len(t))


@planted("groups-tell-target", groups="camera")
def one_camera_per_class(t):
    t["camera"] = t["y"] + np.resize(["1", "2", "3"], len(t))


@planted("few-groups", groups="plate")
def two_plates(t):
    t["plate"] = np.resize(["p1", "p2"], len(t))


@planted("rows-across-splits", split="split")
def copies_in_the_test(t):
    t["split"] = np.resize(["train", "train", "valid", "test"], len(t))
    t.loc[3] = t.loc[0].to_numpy()
    t.loc[3, "split"] = "test"


@planted("class-not-in-train", split="split")
def class_only_in_test(t):
    t["split"] = ["train"] * 150 + ["test"] * 50
    t.loc[160:180, "y"] = "maybe"


@planted("split-shift", split="split")
def other_instrument(t):
    t["split"] = ["train"] * 140 + ["test"] * 60
    t.loc[140:, "x2"] += 5


@planted("class-shift", split="split")
def other_shares(t):
    t["y"] = ["no", "yes"] * 70 + ["yes"] * 50 + ["no"] * 10
    t["split"] = ["train"] * 140 + ["test"] * 60


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_of_a_table_is_found(name, clean_table):
    code, plant, options = PLANTED[name]
    table = plain()
    planted = plant(table)
    table = table if planted is None else planted
    copy = table.copy()
    found = explore(table, target="y", **options)
    assert code not in clean_table.codes
    assert code in found.codes
    pd.testing.assert_frame_equal(table, copy)  # nothing was changed


SEQUENCES = {
    "empty-sequences": (0, lambda text: " "),
    "unusual-letters": (0, lambda text: text + "UX"),
    "looks-like-dna": (0, lambda text: "ACGTTGAC"),
    "low-complexity": (0, lambda text: "G" * 20),
    "sequence-spelling": (0, str.lower),
    "sequences-across-splits": (3, lambda text: text + "*"),  # row 3 becomes this of row 0
    "similar-across-splits": (3, lambda text: "W" + text[1:] + "Y"),
}


@pytest.mark.parametrize("code", SEQUENCES)
def test_a_planted_defect_of_sequences_is_found(code, clean_peptides):
    table = peptides()
    assert code not in clean_peptides.codes
    row, change = SEQUENCES[code]
    table.loc[row, "sequence"] = change(table.loc[0, "sequence"])
    found = explore(table, target="y", split="split").of(code)[0]
    assert row in found.rows


def test_a_letter_that_tells_the_target_is_found(clean_peptides):
    table = peptides()
    at = (table["y"] == "yes") & (table.index < 90)
    table["sequence"] = table["sequence"].where(~at, "M" + table["sequence"])
    assert "shortcut" not in clean_peptides.codes
    (found,) = explore(table, target="y", split="split").of("shortcut")
    assert found.subject == "first letter M"


def write_images(folder, n=40, seed=0):
    """Smooth random images of two classes, as files."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        split = ["train", "test"][i % 4 == 3]
        rows.append({"path": f"{i}.png", "y": ["cat", "dog"][i % 2], "split": split})
    return pd.DataFrame(rows)


def brighter(folder):
    pixels = np.asarray(Image.open(folder / "0.png")).astype(float)
    Image.fromarray((0.8 * pixels + 10).astype(np.uint8)).save(folder / "3.png")


def other_format(folder, table):
    for i in range(1, len(table), 2):
        Image.open(folder / f"{i}.png").save(folder / f"{i}.jpg")
        table.loc[i, "path"] = f"{i}.jpg"


IMAGES = {
    "unreadable-images": lambda f, t: (f / "1.png").write_bytes((f / "2.png").read_bytes()[:99]),
    "image-sizes-differ": lambda f, t: Image.new("RGB", (9, 32)).save(f / "1.png"),
    "image-channels-differ": lambda f, t: Image.open(f / "1.png").convert("L").save(f / "1.png"),
    "blank-images": lambda f, t: Image.new("RGB", (32, 32), (9, 9, 9)).save(f / "1.png"),
    "images-across-splits": lambda f, t: Image.open(f / "0.png").save(f / "3.png"),
    "conflicting-labels": lambda f, t: Image.open(f / "0.png").save(f / "1.png"),
    "near-images-across-splits": lambda f, t: brighter(f),
    "shortcut": other_format,
}


@pytest.mark.parametrize("code", IMAGES)
def test_a_planted_defect_of_images_is_found(code, tmp_path):
    table = write_images(tmp_path)
    table.to_csv(tmp_path / "images.csv", index=False)
    assert code not in explore(tmp_path / "images.csv", target="y", split="split").codes
    IMAGES[code](tmp_path, table)
    table.to_csv(tmp_path / "images.csv", index=False)
    assert code in explore(tmp_path / "images.csv", target="y", split="split").codes


# Clean data ---------------------------------------------------------------------------------------

# What is true of them: three pixels of the digits are always 0, radius and perimeter of a cell
# say the same.
TRUE = {("digits (rows)", "constant-column"), ("breast_cancer", "near-duplicate-columns")}


def clean(amp):
    """Name -> findings of eleven data sets."""
    for name in ("iris", "wine", "breast_cancer", "diabetes", "digits"):
        frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
        yield f"{name} (rows)" if name == "digits" else name, explore(frame, target="target")
    yield "digits", explore(kft.data.load("digits"))
    yield "waves", explore(kft.data.load("gravitational_waves", images=300))
    # Without its shortcut, the M at the beginning.
    texts = [text.removeprefix("M") for text in amp.train.inputs]
    yield "amp", explore(pd.DataFrame({"sequence": texts, "y": amp.train.targets}), target="y")
    yield "plain", explore(plain(1000), target="y")
    yield "peptides", explore(peptides(300), target="y", split="split")
    made = datasets.make_regression(500, 8, noise=10, random_state=0)
    yield "regression", explore(pd.DataFrame(made[0]).assign(y=made[1]), target="y")


def test_clean_data_give_at_most_two_false_warnings(amp):
    false = [
        (name, finding.code)
        for name, found in clean(amp)
        for finding in found.at_least("warning")
        if (name, finding.code) not in TRUE
    ]
    assert len(false) <= 2, false


# What the issue names -----------------------------------------------------------------------------


def test_structured_sentinels_are_found_column_by_column():
    rng = np.random.default_rng(0)
    jets = rng.choice(4, 2000, p=[0.4, 0.3, 0.2, 0.1])
    frame = {"PRI_jet_num": jets}
    needs = {}
    for i in range(29):
        values = [rng.normal(0, 2, 2000), rng.gamma(2, 100, 2000), rng.uniform(-3, 3, 2000)][i % 3]
        if i < 11:
            needs[f"x{i}"] = least = 0 if i == 10 else 1 + i % 2
            values = np.where(jets < least, -999.0, values)
            if least == 0:  # as the estimated mass, missing at random
                values[rng.random(2000) < 0.15] = -999.0
        frame[f"x{i}"] = values
    target = np.where(rng.random(2000) < 0.34, "s", "b")
    found = explore(pd.DataFrame(frame).assign(Label=target), target="Label")
    marked = found.of("suspected-sentinel")
    assert sorted(f.subject.strip("'") for f in marked) == sorted(needs)
    assert {f.evidence["value"] for f in marked} == {-999.0}
    for finding in marked:
        assert finding.evidence["records"] == (frame[finding.subject.strip("'")] == -999).sum()
        assert set(finding.evidence["share by class"]) == {"b", "s"}
    where = {f.evidence["where"] for f in found.of("missing-together")}
    assert where == {"PRI_jet_num is 0", "PRI_jet_num is 0, 1"}


def test_the_faces_of_the_lecture_are_biased():
    faces = pd.DataFrame(
        [("white", "male")] * 43 + [("white", "female")] * 6
        + [("non-white", "male")] * 12 + [("non-white", "female")],
        columns=["skin", "sex"],
    )  # fmt: skip
    for options in ({}, {"target": "sex"}, {"target": "sex", "groups": "skin"}):
        (found,) = explore(faces, **options).of("rare-combination")
        assert found.severity == Severity.WARNING
        assert "43 of 62 records are" in found.meaning and "biased" in found.meaning
        assert "1 is" in found.meaning
    assert "class-imbalance" not in explore(faces, target="sex").codes  # 55 and 7


def test_the_shortcut_of_amp_is_found(amp):
    found = explore(amp).of("shortcut")
    assert [f.subject for f in found] == ["first letter M"]
    shares = found[0].evidence["share by class"]
    assert shares["UniProt"] == pytest.approx(0.56, abs=0.01)
    assert shares["antimicrobial"] == pytest.approx(0.02, abs=0.01)
    assert found[0].evidence["p, corrected"] < 1e-10
    assert found[0].evidence["accuracy"] > found[0].evidence["majority"] + 0.1


# Hostile input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,b\n1,2\n3\n", "line 3: has 1 column, the header has 2"),
        (b"a,b\n1,2\n3,4,5\n", "line 3: has 3 columns, the header has 2"),
        (b'a,b\n1,"2\n3,4\n', "unclosed quote"),
        (b"a,b\n1,\xff\n", "not text in UTF-8"),
        (b"", "is empty"),
        (b"a,b\n", "no records"),
        (b"a,a\n1,2\n", "names column 'a' twice"),
        (b"\x1f\x8b\x08\x00", "damaged"),
    ],
)
def test_a_malformed_file_is_an_error_that_says_what(content, problem, tmp_path):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        explore(tmp_path / "mine.csv")


def test_arguments_that_are_wrong_are_errors():
    with pytest.raises(ValueError, match="target is 'z', which is not among the columns"):
        explore(plain(), target="z")
    with pytest.raises(ValueError, match="target is 'y', but a kft.data Dataset states its own"):
        explore(kft.data.load("digits"), target="y")
    with pytest.raises(TypeError, match="data must be a kft.data Dataset, .* received list"):
        explore([1, 2])
    with pytest.raises(ValueError, match="0 records"):
        explore(pd.DataFrame({"a": []}))
    with pytest.raises(FileNotFoundError):
        explore("absent.csv")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [1.0]}),
        pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}),
        pd.DataFrame({"x": [np.nan] * 30, "y": [np.nan] * 30}),
        pd.DataFrame({"x": [None] * 30, "y": ["a"] * 30}),
        pd.DataFrame({"x": [3.0] * 30, "y": [3.0] * 30}),
        pd.DataFrame({"x": [np.inf] * 30, "y": [1, 2, 3] * 10}),
        pd.DataFrame({"x": [1e308, -1e308] * 15, "y": [0, 1] * 15}),
        pd.DataFrame({"x": pd.date_range("2020", periods=30), "y": [True, False] * 15}),
        pd.DataFrame({"x": pd.array([1, None, 3] * 10, dtype="Int64"), "y": [0.5, 1.5, 2.5] * 10}),
    ],
)
def test_degenerate_tables_have_findings(frame):
    for target in [None, frame.columns[-1]]:
        found = explore(frame, target=target)
        assert str(found)
        json.loads(found.to_json())
        found.figures()


def test_names_cannot_harm_a_terminal_or_a_figure():
    name = "\x1b[31m<script>alert(1)</script>[bold]$x_"
    frame = plain().rename(columns={"x1": name}).assign(site="\x1b[2J")
    frame.loc[::20, name] = -999
    found = explore(frame, target="y")
    text = str(found)
    assert "\x1b" not in text and "\\x1b" in text and "[bold]" in text
    assert found.of("suspected-sentinel")[0].subject == repr(name)
    for figure, caption in found.figures().values():
        figure.canvas.draw()
        assert "\x1b" not in caption


@pytest.mark.parametrize(
    "names",
    [
        [0, 1, 2],
        [("a", 0), ("a", 1), ("b", 0)],
        pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)]),
        list(pd.date_range("2020", periods=3)),
    ],
)
def test_names_of_columns_may_be_of_any_type(names):
    frame = plain()[["x0", "x1", "x2"]]
    frame.iloc[:30, 1] = np.nan
    shares = pd.DataFrame({0: [0.1, 0.3, 0.2], "a": [0.1, 0.2, 0.2], 1.5: [0.1, 0.5, 0.2]})
    frame.columns, shares.index = names, names
    found = explore(frame, target=list(names)[2])
    at = str(list(names)[1])
    assert found.of("missing-values")[0].subject == repr(at)
    assert {"distributions", "missing", "correlation"} <= set(found.figures())
    caption = kft.plots.plot_missing(shares)[1]
    assert f"differ most in {at}, from 20% (a) to 50% (1.5)" in caption
    kft.plots.plot_correlation(frame.corr())
    many = pd.DataFrame(np.eye(60)[:, :41]).corr()
    assert "counted from 0" in kft.plots.plot_correlation(many)[0].axes[0].get_xlabel()
    kft.plots.plot_balance(shares)


def test_names_of_columns_that_repeat():
    with pytest.raises(ValueError, match="data names column '1' twice"):
        explore(pd.DataFrame(np.eye(3), columns=[1, "1", "b"]))
    shares = pd.DataFrame({"all": [0.1, 0.3], "no": [0.1, 0.2], "yes": [0.1, 0.5]}, ["x", "x"])
    assert "most are missing in x, 30%" in kft.plots.plot_missing(shares)[1]
    counts = pd.DataFrame([[9, 1], [2, 3]], ["no", "no"], ["train", "train"])
    assert "(n = 15)" in kft.plots.plot_balance(counts)[1]
    nothing = pd.DataFrame([[1, np.nan], [np.nan, 1]], ["x", "x"], ["x", "x"])
    assert kft.plots.plot_correlation(nothing)[1].endswith("no pair has a correlation.")


# Files and what findings are ----------------------------------------------------------------------


def test_a_file_with_semicolons_and_decimal_commas_is_read(tmp_path):
    lines = [f"{i},5;{'NA' if i == 3 else i * i};{'ja' if i % 2 else 'nein'}" for i in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["size;area;y", *lines]))
    found = explore(tmp_path / "mine.csv", target="y")
    assert found.summary.columns.loc["size", "median"] == pytest.approx(30.5, abs=1)
    assert found.of("missing-spellings")[0].evidence["cells"] == {"NA": 1}
    assert "decimal-commas" in found.codes


def test_sequences_of_a_fasta_file_are_explored(tmp_path):
    (tmp_path / "mine.fasta").write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(
        peptides(30)["sequence"])))  # fmt: skip
    assert "sequence-lengths" in explore(tmp_path / "mine.fasta").codes


def test_labels_and_classes_of_residues_are_counted():
    split = kft.data.Split(["MKT", "GSS"] * 30, np.array([[1, 0], [1, 1]] * 30))
    labels = kft.data.Dataset(
        "labels", "multilabel", split, None, None, "", "", "", "", classes=("a", "b"),
    )  # fmt: skip
    assert explore(labels).of("constant-target")[0].subject == "'label a'"
    residues = kft.data.Dataset(
        "residues", "residue_classification",
        kft.data.Split(["MKTAA"] * 30, [np.array([0, 0, 0, 0, 1])] * 30),
        None, None, "", "", "", "", classes=("coil", "helix"),
    )  # fmt: skip
    assert explore(residues).summary.balance.loc["coil"].item() == 120


def test_covariances_are_those_of_pandas_and_go_with_near_copies():
    table = plain().assign(feet=lambda x: 3.28 * x.x1 + 1e-3 * x.x2)
    found = explore(table, target="y")
    summary, numbers = found.summary, table.select_dtypes("number")
    pd.testing.assert_frame_equal(summary.covariance, numbers.cov())
    pd.testing.assert_frame_equal(summary.correlation, numbers.corr())
    evidence = found.of("near-duplicate-columns")[0].evidence
    assert evidence["covariance"] == {"'x1' and 'feet'": pytest.approx(numbers.cov().x1.feet)}
    strongest = summary.related().iloc[0]
    assert strongest.tolist() == ["x1", "feet", *(summary.correlation.x1.feet,
                                                  summary.covariance.x1.feet)]  # fmt: skip
    again = Findings.from_json(found.to_json()).summary
    pd.testing.assert_frame_equal(again.covariance, summary.covariance)
    table.loc[:9, "x1"], table.loc[10:19, "x2"] = np.nan, -999
    covariance = explore(table, target="y").summary.covariance
    known = table.iloc[20:][["x1", "x2"]] - [table.x1.mean(), table.x2[table.x2 > -999].mean()]
    assert covariance.x1.x2 == pytest.approx(known.prod(axis=1).sum() / 179)


def test_near_copies_are_counted_by_pair_of_splits():
    table = peptides()
    train, valid, test = (table.index[table["split"] == x][:9] for x in ("train", "valid", "test"))
    texts = table["sequence"].tolist()
    for i in range(3):
        texts[valid[i]] = texts[train[i]][:-1] + "M"
    for i in (0, 1, 5):  # the first two are nearer to those of valid
        texts[test[i]] = texts[train[i]][:-2] + "MM"
    texts[test[6]] = texts[test[7]] = texts[valid[7]]
    table["sequence"] = texts
    found = explore(table, target="y", split="split")
    counts = found.of("similar-across-splits")[0].evidence["records by pair of splits"]
    assert counts == {"train-valid": 3, "train-test": 3, "valid-test": 2}
    equal = found.of("sequences-across-splits")[0]
    assert equal.evidence["records by pair of splits"] == {"valid-test": 2}
    assert "(valid-test 2)" in equal.meaning
    groups = table.assign(plate=np.r_[np.repeat("a", 4), np.arange(116).astype(str)])
    found = explore(groups, target="y", split="split", groups="plate")
    counts = found.of("groups-across-splits")[0].evidence["records by pair of splits"]
    assert counts == {"train-valid": 1, "train-test": 1, "valid-test": 1}


def test_findings_are_a_sequence_with_the_most_severe_first():
    table = plain()
    one_value(table)
    two_labels_for_one(table)
    found = explore(table, target="y")
    severities = [f.severity for f in found]
    assert severities == sorted(severities, reverse=True)
    assert set(found.at_least("warning").codes) == {"conflicting-labels", "constant-column"}
    assert found.of("conflicting-labels")[0].rows == (0, 1)
    assert len(found.to_frame()) == len(found) and isinstance(found[:1], Findings)
    assert json.loads(found.to_json())["findings"][0]["code"] == "conflicting-labels"
    assert set(found.figures()) == {"distributions", "correlation", "balance"}
    with pytest.raises(ValueError, match="severity must be one of info, warning, error"):
        found.at_least("high")
    with pytest.raises(AttributeError):
        found[0].code = "other"
    assert isinstance(found[0], Finding)


@pytest.mark.parametrize("name", ["mine.xlsx", "mine.parquet"])
def test_excel_and_parquet_files_are_explored_as_csv_files_are(tmp_path, name):
    table = plain(60).assign(whole=np.resize([1, 2, 3], 60))
    table.loc[5:20, "x1"] = np.nan
    table.to_csv(tmp_path / "mine.csv", index=False)
    if name.endswith("xlsx"):
        with pd.ExcelWriter(tmp_path / name) as book:
            table.to_excel(book, sheet_name="first", index=False)
            table.to_excel(book, sheet_name="second", index=False)
    else:
        table.to_parquet(tmp_path / name, index=False)
    found, expected = (explore(tmp_path / x, target="y") for x in (name, "mine.csv"))
    own = {"missing-spellings", "sheets-not-read"}  # a typed cell has no spelling
    assert set(found.codes) - own == set(expected.codes) - own
    assert ("sheets-not-read" in found.codes) == name.endswith("xlsx")
    columns = ["kind", "missing", "distinct"]
    pd.testing.assert_frame_equal(found.summary.columns[columns], expected.summary.columns[columns])

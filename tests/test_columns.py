"""What a column of a table is taken for: numbers, classes, or one of these for each residue."""

import numpy as np
import pytest
from models import esm2, strings

import kft
from kft.data import read_csv
from kft.data.numbers import marks

pytestmark = pytest.mark.once

PEPTIDES = strings([20] * 40, "ACDEFGHIKLMNPQRSTVWY")
CHAINS = strings([5, 9, 7, 12, 6, 8] * 5, "ACDEFGHIKLMNPQRSTVWY", seed=1)


@pytest.fixture
def read(tmp_path):
    def table(words, sequences=PEPTIDES, sep=",", **options):
        quoted = ['"' + str(word).replace('"', '""') + '"' for word in words]
        rows = [f"{x}{sep}{y}" for x, y in zip(sequences, quoted, strict=False)]
        path = tmp_path / "mine.csv"
        path.write_text("\n".join([f"sequence{sep}y", *rows]) + "\n", encoding="utf-8")
        return read_csv(path, **({"split": None} | options))

    return table


def spelled(form, n=40):
    """40 different numbers, written by a format or a function."""
    write = form if callable(form) else form.format
    return [write(0.5 + 1.25 * i) for i in range(n)]


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["1", "+1.5", "-.5", "2.", "1e3", "1.5E-3"], [1, 1.5, -0.5, 2, 1e3, 1.5e-3]),
        (["007", "0.0", "-0", "10", "3", "4"], [7, 0, 0, 10, 3, 4]),
    ],
)
def test_what_a_csv_number_is(read, words, values):
    data = read(words)
    assert data.task == "regression" and data.train.targets.tolist() == values


ODD = {
    "decimal comma": (lambda x: f"{x:.2f}".replace(".", ","), "decimal comma: decimals take a"),
    "thousands": (lambda x: f"{1000 * x:,.0f}", "digits in groups of three: write 1500"),
    "thousands with a point": (lambda x: f"{1000 * x:,.2f}", "digits in groups of three"),
    "thousands by spaces": (lambda x: f"{1000 * x + 1000:,.0f}".replace(",", " "), "in groups of"),
    "thousands by no-break spaces": (lambda x: f"{1000 * x + 1000:,.0f}".replace(",", "\xa0"),
                                     "digits in groups of"),
    "thousands by underscores": (lambda x: f"{1000 * x + 1000:_.0f}", "digits in groups of three"),
    "Swiss thousands": (lambda x: f"{1000 * x + 1000:,.0f}".replace(",", "'"), "groups of three"),
    "German thousands": (lambda x: f"{1000 * x + 1000:,.0f}".replace(",", ".") + ",25",
                         "write 1500.5, not 1.500,5"),
    "share": ("{:.2f}%", "a percentage: write the number alone"),
    "share after space": ("{:.2f} %", "a percentage"),
    "error": ("{:.2f}±0.10", "keep the number, and put the error into another column"),
    "error in ASCII": ("{:.2f} +/- 0.10", "a number with its error"),
    "error in brackets": ("{:.2f}(10)", "a number with its error"),
    "unit": ("{:.2f} nM", "a number with its unit"),
    "unit close by": ("{:.2f}µM", "a number with its unit"),
    "bound": (">{:.2f}", "a bound: write a number"),
    "about": ("~ {:.2f}", "a bound"),
    "money": ("${:.2f}", "a sum of money"),
    "power of ten": ("{:.2f}x10^-3", "a power of ten"),
    "typographic minus": ("−{:.2f}", "digits or a minus sign other than 0-9 and -"),
    "Arabic digits": (lambda x: f"{x:.2f}".translate(dict(zip(range(48, 58), range(1632, 1642),
                                                              strict=True))), "plain ASCII"),
    "full-width digits": (lambda x: f"{x:.2f}".translate({48 + i: 0xFF10 + i for i in range(10)}),
                          "plain ASCII"),
}  # fmt: skip
every_spelling = pytest.mark.parametrize("kind", ODD)


@every_spelling
def test_numbers_in_another_spelling_are_no_classes(read, kind):
    form, remedy = ODD[kind]
    words = spelled(form)
    with pytest.raises(ValueError) as error:
        read(words)
    text = str(error.value)
    assert "line 2: column 'y' is" in text or "line 3: column 'y' is" in text
    assert remedy in text and "task='classification'" in text


@every_spelling
def test_a_few_words_among_them_change_nothing(read, kind):
    """Most distinct cells decide, not all."""
    with pytest.raises(ValueError, match="mine.csv, line .* column 'y' is"):
        read([*spelled(ODD[kind][0], 30), *["none found", "lost"] * 5])


@every_spelling
def test_as_a_regression_they_name_the_line_and_the_remedy(read, kind):
    form, remedy = ODD[kind]
    words = [*map(str, range(39)), form(1.5) if callable(form) else form.format(1.5)]
    for task in (None, "regression"):
        with pytest.raises(ValueError, match="mine.csv, line 41: column 'y' is") as error:
            read(words, task=task)
        assert remedy.split(":")[0] in str(error.value)


@every_spelling
def test_stated_as_classes_they_are_classes(read, kind):
    few = spelled(ODD[kind][0], 4) * 10
    data = read(few, task="classification")
    assert set(data.classes) == set(few)


@pytest.mark.parametrize(
    "words",
    [
        ["1_1", "1_10", "2_1", "11_0"],  # float() makes 11, 110, 21 and 110 of them
        ["1st", "2nd", "3rd", "4th"],
        ["type 1", "type 2", "type 3", "type 4"],
        ["1 leg", "2 arms", "no hand", "4 heads"],
        ["A1", "B2", "C3", "D4"],
        ["high", "low", "1-3", "4-6"],
    ],
)
def test_names_with_digits_stay_classes(read, words):
    data = read(words * 10)
    assert data.task == "classification" and set(data.classes) == set(words)
    assert data.classes[data.train.targets[1]] == words[1]


def test_infinity_and_what_overflows_are_no_numbers_to_learn(read):
    for word in ("inf", "-Infinity", "1e999"):
        with pytest.raises(ValueError, match=f"line 3: column 'y' is '{word}', not a finite num"):
            read(["1.5", word, "2.5"])


def test_all_lines_that_are_wrong_are_named(read):
    words = ["1,5" if i % 2 else "2.5" for i in range(40)]
    with pytest.raises(ValueError, match=r"line 3: .* \(and lines 5, 7, .*, 23 and 9 more likewis"):
        read(words, task="regression")


def test_too_many_words_are_no_classes(read):
    days = [f"2026-11-{i % 30 + 1:02d} at {i}" for i in range(40)]
    with pytest.raises(ValueError, match="40 different words in 40 lines, .* another column"):
        read(days)
    assert len(read(days, task="classification").classes) == 40


# Decimal commas ---------------------------------------------------------------------------------


def test_decimal_commas_between_semicolons_are_read_and_said(read):
    words = [f"{0.5 + 1.25 * i:.3f}".replace(".", ",") for i in range(40)]
    data = read(words, sep=";")
    assert data.task == "regression"
    assert data.train.targets.tolist() == [0.5 + 1.25 * i for i in range(40)]
    (note,) = (note for note in data.notes if "decimal commas" in note)
    assert "40 numbers" in note and "'0,500' is 0.5" in note
    mixed = read(["1", "1,5", "2", "2,25", "-3"], sep=";")
    assert mixed.train.targets.tolist() == [1, 1.5, 2, 2.25, -3]


def test_the_decimal_sign_can_be_stated(read):
    words = [f"{0.5 + 1.25 * i:.3f}".replace(".", ",") for i in range(40)]
    assert read(words, sep="\t", decimal=",").train.targets[1] == 1.75
    assert read(words, decimal=",").train.targets[1] == 1.75
    with pytest.raises(ValueError, match="digits in groups of three"):
        read(words, sep=";", decimal=".")
    with pytest.raises(ValueError, match="`decimal` must be"):
        read(words, decimal="·")


def test_points_and_commas_together_are_not_guessed_at(read):
    with pytest.raises(ValueError, match="line 3: column 'y' is '2,5', but other lines hold"):
        read(["1.5", "2,5", "3.5"], sep=";")
    with pytest.raises(ValueError, match="line 3: column 'y' is 'high', but other lines"):
        read(["1,5", "high", "3,5"], sep=";")


# Classes ----------------------------------------------------------------------------------------


def test_true_in_any_case_is_one_class(read):
    words = ["True", "TRUE", "False", "true"] * 10
    data = read(words)
    assert data.task == "classification" and data.classes == ("False", "True")
    assert data.train.targets[:4].tolist() == [1, 1, 0, 1]
    (note,) = (note for note in data.notes if "another spelling" in note)
    assert note.startswith("20 cells of column 'y'")
    assert read(["YES", "no", "Yes", "Yes"] * 10).classes == ("Yes", "no")


def test_numbers_that_name_classes_are_compared_as_numbers(read):
    data = read(["1", "1.0", "0", "01"] * 10, task="classification")
    assert data.classes == ("0", "1") and data.train.targets[:4].tolist() == [1, 1, 0, 1]
    assert any(note.startswith("20 cells of column 'y'") for note in data.notes)
    large = ["9007199254740993", "9007199254740992"] * 20
    assert len(read(large, task="classification").classes) == 2


def test_other_names_that_differ_in_case_are_kept_and_noted(read):
    data = read(["AA", "Aa", "aa", "BB"] * 10)  # genotypes are told apart by case
    assert len(data.classes) == 4
    assert any("spelled in several ways" in note and "kept apart" in note for note in data.notes)


def test_groups_that_differ_in_case_are_noted(tmp_path):
    rows = [f"{x},{i / 8},{'Pp'[i % 2]}{i % 10 // 2}" for i, x in enumerate(PEPTIDES)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["sequence,y,patient", *rows]))
    notes = read_csv(path, groups="patient").notes
    assert any("5 groups of column 'patient'" in note and "'P0' and 'p0'" in note for note in notes)


# A target for each residue ----------------------------------------------------------------------


def rows_of(write, seed=0):
    rng = np.random.default_rng(seed)
    values = [np.round(rng.normal(size=len(x)), 3) for x in CHAINS]
    return values, [write(row) for row in values]


@pytest.mark.parametrize(
    "write",
    [
        lambda row: " ".join(map(str, row)),
        lambda row: str(row.tolist()),
        lambda row: np.array2string(row, max_line_width=30),
        lambda row: ",".join(map(str, row)),
        lambda row: "; ".join(map(str, row)),
        lambda row: f"({'  '.join(map(str, row))})",
    ],
    ids=["spaces", "a list", "numpy in lines", "commas", "semicolons", "brackets"],
)
def test_numbers_for_each_residue(read, write):
    values, words = rows_of(write)
    for task in (None, "residue_regression"):
        data = read(words, CHAINS, task=task)
        assert data.task == "residue_regression" and data.classes is None
        assert data.train.masks is None
        for row, found in zip(values, data.train.targets, strict=True):
            np.testing.assert_allclose(found, row)
        assert any("a number for each residue" in note for note in data.notes) == (task is None)


def test_decimal_commas_for_each_residue(read):
    values, words = rows_of(lambda row: " ".join(map(str, row)).replace(".", ","))
    data = read(words, CHAINS, sep=";")
    np.testing.assert_allclose(data.train.targets[0], values[0])
    assert any("decimal commas" in note for note in data.notes)


def test_other_than_one_number_per_residue_is_an_error(read):
    _, words = rows_of(lambda row: " ".join(map(str, row)))
    words[3] = words[3].rsplit(" ", 1)[0]
    with pytest.raises(ValueError, match="line 5: column 'y' has 11 numbers for 12 residues"):
        read(words, CHAINS)
    short = [word.rsplit(" ", 1)[0] for word in words]
    with pytest.raises(ValueError, match="line 2: .* 4 numbers for 5 residues; .*likewise"):
        read(short, CHAINS)


def test_residues_without_a_number_are_false_in_the_masks(read):
    _, words = rows_of(lambda row: " ".join(["nan", "NA", "None", *map(str, row[3:])]))
    data = read(words, CHAINS, split="random")
    for split in data.splits.values():
        for row, mask in zip(split.targets, split.masks, strict=True):
            assert mask.tolist() == [False] * 3 + [True] * (len(row) - 3)
            assert np.isfinite(row).all()
    assert any(f"{3 * len(CHAINS)} of" in note and "masks" in note for note in data.notes)


def test_999_for_each_residue_is_not_learned(read):
    _, words = rows_of(lambda row: " ".join(["999", *map(str, row[1:])]))
    with pytest.raises(ValueError, match=r"line 2: .* 999, .*missing=\('999',\)"):
        read(words, CHAINS)
    data = read(words, CHAINS, missing=("999",))
    assert all(not mask[0] and mask[1:].all() for mask in data.train.masks)
    meant = read(words, CHAINS, missing=())
    assert all(mask.all() for mask in meant.train.masks) and meant.train.targets[0][0] == 999


def test_classes_for_each_residue(read):
    words = [" ".join(str(i % 3) for i in range(len(x))) for x in CHAINS]
    assert any("task='residue_classification'" in note for note in read(words, CHAINS).notes)
    data = read(words, CHAINS, task="residue_classification")
    assert data.classes == ("0", "1", "2") and data.train.targets[0].tolist() == [0, 1, 2, 0, 1]
    words = [" ".join(["?", *["helix", "coil"] * 6][: len(x)]) for x in CHAINS]
    data = read(words, CHAINS, task="residue_classification", missing=("?",))
    assert data.classes == ("coil", "helix")
    assert all(not mask[0] and mask[1:].all() for mask in data.train.masks)
    ignored = [" ".join(["-100", *["0", "1"] * 6][: len(x)]) for x in CHAINS]
    with pytest.raises(ValueError, match=r"-100, .*missing=\('-100',\)"):
        read(ignored, CHAINS, task="residue_classification")


def test_a_letter_for_each_residue_is_seen(read):
    """Thirty strings of secondary structure are no thirty classes."""
    words = ["".join("HEC-"[(i + k) % 4] for i in range(len(x))) for k, x in enumerate(CHAINS)]
    data = read(words, CHAINS)
    assert data.task == "residue_classification" and data.classes == ("-", "C", "E", "H")
    assert any("one letter per residue" in note for note in data.notes)
    two = ["HEEEEEECCCCCCCCCHHHH", "CCCCCCCCCHHHHHHHHHHH"] * 20
    assert read(two).task == "residue_classification"
    names = ["twenty letters long!", "also of twenty chars"] * 20
    assert read(names).task == "classification"


def test_from_a_table_to_a_scored_model(read):
    _, words = rows_of(lambda row: " ".join(map(str, row)))
    words = [f"NA {word.split(' ', 1)[1]}" for word in words]
    data = read(words, CHAINS, split="random", fractions=(0.6, 0.2, 0.2))
    model = kft.Model(esm2(), kft.heads.for_data(data))
    assert isinstance(model.head, kft.heads.ResidueRegression)
    kft.fit(model, data, "linear_probe", verbose=0)
    scores = kft.evaluate(model, data, resamples=20)
    assert list(scores) == ["Spearman", "Pearson", "RMSE", "MAE"]
    found = kft.predict(model, data.test.inputs)
    test = zip(found, data.test.targets, data.test.masks, strict=True)
    apart = np.concatenate([answer[mask, 0] - row[mask] for answer, row, mask in test])
    assert scores["RMSE"].value == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-5)
    for fit in kft.baselines.suited(data).values():
        baseline = fit(data)
        assert [len(row) for row in baseline.predictions] == [len(x) for x in data.test.inputs]


# Targets that mark what is missing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 1.5, -999, -999], {-999: 2}),
        ([0, 2000, -999, 300], {-999: 1}),
        ([0.1, 0.9, 9999], {9999: 1}),
        ([1.0, 1.0, 99], {99: 1}),
        ([-5000, 5000, -999, 999], {}),
        ([97, 98, 99, 99.5], {}),
        ([998, 999, 1000], {}),
        ([999, 999], {}),
    ],
)
def test_marks(values, expected):
    assert marks(values) == expected


def test_marks_among_the_targets_of_records_are_noted(read):
    words = [-999 if i % 4 == 0 else i / 8 for i in range(40)]
    (note,) = (note for note in read(words).notes if "-999" in note)
    assert "10 of 40 lines" in note and "missing=('-999',)" in note and "dropna=True" in note
    data = read(words, missing=("-999",), dropna=True)
    assert len(data.train) == 30 and data.train.targets.min() > 0
    classes = [0, 1, 2, -999] * 10
    notes = read(classes, task="classification").notes
    assert any("-999 is in 10 of 40 lines" in note for note in notes)

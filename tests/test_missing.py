"""Missing values of a table: named all at once, left out, and spelled as the user says."""

import numpy as np
import pytest
from models import esm2, strings

import kft
from kft.data import Dataset, Split, read_csv

pytestmark = pytest.mark.once

PEPTIDES = strings([12] * 40, "ACDEFGHIKLMNPQRSTVWY")


@pytest.fixture
def write(tmp_path):
    def to(*rows, header="sequence,y,patient,fold"):
        path = tmp_path / "mine.csv"
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
        return path

    return to


def holed():
    """40 records, of which 4 lack something, one of them two things."""
    folds = ["train", "train", "valid", "test"]
    rows = [[x, i / 8, f"p{i}", folds[i % 4]] for i, x in enumerate(PEPTIDES)]
    rows[1][1] = "NA"
    rows[5][0], rows[5][1] = "", "n/a"
    rows[8][2] = "null"
    rows[20][3] = "#N/A"
    return rows


def test_all_missing_cells_are_named_at_once(write):
    path = write(*holed())
    with pytest.raises(ValueError) as error:
        read_csv(path, groups="patient", split="fold")
    text = str(error.value)
    assert "line 3: column 'y' is 'NA', a missing value (5 cells are missing: " in text
    for part in ("column 'sequence', line 7", "column 'y', lines 3, 7", "column 'patient', line 10",
                 "column 'fold', line 22", "dropna=True", "missing=()"):  # fmt: skip
        assert part in text
    with pytest.raises(ValueError, match=r"\(3 cells are missing: [^)]*lines 3, 7\)"):
        read_csv(path)  # only in the columns that are read


def test_many_missing_cells_are_counted(write):
    rows = [[x, "" if i % 2 else i] for i, x in enumerate(PEPTIDES)]
    with pytest.raises(ValueError, match="20 cells are missing: column 'y', lines .*and 10 more"):
        read_csv(write(*rows, header="sequence,y"))


def test_dropna_leaves_their_lines_out_and_says_how_many(write):
    path = write(*holed())
    data = read_csv(path, groups="patient", split="fold", dropna=True)
    assert sum(map(len, data.splits.values())) == 36
    (note,) = (note for note in data.notes if "left out" in note)
    assert note.startswith("4 of 40 lines") and "'y' 2" in note and "'fold' 1" in note
    truth = {row[0]: row[1] for row in holed()}
    for split in data.splits.values():
        assert split.targets.tolist() == [truth[x] for x in split.inputs]
    assert sum(map(len, read_csv(path, dropna=True).splits.values())) == 38
    whole = write(*[[x, i] for i, x in enumerate(PEPTIDES)], header="sequence,y")
    assert not any("left out" in note for note in read_csv(whole, dropna=True).notes)
    with pytest.raises(ValueError, match="every line has a missing cell"):
        read_csv(write(["MKT", ""], header="sequence,y"), dropna=True)


def test_lines_are_right_after_some_were_left_out(write):
    rows = [["MKT", 1], ["GIG", "NA"], ["AAA", "bad"]]
    with pytest.raises(ValueError, match="line 4: column 'y' is 'bad'"):
        read_csv(write(*rows, header="sequence,y"), dropna=True, split=None)


def test_na_can_be_a_class(write):
    path = write(*[[x, ["NA", "EU", "Null"][i % 3]] for i, x in enumerate(PEPTIDES)],
                 header="sequence,y")  # fmt: skip
    with pytest.raises(ValueError, match=r"missing=\(\) if 'NA' is a value"):
        read_csv(path)
    data = read_csv(path, missing=())
    assert data.classes == ("EU", "NA", "Null")
    some = read_csv(path, missing=("Null",), dropna=True, split=None)
    assert some.classes == ("EU", "NA") and len(some.train) == 27


def test_na_can_be_a_peptide(write):
    path = write(["NA", 1], ["NAN", 2], ["GIG", 3], header="sequence,y")
    with pytest.raises(ValueError, match="column 'sequence' is 'NA', .* lines 2, 3"):
        read_csv(path)
    assert read_csv(path, missing=(), split=None).train.inputs == ["NA", "NAN", "GIG"]


@pytest.mark.parametrize("missing", [("-999",), "-999", ["-999.0", "?"]])
def test_missing_values_in_the_users_spelling(write, missing):
    rows = [[x, ["-999", "-999.00", "0.5", "1.5"][i % 4]] for i, x in enumerate(PEPTIDES)]
    path = write(*rows, header="sequence,y")
    with pytest.raises(ValueError, match="line 2: column 'y' is '-999', a missing .*20 cells"):
        read_csv(path, missing=missing)
    data = read_csv(path, missing=missing, dropna=True)
    assert sum(map(len, data.splits.values())) == 20
    assert all((split.targets > 0).all() for split in data.splits.values())


def test_an_empty_cell_is_always_missing(write):
    path = write(["MKT", "a"], ["GIG", ""], ["AAA", "b"], header="sequence,y")
    with pytest.raises(ValueError, match="line 3: column 'y' is '', a missing value; fill"):
        read_csv(path, missing=(), split=None)


def test_missing_must_be_words(write):
    path = write(["MKT", 1], header="sequence,y")
    with pytest.raises(TypeError, match="`missing` must hold words .* received -999"):
        read_csv(path, missing=(-999,))
    with pytest.raises(TypeError, match="`missing` must hold words"):
        read_csv(path, missing=-999)


# Targets of residues ----------------------------------------------------------------------------


def dataset(split, task, classes=None):
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    return Dataset("toy", task, split, None, None, classes=classes, **about)


@pytest.mark.parametrize("nothing", [np.nan, None, np.inf])
def test_what_a_mask_leaves_out_may_be_missing(nothing):
    split = Split(["MKT", "GS"], [[0.5, nothing, 1.5], [2.5, 3.5]], masks=[[1, 0, 1], [1, 1]])
    assert [row.tolist() for row in split.targets] == [[0.5, 0.0, 1.5], [2.5, 3.5]]
    dataset(split, "residue_regression")
    assert split.take([0]).targets[0].tolist() == [0.5, 0.0, 1.5]


@pytest.mark.parametrize("nothing", [-1, -100])
def test_what_a_mask_leaves_out_may_be_no_class(nothing):
    """transformers marks residues without a label by -100."""
    split = Split(["MKT", "GS"], [[0, nothing, 1], [1, 0]], masks=[[1, 0, 1], [1, 1]])
    dataset(split, "residue_classification", ("a", "b"))
    assert split.targets[0].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=f"targets from -1 to 1|holds {nothing} at 1 of 2 resid"):
        dataset(Split(["MK"], [[nothing, 1]]), "residue_classification", ("a", "b"))


def test_missing_targets_of_residues_are_named_without_a_dump():
    rows = [np.arange(300.0), np.arange(4.0), np.arange(5.0)]
    rows[0][[7, 9]] = np.nan
    rows[2][0] = np.nan
    with pytest.raises(ValueError) as error:
        Split(["M" * 300, "MKTA", "MKTAY"], rows)
    text = str(error.value)
    assert "`targets` of record 0 is nan at residue 8 (2 of its 300 are missing" in text
    assert "as in 1 more" in text and "False in `masks`" in text and len(text) < 200


def test_missing_targets_of_records_are_counted():
    with pytest.raises(ValueError, match="`targets` of record 1 is nan, as in 2 more"):
        Split(["A", "C", "D", "E"], [1.0, np.nan, np.nan, np.inf])


@pytest.mark.parametrize("mark", [999.0, -999.0, 9999.0])
def test_999_without_a_mask_is_refused(mark):
    rows = [np.array([0.5, mark, 1.5]), np.array([2.5, mark])]
    with pytest.raises(ValueError, match=f"{mark:g} at 2 of 5 residues.*masks="):
        Split(["MKT", "GS"], rows)
    split = Split(["MKT", "GS"], rows, masks=[row != mark for row in rows])
    assert len(split) == 2
    Split(["MKT", "GS"], rows, masks=[np.ones(len(row), bool) for row in rows])  # it is meant


def test_numbers_that_mark_missing_targets_are_named_by_fit():
    model = kft.Model(esm2(), kft.heads.Regression())
    model.backbone.trainable = False
    records = ["MKTAYI", "GSS", "AKQR", "GIGKF"], [0.1, -999.0, 0.4, 0.3]
    with pytest.warns(UserWarning, match="targets are -999 for 1 of 4 records"):
        kft.fit(model, records, epochs=1, verbose=0)

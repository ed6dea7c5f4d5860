"""Tables from DataFrames, Excel and Parquet files, and separators that are found."""

import builtins

import numpy as np
import pandas as pd
import pytest
from models import strings

from kft.data import read_table

pytestmark = pytest.mark.once

PEPTIDES = strings([12] * 20, "ACDEFGHIKLMNPQRSTVWY")
TABLE = pd.DataFrame(
    {"sequence": PEPTIDES, "y": np.arange(20) / 8, "kind": ["yes", "no"] * 10, "level": [0, 1] * 10}
)


def written(table, path):
    """The table in a file of the kind that the name ends in."""
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("target", ["y", "kind", "level"])
@pytest.mark.parametrize("name", ["frame", "mine.xlsx", "mine.parquet", "mine.tsv"])
def test_every_kind_of_table_gives_the_same_records(tmp_path, name, target):
    expected = read_table(written(TABLE, tmp_path / "mine.csv"), target=target)
    source = TABLE if name == "frame" else written(TABLE, tmp_path / name)
    data = read_table(source, target=target)
    assert (data.task, data.classes, data.target) == (expected.task, expected.classes, target)
    for part, split in data.splits.items():
        assert split.inputs == expected.splits[part].inputs
        np.testing.assert_array_equal(split.targets, expected.splits[part].targets)


def test_a_file_is_recognised_by_its_content(tmp_path):
    path = written(TABLE, tmp_path / "mine.xlsx").rename(tmp_path / "mine.csv")
    assert len(read_table(path, split=None).train) == 20


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", "NA"])
def test_missing_cells_of_a_frame_are_named_by_their_label(missing):
    table = TABLE.astype({"y": object}).set_axis([f"p{i}" for i in range(20)])
    table.loc["p3", "y"] = missing
    with pytest.raises(ValueError, match="DataFrame, row p3: column 'y' is .*, a missing value"):
        read_table(table)
    data = read_table(table, dropna=True, split=None)
    assert len(data.train) == 19 and "1 of 20 rows with a missing cell" in str(data)


def test_rows_of_a_sheet_are_numbered_as_excel_does(tmp_path):
    table = TABLE.astype({"y": object})
    table.loc[3, "y"] = "high"
    with pytest.raises(ValueError, match="mine.xlsx, row 5: column 'y' is 'high', but other rows"):
        read_table(written(table, tmp_path / "mine.xlsx"))


def test_targets_of_residues_may_be_lists_or_arrays():
    table = pd.DataFrame(
        {
            "sequence": ["MKT", "GSSA"],
            "y": [np.array([0.5, 1, 2]), [0.25, None, 1, 2]],
            "state": [list("HHC"), list("CCHH")],
        }
    )
    data = read_table(table, split=None)
    assert data.task == "residue_regression"
    assert [row.tolist() for row in data.train.targets] == [[0.5, 1, 2], [0.25, 0, 1, 2]]
    assert data.train.masks[1].tolist() == [True, False, True, True]
    data = read_table(table, target="state", split=None, task="residue_classification")
    assert [row.tolist() for row in data.train.targets] == [[1, 1, 0], [0, 0, 1, 1]]


def test_other_sheets_are_named(tmp_path):
    with pd.ExcelWriter(tmp_path / "two.xlsx") as book:
        TABLE.to_excel(book, sheet_name="assay", index=False)
        TABLE.to_excel(book, sheet_name="old", index=False)
    data = read_table(tmp_path / "two.xlsx")
    assert "The first sheet, 'assay', was read; old not." in data.notes


@pytest.mark.parametrize(("name", "package"), [("a.xlsx", "openpyxl"), ("a.parquet", "pyarrow")])
def test_a_package_that_is_absent_is_an_error_with_the_command(
    tmp_path, monkeypatch, name, package
):
    path, real = written(TABLE, tmp_path / name), builtins.__import__
    import_module = pd.compat._optional.importlib.import_module

    def absent(name, *others, **options):
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *others, **options)

    def absent_module(name, *others):
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return import_module(name, *others)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr(pd.compat._optional.importlib, "import_module", absent_module)
    with pytest.raises(ImportError, match=r'pip install "kft\[tables\]"'):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "before 2007 .* save it as .xlsx"),
        (b"PK\x03\x04 and no archive", "begins as an Excel file and cannot be read as one"),
        (b"PAR1 and nothing", "begins as a Parquet file and cannot be read as one"),
    ],
)
def test_damaged_files_are_errors(tmp_path, content, message):
    (tmp_path / "mine.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "mine.xlsx")


def test_an_empty_sheet_and_one_without_records(tmp_path):
    for table, message in ((pd.DataFrame(), "first sheet is empty"), (TABLE[:0], "no records")):
        with pytest.raises(ValueError, match=message):
            read_table(written(table, tmp_path / "mine.xlsx"))


# Text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sep", "values"),
    [
        ("sequence;IC50 (µM, 24 h, pH 7)\nMKT;1,5\nGSS;2\n", "semicolons", [1.5, 2]),
        ("sequence\tIC50\nMKT\t1,5\nGSS\t2\n", "tabs", [1.5, 2]),
        ("sequence\tIC50\nMKT\t1.5\nGSS\t2\n", "tabs", [1.5, 2]),
        ('sequence,IC50\n"MKT",1.5\n"GSS",2\n', None, [1.5, 2]),
        ('sequence,note,IC50\nMKT,"a; b; c; d",1.5\nGSS,"e; f",2\n', None, [1.5, 2]),
    ],
)
def test_separator_and_decimal_sign_are_found_and_said(tmp_path, text, sep, values):
    (tmp_path / "mine.csv").write_text(text)
    column = text.splitlines()[0].replace("\t", ";").split(";" if sep else ",")[-1]
    data = read_table(tmp_path / "mine.csv", target=column, split=None)
    assert data.train.targets.tolist() == values
    assert any("separated by" in note for note in data.notes) == bool(sep)
    assert any(f"separated by {sep}" in note for note in data.notes) == bool(sep)
    assert any("decimal commas" in note for note in data.notes) == ("1,5" in text)


def test_groups_of_three_digits_between_tabs_are_no_decimals(tmp_path):
    (tmp_path / "mine.tsv").write_text("sequence\ty\nMKT\t1,500\nGSS\t2,250\n")
    with pytest.raises(ValueError, match="digits in groups of three"):
        read_table(tmp_path / "mine.tsv")

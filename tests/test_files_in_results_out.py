"""From files to models to files: tables and FASTA in, predictions with names out, in the shell."""

import numpy as np
import pandas as pd
import pytest
from models import BACKBONES, esm2, strings
from typer.testing import CliRunner

import kft
from kft import backbones
from kft.cli import app
from kft.data import read_fasta, read_table

pytestmark = pytest.mark.once

PEPTIDES = strings([8] * 24, "ACDEFGHIKLMNPQRSTVWY")
KINDS = ["helix", "coil", "strand"]


def shell(*arguments, status=0):
    """What `kft ...` writes; it must end with this status and without a traceback."""
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backbone in Hugging Face's format, which an adapter can name."""
    return backbones.save(esm2(blocks=2), tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"code": [f"{i:03d}" for i in range(24)], "sequence": PEPTIDES, "y": rng.normal(size=24),
         "kind": [KINDS[i % 3] for i in range(24)]}
    )  # fmt: skip


def fitted(backbone, data, strategy="linear_probe", **options):
    model = kft.Model(backbone, kft.heads.for_data(data))
    return kft.fit(model, data, strategy, verbose=0, **options).model


@pytest.fixture(scope="module")
def classifier(table):
    return fitted(esm2(), read_table(table, target="kind", split=None))


# Columns ------------------------------------------------------------------------------------------


def test_classes_have_their_names(classifier, table):
    named = kft.predict(classifier, table, as_frame=True)
    values = kft.predict(classifier, PEPTIDES)
    columns = ["predicted_kind", "probability_coil", "probability_helix", "probability_strand"]
    assert named.columns.tolist() == [*table.columns, *columns]
    np.testing.assert_array_equal(named[columns[1:]], values)
    assert named.predicted_kind.tolist() == [sorted(KINDS)[k] for k in values.argmax(axis=1)]
    assert "predicted_kind" not in table


def test_numbers_and_labels_and_residues_have_names(table):
    model = fitted(esm2(), read_table(table, split=None))
    assert kft.predict(model, table[["sequence"]], as_frame=True).columns.tolist() == [
        "sequence",
        "predicted_y",
    ]
    sites = table.assign(inside=[0, 1] * 12, outside=[1, 1, 0] * 8)
    model = fitted(esm2(), read_table(sites, target=["inside", "outside"], split=None))
    found = kft.predict(model, sites, as_frame=True)
    likely = found[["probability_inside", "probability_outside"]].to_numpy() >= 0.5
    assert found.prediction.tolist() == [
        ";".join(np.array(["inside", "outside"])[row]) for row in likely
    ]
    states = table.assign(state=[("HHCC" * 3)[i % 4 :][:8] for i in range(24)])
    data = read_table(states, target="state", split=None, task="residue_classification")
    model = fitted(esm2(), data, "head_only", epochs=1)
    found = kft.predict(model, states, as_frame=True)
    assert found.predicted_state.str.fullmatch("[HC]{8}").all()
    assert all(len(cell.split()) == 8 for cell in found.probability_H)
    # and they are read again
    read_table(found, target="probability_H", split=None, task="residue_regression")


def test_without_names_and_of_lists(table):
    model = kft.Model(esm2(), kft.heads.Classification(2))
    found = kft.predict(model, pd.Series(PEPTIDES[:3], index=list("abc")), as_frame=True)
    assert found.index.tolist() == list("abc")
    assert found.columns.tolist() == ["sequence", "prediction", "probability_0", "probability_1"]
    with pytest.raises(ValueError, match="have a column 'prediction' already"):
        kft.predict(model, found, as_frame=True)
    with pytest.raises(ValueError, match="`column` is 'peptide', which is not among .*code"):
        kft.predict(model, table, column="peptide")


def test_names_are_kept_in_files_and_with_another_head_forgotten(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    loaded = kft.load_model(tmp_path / "model.keras")
    assert loaded.classes == tuple(sorted(KINDS)) and loaded.target_name == "kind"
    other = kft.replace_head(loaded, kft.heads.Classification(3))
    assert other.classes == ()


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["csv", "tsv", "xlsx", "parquet"])
def test_every_row_and_column_is_kept_in_order(classifier, table, tmp_path, end):
    source = tmp_path / f"new.{end}"
    writers = {"csv": table.to_csv, "xlsx": table.to_excel, "parquet": table.to_parquet}
    if end == "tsv":
        table.to_csv(source, sep="\t", index=False)
    else:
        writers[end](source, index=False)
    out = kft.predict(classifier, source, out=tmp_path / "deep" / f"out.{end}")
    if end in ("csv", "tsv"):
        found = pd.read_csv(out, sep="\t" if end == "tsv" else ",", dtype=str)
    else:
        found = pd.read_excel(out, dtype=str) if end == "xlsx" else pd.read_parquet(out)
    assert found.code.tolist() == table.code.tolist(), "as text: 007 stays 007"
    assert found.sequence.tolist() == PEPTIDES
    expected = kft.predict(classifier, PEPTIDES)
    np.testing.assert_allclose(found.probability_coil.astype(float), expected[:, 0], rtol=1e-6)


def test_a_biologist(tmp_path, monkeypatch):
    """Semicolons and decimal commas in; a model; the same in the shell, with names, out."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{x};{i / 8:.3f};{'ja' if i % 2 else 'nein'}" for i, x in enumerate(PEPTIDES)]
    with open("assay.csv", "w") as file:
        file.write("\n".join(["sequence;IC50 (µM);aktiv", *rows]).replace(".", ","))
    data = read_table("assay.csv", target="IC50 (µM)")
    assert any("semicolons" in note for note in data.notes)
    assert any("decimal commas" in note for note in data.notes)
    fitted(esm2(), data).save("activity.keras")
    fitted(esm2(), read_table("assay.csv", target="aktiv")).save("active.keras")

    assert "Written: out.csv" in shell("predict", "activity.keras", "assay.csv", "--out", "out.csv")
    out = pd.read_csv("out.csv", sep=";", decimal=",")
    assert out.columns.tolist() == ["sequence", "IC50 (µM)", "aktiv", "predicted_IC50 (µM)"]
    np.testing.assert_allclose(out["IC50 (µM)"], np.arange(24) / 8)
    found = kft.predict(kft.load_model("activity.keras"), PEPTIDES)[:, 0]
    np.testing.assert_allclose(out["predicted_IC50 (µM)"], found, rtol=1e-6)

    shell("predict", "active.keras", "assay.csv", "--out", "out.tsv")
    out = pd.read_csv("out.tsv", sep="\t", decimal=",")
    assert set(out.predicted_aktiv) <= {"ja", "nein"}
    np.testing.assert_allclose(out.probability_ja + out.probability_nein, 1, rtol=1e-5)


# Records that are invalid -------------------------------------------------------------------------


FASTA = ">sp|P1|A_B first protein\nMKTAYI\n>bad one\nMK7AYI\n>\nMKT\n>empty\n>last\nGSSMKT\n"


def test_records_of_fasta_have_ids_and_descriptions(classifier, tmp_path):
    (tmp_path / "a.fasta").write_text(FASTA.partition(">bad")[0])
    (record,) = read_fasta(tmp_path / "a.fasta")
    assert (record.id, record.description) == ("sp|P1|A_B", "first protein")
    found = kft.predict(classifier, tmp_path / "a.fasta", as_frame=True)
    assert found.iloc[0, :2].tolist() == ["sp|P1|A_B", "first protein"]


def test_invalid_records_of_fasta_are_skipped_and_listed(classifier, tmp_path):
    (tmp_path / "a.fasta").write_text(FASTA)
    with pytest.raises(ValueError, match="line 5: the header is empty"):
        kft.predict(classifier, tmp_path / "a.fasta")
    with pytest.warns(UserWarning, match="3 invalid records were skipped") as caught:
        found = kft.predict(classifier, tmp_path / "a.fasta", as_frame=True, skip_invalid=True)
    (text,) = (str(w.message) for w in caught if "invalid" in str(w.message))
    lines = ["line 3: record bad has '7' at position 3", "line 5: the header is empty",
             "line 7: no sequence follows the header 'empty'"]  # fmt: skip
    assert [text.index(line) for line in lines] == sorted(text.index(line) for line in lines)
    assert found.id.tolist() == ["sp|P1|A_B", "last"]
    np.testing.assert_allclose(
        found.probability_coil, kft.predict(classifier, ["MKTAYI", "GSSMKT"])[:, 0], rtol=1e-5
    )
    with pytest.warns(UserWarning, match="2 invalid records"):
        assert len(list(read_fasta(tmp_path / "a.fasta", skip_invalid=True))) == 3
    (tmp_path / "text.fasta").write_text("no header\n>a\nMKT\n")
    with pytest.warns(UserWarning, match="line 1: expected a header"):
        assert len(list(read_fasta(tmp_path / "text.fasta", skip_invalid=True))) == 1


def test_invalid_records_of_a_table_keep_their_place(classifier, table, tmp_path):
    wrong = table[:4].copy()
    wrong.loc[1, "sequence"], wrong.loc[2, "sequence"] = "MK7", ""
    wrong.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(ValueError, match="new.csv, line 3 has '7' at position 3"):
        kft.predict(classifier, tmp_path / "new.csv")
    with pytest.warns(UserWarning, match="2 invalid records were skipped"):
        out = kft.predict(
            classifier, tmp_path / "new.csv", out=tmp_path / "out.csv", skip_invalid=True
        )
    found = pd.read_csv(out)
    assert found.code.tolist() == [0, 1, 2, 3]
    assert found.predicted_kind.isna().tolist() == [False, True, True, False]
    with pytest.warns(UserWarning, match="inputs: 2 invalid records"):
        values = kft.predict(classifier, [PEPTIDES[0], "7", None, PEPTIDES[3]], skip_invalid=True)
    assert np.isnan(values).all(axis=1).tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="no input is valid; the first, inputs.0.: "):
        kft.predict(classifier, ["7", "8"], skip_invalid=True)


def test_the_shell_lists_what_is_skipped(classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier.save("model.keras")
    (tmp_path / "a.fasta").write_text(FASTA)
    assert "line 5" in shell("predict", "model.keras", "a.fasta", "--out", "out.csv", status=1)
    assert not (tmp_path / "out.csv").exists()
    text = shell("predict", "model.keras", "a.fasta", "--out", "out.csv", "--skip-invalid")
    assert "kft: a.fasta: 3 invalid records were skipped:" in text and "warn" not in text
    assert pd.read_csv("out.csv").id.tolist() == ["sp|P1|A_B", "last"]


# Every strategy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", kft.strategies.names())
def test_the_result_of_every_strategy_is_used_again(table, folder, tmp_path, strategy):
    data = read_table(table, target="kind")
    options = {} if strategy == "linear_probe" else {"epochs": 2}
    model = fitted(kft.load(folder), data, strategy, **options)
    table.to_csv(tmp_path / "new.csv", index=False)
    model.save(tmp_path / "model.keras")
    saved = [tmp_path / "model.keras"]
    if kft.lora.names(model):
        saved.append(kft.save_adapter(model, tmp_path / "adapter"))
    expected = kft.predict(model, PEPTIDES)
    for path in saved:
        shell("predict", path, tmp_path / "new.csv", "--out", tmp_path / "out.csv")
        found = pd.read_csv(tmp_path / "out.csv")
        columns = [f"probability_{name}" for name in sorted(KINDS)]
        np.testing.assert_allclose(found[columns], expected, rtol=1e-5, atol=1e-6)


def test_adapters_that_cannot_be_loaded_say_what_is_missing(folder, tmp_path):
    model = kft.Model(esm2(), kft.heads.Regression())
    kft.add_lora(model, rank=2)
    kft.save_adapter(model, tmp_path / "adapter")
    with pytest.raises(ValueError, match="does not name the backbone .* give it as `backbone`"):
        kft.load_model(tmp_path / "adapter")
    loaded = kft.load_model(tmp_path / "adapter", esm2())
    np.testing.assert_array_equal(
        kft.predict(loaded, PEPTIDES[:2]), kft.predict(model, PEPTIDES[:2])
    )
    moved = kft.load(folder)
    kft.add_lora(moved, rank=2)
    kft.save_adapter(moved, tmp_path / "headless")
    with pytest.raises(ValueError, match="without a record of its head"):
        kft.load_model(tmp_path / "headless")
    with pytest.raises(FileNotFoundError, match="has no adapter_config.json"):
        kft.load_model(tmp_path)
    with pytest.raises(ValueError, match="holds a backbone, which kft.load loads"):
        kft.load_model(folder)


# Messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"text", b"\x89HDF\r\n\x1a\n", b""])
def test_a_file_that_is_no_model_is_not_called_absent(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(ValueError, match="model.keras is not a model that Keras saved"):
        kft.load_model(tmp_path / "model.keras")


def test_paths_of_models(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        kft.load_model(tmp_path / "absent.keras")
    classifier.save(tmp_path / "model.keras")
    (tmp_path / "model.keras").rename(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="must end in .keras: rename it"):
        kft.load_model(tmp_path / "model.zip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("clean.csv", r"received a str, 'clean.csv': .*read_table\('clean.csv', .*target="),
        (pd.DataFrame({"sequence": ["MKT"]}), r"received a DataFrame: .*read_table\(data, "),
        ({"x": 1}, "received a dict"),
        (["MKT", "GSS"], "received a list: give .*a pair"),
        (None, "received a NoneType"),
    ],
)
def test_fit_says_what_to_give(data, message):
    with pytest.raises(TypeError, match=f"data must be .*{message}"):
        kft.fit(kft.Model(esm2(), kft.heads.Regression()), data, "linear_probe")


@pytest.mark.parametrize("strategy", [{"name": "lora", "rank": 4}, ["lora"], 3])
def test_fit_says_how_a_strategy_is_named(strategy):
    model = kft.Model(esm2(), kft.heads.Regression())
    with pytest.raises(TypeError, match=r"received .*kft.strategies.get\('lora', rank=4\)"):
        kft.fit(model, (PEPTIDES, np.arange(24.0)), strategy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "a.fasta", "a.fasta", "--out", "out.csv"], "is not a model that Keras saved"),
        (["predict", "no.keras", "a.fasta", "--out", "out.csv"], "There is no file or folder"),
        (["embed", "a.fasta", "out.csv", "--backbone", "esm9"], "Unknown model 'esm9'"),
        (["embed", "no.csv", "out.csv", "--backbone", "kft_esm2_tiny"], "which is not a file"),
        (["data", "apm"], "amp"),
    ],
)
def test_the_shell_shows_messages(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fasta").write_text(">a\nMKT\n")
    text = shell(*arguments, status=1)
    assert text.startswith("kft: ") and message in text and "Traceback" not in text


def test_the_shell_embeds_tables(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table.rename(columns={"code": "id"}).to_csv("new.csv", index=False)
    shell("embed", "new.csv", "out.npz", "--backbone", "kft_esm2_tiny")
    archive = kft.load_embeddings("out.npz")
    assert archive.names == table.code.tolist()
    np.testing.assert_allclose(
        archive.values, kft.embed(kft.load("kft_esm2_tiny"), table), rtol=1e-4, atol=1e-5
    )


# Images -------------------------------------------------------------------------------------------


def test_tables_of_image_paths(tmp_path):
    image = pytest.importorskip("PIL.Image")
    paths = [f"plate/{i}.png" for i in range(3)]
    (tmp_path / "plate").mkdir()
    for i, path in enumerate(paths):
        image.fromarray(np.full((8, 8, 3), 60 * i, "uint8")).save(tmp_path / path)
    model = kft.Model(BACKBONES["vit"](), kft.heads.Classification(2, pooling="cls"))
    pd.DataFrame({"path": paths, "well": list("abc")}).to_csv(tmp_path / "new.csv", index=False)
    expected = kft.predict(model, [tmp_path / path for path in paths])
    found = kft.predict(model, tmp_path / "new.csv", as_frame=True)
    assert found.columns.tolist()[:3] == ["path", "well", "prediction"]
    np.testing.assert_array_equal(found[["probability_0", "probability_1"]], expected)
    frame = pd.DataFrame({"path": [str(tmp_path / path) for path in paths]})
    np.testing.assert_array_equal(kft.predict(model, frame), expected)
    found = kft.predict(model, tmp_path / "plate", as_frame=True)
    assert found["path"].tolist() == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(found[["probability_0", "probability_1"]], expected)
    np.testing.assert_array_equal(kft.predict(model, tmp_path / paths[1]), expected[1:2])


def test_a_folder_of_images_with_other_files(tmp_path):
    image = pytest.importorskip("PIL.Image")
    model = kft.Model(BACKBONES["vit"](), kft.heads.Classification(2, pooling="cls"))
    with pytest.raises(FileNotFoundError, match="a folder without files"):
        kft.predict(model, tmp_path)
    (tmp_path / "=a").mkdir()
    image.fromarray(np.zeros((8, 8, 3), "uint8")).save(tmp_path / "=a" / "b.png")
    (tmp_path / "notes.txt").write_text("of the microscope")
    (tmp_path / ".hidden").touch()
    with pytest.raises(ValueError, match="notes.txt"):
        kft.predict(model, tmp_path)
    out = tmp_path / "results" / "out.csv"
    with pytest.warns(UserWarning, match=r"1 invalid records were skipped:\n  notes.txt: "):
        kft.predict(model, tmp_path, out=out, skip_invalid=True)
    assert pd.read_csv(out)["path"].tolist() == ["'=a/b.png"]
    proteins = kft.Model(kft.load("kft_esm2_tiny", weights=False), kft.heads.Regression())
    with pytest.raises(FileNotFoundError, match="which is a folder: give the path of a FASTA file"):
        kft.predict(proteins, tmp_path)

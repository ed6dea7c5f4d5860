"""Embeddings in shards: each a file of its own, joined to what one call computes."""

import json

import numpy as np
import pandas as pd
import pytest
from models import esm2, strings
from typer.testing import CliRunner

import kft
from kft.cli import app
from kft.inference import embedding, records, shards
from kft.training import features, memory
from kft.training.lengths import padded_length

pytestmark = pytest.mark.once

PROTEINS = strings([3, 9, 14, 6, 8, 12, 5, 11])


@pytest.fixture(scope="module")
def backbone():
    return esm2(blocks=2)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "in.fasta"
    path.write_text("".join(f">P{i}\n{protein}\n" for i, protein in enumerate(PROTEINS)))
    return path


def embedded(backbone, inputs, folder, count, **options):
    """The shards, computed in another order than theirs."""
    for number in range(count, 0, -1):
        kft.embed(backbone, inputs, out=folder, shard=f"{number}/{count}", **options)
    return folder


def assert_equal(one, two, **tolerance):
    assert one.names == two.names and list(one.columns) == list(two.columns)
    for name, rows in one.columns.items():
        assert len(rows) == len(two.columns[name])
        for row, other in zip(rows, two.columns[name], strict=True):
            np.testing.assert_allclose(row, other, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.mark.parametrize("suffix", ["npz", "h5", "parquet"])
def test_merged_shards_are_what_one_call_computes(backbone, fasta, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(records, "CHUNK", 3)  # shards begin and end within and at its multiples
    options = {"layers": [0, -1], "per_residue": True, "batch_size": 2}
    whole = kft.embed(backbone, fasta, out=tmp_path / f"whole.{suffix}", **options)
    folder = embedded(backbone, fasta, tmp_path / "out", 3, **options)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"shard_{i}_of_3.{ending}" for i in (1, 2, 3) for ending in ("h5", "json")
    ]
    merged = kft.merge_embeddings(folder, tmp_path / f"merged.{suffix}")
    # Batches are others, and so is the rounding.
    one, two = kft.load_embeddings(whole), kft.load_embeddings(merged)
    assert one.names == [f"P{i}" for i in range(8)]
    assert_equal(one, two, rtol=1e-4, atol=1e-5)


def test_tables_and_lists_have_shards_too(backbone, tmp_path):
    table = pd.DataFrame({"id": [f"Q{i}" for i in range(8)], "sequence": PROTEINS})
    expected = kft.embed(backbone, PROTEINS)
    for inputs, first in ((table, "Q0"), (PROTEINS, "inputs[0]")):
        folder = embedded(backbone, inputs, tmp_path / first[0], 4)
        found = kft.load_embeddings(kft.merge_embeddings(folder))
        assert found.names[0] == first
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_an_invalid_record_of_a_list_keeps_its_place(backbone, tmp_path):
    options = {"skip_invalid": True}
    with pytest.warns(UserWarning, match="1 invalid"):
        folder = embedded(backbone, ["M1", *PROTEINS, ""], tmp_path / "out", 2, **options)
    found = kft.load_embeddings(kft.merge_embeddings(folder))
    assert found.names == [f"inputs[{i}]" for i in range(10)]
    assert np.isnan(found.values).all(axis=1).tolist() == [True] + [False] * 8 + [True]
    with pytest.raises(ValueError, match="no input is valid"):
        kft.embed(backbone, ["M1", "MKT"], out=tmp_path / "none", shard="1/2", **options)


def test_shards_have_about_as_many_residues_and_none_is_empty():
    rng = np.random.default_rng(0)
    sizes = rng.integers(30, 1000, 5000)
    edges = shards._edges(sizes, 64)
    assert edges[0] == 0 and edges[-1] == 5000
    residues = np.add.reduceat(sizes, edges[:-1])
    assert np.ptp(residues) <= 2 * 1000
    for sizes, count in (([36_000, 10, 10, 10], 4), ([10, 10, 36_000], 3), ([5] * 7, 3)):
        edges = shards._edges(np.array(sizes), count)
        assert edges[0] == 0 and edges[-1] == len(sizes) and (np.diff(edges) > 0).all()


def test_an_interrupted_shard_goes_on(backbone, fasta, tmp_path, monkeypatch):
    options = {"batch_size": 1}
    folder = embedded(backbone, fasta, tmp_path / "undisturbed", 2, **options)
    undisturbed = kft.load_embeddings(kft.merge_embeddings(folder))
    calls = []

    def interrupted(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return features.outputs_of(*arguments)

    out = tmp_path / "out"
    kft.embed(backbone, fasta, out=out, shard="2/2", **options)
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "outputs_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kft.embed(backbone, fasta, out=out, shard="1/2", **options)
    with pytest.raises(FileNotFoundError, match=r"has 1 of 2 shards; missing are 1/2.*'1/2'"):
        kft.merge_embeddings(out)
    kft.embed(backbone, fasta, out=out, shard="1/2", **options)
    assert len(list(out.iterdir())) == 4
    assert_equal(undisturbed, kft.load_embeddings(kft.merge_embeddings(out)))


def test_a_second_run_computes_what_is_missing_or_damaged(backbone, tmp_path, monkeypatch):
    path = kft.embed(backbone, PROTEINS, out=tmp_path, shard="1/2")
    kft.embed(backbone, PROTEINS, out=tmp_path, shard="2/2")
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "outputs_of", None)
        with pytest.warns(UserWarning, match="is complete already"):
            assert kft.embed(backbone, PROTEINS, out=tmp_path, shard="1/2") == path
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"shard_1_of_2\.h5 is missing or was changed.*'1/2'"):
        kft.merge_embeddings(tmp_path)
    with pytest.warns(UserWarning, match=r"shard_1_of_2\.h5 is missing or was changed"):
        kft.embed(backbone, PROTEINS, out=tmp_path, shard="1/2")
    assert len(kft.load_embeddings(kft.merge_embeddings(tmp_path)).names) == 8


def test_shards_of_something_else_are_refused_by_name(backbone, tmp_path):
    kft.embed(backbone, PROTEINS, out=tmp_path, shard="1/2")
    other = esm2(blocks=2, seed=1)
    reordered = PROTEINS[::-1]
    for model, inputs, shard, options, message in (
        (other, PROTEINS, "2/2", {}, "another backbone"),
        (backbone, reordered, "2/2", {}, "another input"),
        (backbone, PROTEINS, "2/3", {}, "another number of shards"),
        (backbone, PROTEINS, "2/2", {"pooling": "cls"}, "another pooling"),
        (backbone, PROTEINS, "2/2", {"max_length": 5}, "another max_length"),
        (backbone, PROTEINS, "2/2", {"layers": [1]}, "other layers"),
        (backbone, PROTEINS, "2/2", {"per_residue": True}, "another per_residue"),
    ):
        with pytest.raises(ValueError, match=rf"shard_1_of_2\.h5 is of {message}.*another folder"):
            kft.embed(model, inputs, out=tmp_path, shard=shard, **options)
    elsewhere = kft.embed(other, PROTEINS, out=tmp_path / "other", shard="2/2")
    for path in (elsewhere, elsewhere.with_suffix(".json")):
        path.rename(tmp_path / path.name)  # as from another machine
    with pytest.raises(ValueError, match=r"shard_2_of_2\.h5 is of another backbone.*shard_1_of_2"):
        kft.merge_embeddings(tmp_path)
    (tmp_path / "shard_1_of_2.json").write_text("{}")
    with pytest.raises(ValueError, match=r"shard_1_of_2\.json has no .*damaged"):
        kft.merge_embeddings(tmp_path)


def test_shards_that_are_none(backbone, tmp_path):
    for shard in ("0/4", "5/4", "x", "1", "1/0", "-1/4", "1/4/4", ""):
        with pytest.raises(ValueError, match="shard must be I/N"):
            kft.embed(backbone, PROTEINS, out=tmp_path, shard=shard)
    with pytest.raises(TypeError, match="shard must be a string"):
        kft.embed(backbone, PROTEINS, out=tmp_path, shard=(1, 4))
    with pytest.raises(ValueError, match=r"'1/9' for 8 records"):
        kft.embed(backbone, PROTEINS, out=tmp_path, shard="1/9")
    for out in (None, tmp_path / "a.npz"):
        with pytest.raises(ValueError, match="out must be the folder of the shards"):
            kft.embed(backbone, PROTEINS, out=out, shard="1/4")
    with pytest.raises(FileNotFoundError, match="which has no shards"):
        kft.merge_embeddings(tmp_path)


def without(path, *names):
    """A FASTA file without some of its records."""
    entries = path.read_text().split(">")[1:]
    kept = path.with_name("kept.fasta")
    kept.write_text("".join(f">{x}" for x in entries if x.split("\n")[0] not in names))
    return kept


def test_what_is_too_long_is_skipped_by_name_and_the_rest_goes_on(
    backbone, tmp_path, monkeypatch, recwarn
):
    path = tmp_path / "in.fasta"
    # Invalid ones before, between and after the shards, of which the second is titin alone.
    titin = "MKTAYIAKQR" * 30
    path.write_text(f">a\nMKT\n>b\nMKTA\n>none\n>titin\n{titin}\n>c\nGSS\n>last\n>wrong\nM1\n")
    monkeypatch.setattr(memory, "MOST_TOKENS_OF_ONE", 200)
    too_long = f"titin has {padded_length(len(titin) + 2)} tokens"
    with pytest.raises(ValueError, match=f"record {too_long}"):
        kft.embed(backbone, without(path, "none", "last", "wrong"))
    said = []
    for number in (1, 2, 3):
        recwarn.clear()
        kft.embed(backbone, path, out=tmp_path / "out", shard=f"{number}/3", skip_invalid=True)
        said.append("".join(str(x.message) for x in recwarn if x.category is UserWarning))
    assert said[0] == ""
    assert "2 invalid" in said[1] and "line 5" in said[1] and too_long in said[1]
    assert "2 invalid" in said[2] and "line 10" in said[2] and "line 11" in said[2]
    found = kft.load_embeddings(kft.merge_embeddings(tmp_path / "out"))
    assert found.names == ["a", "b", "c"]
    np.testing.assert_allclose(
        found.values, kft.embed(backbone, ["MKT", "MKTA", "GSS"]), rtol=1e-4, atol=1e-5
    )
    assert json.loads((tmp_path / "out/shard_2_of_3.json").read_text())["records"] == 0


def test_the_command_computes_and_merges_shards(backbone, fasta, tmp_path):
    saved = str(kft.backbones.save(backbone, tmp_path / "backbone"))
    out = str(tmp_path / "out")

    def shell(*arguments, status=0):
        done = CliRunner().invoke(app, ["embed", *map(str, arguments)])
        assert done.exit_code == status, done.output
        return done

    for shard in ("1/2", "2/2"):
        done = shell(fasta, out, "--backbone", saved, "--shard", shard)
        assert f"shard_{shard[0]}_of_2.h5" in done.stdout
    assert "embeddings.h5" in shell("--merge", out).stdout
    done = shell("--merge", out, tmp_path / "all.npz", "--json")
    assert json.loads(done.stdout) == {"written": str(tmp_path / "all.npz")}
    assert len(kft.load_embeddings(tmp_path / "all.npz").names) == 8
    for shard in ("0/2", "3/2", "x"):
        said = shell(fasta, out, "--backbone", saved, "--shard", shard, status=1).stderr
        assert f"must be I/N with I from 1 to N, such as '3/64', received '{shard}'" in said
    shell("--merge", out, "--shard", "1/2", status=2)
    shell(fasta, out, status=2)  # no backbone

"""Similarity search: what is found, indexes that are kept, clusters and maps, bad input."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from models import esm2, in_turn, strings
from scipy.linalg import fractional_matrix_power

import kft
from kft.inference import records
from kft.inference.search import index as indexing
from kft.inference.search.building import ABOUT
from kft.inference.search.space import RIDGE, Moments, space_of

PROTEINS = strings([6, 9, 7, 9, 8, 6, 12, 7, 9, 10, 11, 5], "ACDEFGHIKLMNPQRSTVWY")
NAMES = [f"P{i}" for i in range(len(PROTEINS))]


@pytest.fixture(scope="module")
def small():
    return esm2()


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "database.fasta"
    path.write_text("".join(f">{n}\n{x}\n" for n, x in zip(NAMES, PROTEINS, strict=True)))
    return path


def in_space(vectors, database, transform):
    """Vectors of length 1 after the transform, from its equation."""
    if transform != "none":
        vectors = vectors - database.mean(0)
    if transform == "whitened":
        covariance = np.cov(database.T, bias=True)
        values, directions = np.linalg.eigh(covariance)
        covariance = (directions * np.maximum(values, 0)) @ directions.T
        ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        vectors = vectors @ fractional_matrix_power(covariance + ridge, -0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# What is found ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", in_turn(["none", "centered", "whitened"]))
def test_hits_are_those_of_largest_cosine(small, fasta, transform):
    queries = [PROTEINS[3], "MKTAYIAKQR"]
    index = kft.build_index(small, fasta, pooling="cls", layer=1, transform=transform)
    hits = kft.search(small, queries, index, k=4)
    database, mine = (
        kft.embed(small, x, "cls", layers=[1])[1].astype("float64") for x in (PROTEINS, queries)
    )
    cosines = in_space(mine, database, transform) @ in_space(database, database, transform).T
    best = np.argsort(-cosines, axis=1)[:, :4]
    assert hits.table.hit_record.tolist() == best.ravel().tolist()
    assert hits.table.hit.tolist() == [NAMES[i] for i in best.ravel()]
    expected = np.take_along_axis(cosines, best, 1).ravel()
    np.testing.assert_allclose(hits.table.similarity, expected, atol=1e-4)
    assert hits.table.same.tolist() == [True] + 7 * [False]
    assert hits.table["query"].tolist() == 4 * ["queries[0]"] + 4 * ["queries[1]"]
    assert hits.table["rank"].tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert hits.table.query_record.tolist() == 4 * [0] + 4 * [1]


@pytest.mark.once
def test_files_are_read_in_parts(small, fasta, monkeypatch, tmp_path):
    whole = kft.search(small, fasta, fasta, k=3)
    monkeypatch.setattr(records, "CHUNK", 5)
    index = kft.build_index(small, fasta, tmp_path / "index")
    parts = kft.search(small, fasta, index, k=3)
    pd.testing.assert_frame_equal(parts.table, whole.table, atol=1e-5)
    first = parts.table.drop_duplicates("query_record")
    assert first["query"].tolist() == first.hit.tolist() == NAMES
    assert parts.of("P7").hit.tolist() == parts.table.hit[21:24].tolist()
    with pytest.raises(ValueError, match="query must be one of P0, P1, .*received 'Q'"):
        parts.of("Q")
    assert len(str(parts).splitlines()) == 22 and str(parts).endswith("... 16 more hits")


@pytest.mark.once
def test_case_and_gaps_make_no_other_sequence(small):
    with pytest.warns(UserWarning, match="lower-case"):
        index = kft.build_index(small, ["MKTAY", "GSS", "mktay", "GSS"])
    assert index.duplicates()[["group", "record"]].values.tolist() == [
        [0, 0], [0, 2], [1, 1], [1, 3],
    ]  # fmt: skip


@pytest.mark.once
def test_invalid_records_are_left_out_if_that_is_asked_for(small):
    table = pd.DataFrame({"id": ["a", "b", "c"], "sequence": ["MKTAY", "MK1", "GSS"]})
    with pytest.raises(ValueError, match="row 1 has '1'"):
        kft.build_index(small, table)
    with pytest.warns(UserWarning, match="database: 1 invalid records were skipped"):
        index = kft.build_index(small, table, skip_invalid=True)
    assert index.names == ["a", "c"]
    with pytest.warns(UserWarning, match="queries: 1 invalid"):
        hits = kft.search(small, ["M1", "GSS"], index, k=1, skip_invalid=True)
    assert hits.table[["query", "hit", "same"]].values.tolist() == [["queries[1]", "c", True]]


@pytest.mark.once
def test_large_databases_are_whitened_unless_something_else_is_asked_for(small):
    # The width is 16: 32 records are enough.
    found = {n: kft.build_index(small, strings([6] * n)).about["transform"] for n in (31, 32)}
    assert found == {31: "centered", 32: "whitened"}


@pytest.mark.once
def test_moments_of_parts_are_those_of_the_whole():
    vectors = 1000 + np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    moments = Moments(4)
    for part in np.split(vectors, [1, 20]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, vectors.astype("float64").mean(0))
    expected = np.cov(vectors.T.astype("float64"), bias=True)
    np.testing.assert_allclose(moments.covariance, expected, atol=1e-10)


# The graph of neighbours --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 1, 16)) + 0.3 * rng.normal(size=(40, 50, 16))
    vectors = vectors.reshape(2000, 16).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index_of(vectors, graph=None):
    moments = Moments(vectors.shape[1])
    moments.add(vectors)
    names = [f"P{i}" for i in range(len(vectors))]
    digests = np.arange(len(vectors), dtype="uint64")
    return indexing.Index(names, vectors, digests, space_of(moments, "none"), {}, graph)


@pytest.mark.once
def test_the_graph_finds_nearly_all_of_the_nearest(clustered):
    exact = index_of(clustered)
    graph = index_of(clustered, indexing.graph_of(clustered))
    queries = clustered[::20]
    (right, _), (found, cosines) = exact.nearest(queries, 10), graph.nearest(queries, 10)
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(right, found, strict=True)])
    assert recall > 0.95
    expected = [queries[i] @ clustered[found[i]].T for i in range(len(queries))]
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    assert (np.diff(cosines) <= 0).all()


@pytest.mark.once
def test_the_graph_is_for_large_databases(small, tmp_path, monkeypatch):
    monkeypatch.setattr("kft.inference.search.building.EXACT_UP_TO", 11)
    index = kft.build_index(small, PROTEINS, tmp_path / "index")
    assert (tmp_path / "index" / "graph.usearch").exists()
    assert kft.build_index(small, PROTEINS[:11]).graph is None
    assert kft.build_index(small, PROTEINS, exact=True).graph is None
    exact = kft.search(small, PROTEINS, kft.build_index(small, PROTEINS, exact=True), k=3)
    pd.testing.assert_frame_equal(kft.search(small, PROTEINS, index, k=3).table, exact.table)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setitem(sys.modules, "usearch", None)
    with pytest.raises(ModuleNotFoundError, match=r"usearch: pip install .*or set exact=True"):
        kft.load_index(tmp_path / "index")


@pytest.mark.once
def test_an_interrupted_build_leaves_nothing_half_written(small, tmp_path, monkeypatch):
    def interrupt(vectors):
        raise KeyboardInterrupt

    out = tmp_path / "index"
    with monkeypatch.context() as patched:
        patched.setattr("kft.inference.search.building.graph_of", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kft.build_index(small, PROTEINS, out, exact=False)
    assert not out.exists() and all(x.name.startswith(".") for x in tmp_path.iterdir())
    assert len(kft.build_index(small, PROTEINS, out, exact=False)) == len(PROTEINS)
    assert [x.name for x in tmp_path.iterdir()] == ["index"]


# Indexes that are kept ----------------------------------------------------------------------------


@pytest.mark.once
def test_an_index_is_opened_again(small, fasta, tmp_path, monkeypatch):
    built = kft.build_index(small, fasta, tmp_path / "index", transform="whitened")
    monkeypatch.setattr("kft.inference.search.building.embedded", None)  # nothing is computed
    opened = kft.build_index(small, fasta, tmp_path / "index", transform="whitened")
    assert opened.names == NAMES and opened.about == built.about
    np.testing.assert_array_equal(opened.vectors, built.vectors)
    np.testing.assert_array_equal(opened.space.matrix, built.space.matrix)
    monkeypatch.undo()
    of_folder = kft.search(small, PROTEINS, str(tmp_path / "index"), k=2).table
    pd.testing.assert_frame_equal(of_folder, kft.search(small, PROTEINS, built, k=2).table)


@pytest.mark.once
def test_an_index_of_something_else_is_refused_by_name(small, fasta, tmp_path):
    out = tmp_path / "index"
    kft.build_index(small, fasta, out)
    other = esm2(seed=1)
    with pytest.raises(ValueError, match=r"backbone must be that of the index, esm2 \(weights"):
        kft.search(other, PROTEINS, out)
    with pytest.raises(ValueError, match=r"out is .*something else: its backbone is esm2 \(weigh"):
        kft.build_index(other, fasta, out)
    with pytest.raises(ValueError, match="its pooling is 'mean', received 'cls'. Give another"):
        kft.build_index(small, fasta, out, pooling="cls")
    fasta.write_text(fasta.read_text() + ">new\nMKTAY\n")
    with pytest.raises(ValueError, match=r"its database is database.fasta \(content \w+\), rec"):
        kft.build_index(small, fasta, out)


@pytest.mark.once
def test_a_damaged_index_is_refused_by_name(small, tmp_path):
    out = tmp_path / "index"
    kft.build_index(small, PROTEINS, out, exact=False)
    about = json.loads((out / ABOUT).read_text())
    assert sorted(about["files"]) == ["graph.usearch", "records.npz", "vectors.npy"]
    for name in about["files"]:
        content = (out / name).read_bytes()
        for damage in (content[:-1], content[:200] + b"x" + content[201:], b""):
            (out / name).write_bytes(damage)
            with pytest.raises(ValueError, match=f"damaged: {name} is missing or was changed"):
                kft.load_index(out)
        (out / name).write_bytes(content)
    (out / ABOUT).write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(ValueError, match="later version of kft, or damaged: its format is 99"):
        kft.load_index(out)
    for changed in ("files", "settings", "backbone", "database"):
        (out / ABOUT).write_text(json.dumps({**about, changed: 5}))
        with pytest.raises(ValueError, match=r"damaged"):
            kft.load_index(out)
    (out / ABOUT).write_text("{")
    with pytest.raises(ValueError, match="damaged: not JSON"):
        kft.load_index(out)
    with pytest.raises(ValueError, match="folder is .* no index of .* it has no index.json"):
        kft.load_index(tmp_path)
    with pytest.raises(ValueError, match="out is .* no index of .* it has no index.json"):
        kft.build_index(small, PROTEINS, tmp_path)
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        kft.load_index(tmp_path / "none")


# Clusters and maps --------------------------------------------------------------------------------


@pytest.mark.once
def test_clusters_are_those_that_similar_records_join():
    angles = np.radians([0, 20, 40, 120, 125, 250])  # neighbours of 20 degrees have a cosine of .94
    index = index_of(np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32"))
    table = index.clusters(least=0.93)
    assert table.cluster.tolist() == [0, 0, 0, 1, 1, 2]
    assert table["size"].tolist() == [3, 3, 3, 2, 2, 1]
    assert index.clusters(least=0.95).cluster.tolist() == [1, 2, 3, 0, 0, 4]
    with pytest.raises(ValueError, match="neighbours must be an integer of at least 1"):
        index.clusters(neighbours=0)


@pytest.mark.once
def test_a_map_shows_the_directions_of_largest_variance(clustered, monkeypatch):
    index = index_of(clustered)
    table = index.map()
    centred = clustered - clustered.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    expected = np.abs(centred @ directions[:2].T)
    np.testing.assert_allclose(np.abs(table[["x", "y"]]), expected, atol=1e-4)
    shares = lengths**2 / (lengths**2).sum()
    assert f"{shares[0]:.0%} and {shares[1]:.0%} of the variance" in table.attrs["method"]
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match='pip install umap-learn, or take method="pca"'):
        index.map("umap")
    with pytest.raises(ValueError, match="at least 3 records, and the index has 2"):
        index_of(clustered[:2]).map()


@pytest.mark.once
def test_the_figure_of_a_map_says_what_stands_out():
    rows = [("a", 0, 0, "u"), ("b", 0.1, 0, "u"), ("c", 1, 0, "v"), ("d", 1.05, 0, "u")]
    table = pd.DataFrame([*rows, ("$e", 9, 9, None)], columns=["name", "x", "y", "family"])
    table.attrs["method"] = "PCA"
    _, caption = kft.plots.plot_map(table, "family", "four proteins")
    assert "5 records of four proteins" in caption and "How: PCA." in caption
    assert "farthest from the others is $e" in caption
    # a and b are nearest to each other, c and d too; 3/4 and 1/4 of the four are u and v.
    assert "of 50% of the records" in caption and "chance it would be of 62%" in caption
    figure, caption = kft.plots.plot_map(table.iloc[:1])
    assert len(figure.axes[0].collections) == 1 and "same" not in caption
    for wrong, message in [
        (table.drop(columns="x"), "must have the column 'x'"),
        (table.iloc[:0], "table is empty"),
        (table.assign(x=np.nan), "not finite numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            kft.plots.plot_map(wrong)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_database_may_be_read_from_a_generator(small):
    found = kft.search(small, ["MKT"], (x for x in PROTEINS), k=2)
    pd.testing.assert_frame_equal(
        found.table, kft.search(small, ["MKT"], PROTEINS, k=2).table, check_dtype=False
    )


@pytest.mark.once
def test_weights_that_give_no_numbers_give_no_index(small):
    broken = esm2(seed=1)
    broken.stages[-1].gamma.assign(np.full(broken.width, np.nan, "float32"))
    with pytest.raises(ValueError, match="answers with NaN or infinity for 2 of 2 records"):
        kft.build_index(broken, ["MKT", "GSS"])


@pytest.mark.once
def test_a_small_database_gives_all_its_records(small):
    hits = kft.search(small, ["MKT"], ["GSS", "MKT", "WWP"])
    assert hits.table["rank"].tolist() == [1, 2, 3] and hits.table.hit[0] == "database[1]"


@pytest.mark.once
def test_errors_name_the_argument(small, tmp_path):
    for database, options, message in [
        ([], {}, "database is empty: give at least one input"),
        (["MKT", "GSS"], {"k": 3}, "k must be at most 2, the records of database, received 3"),
        (["MK1"], {"k": 1}, r"database\[0\] has '1' at position 3"),
        (PROTEINS, {"queries": []}, "queries is empty"),
        (PROTEINS, {"queries": ["MK1"]}, r"queries\[0\] has '1'"),
    ]:
        with pytest.raises(ValueError, match=message):
            kft.search(small, **{"queries": ["MKT"], "database": database, **options})
    with pytest.raises(ValueError, match=r"no input is valid; the first, database\[0\]"):
        kft.build_index(small, ["MK1", "123"], tmp_path / "index", skip_invalid=True)
    assert not (tmp_path / "index").exists()
    with pytest.raises(FileNotFoundError, match="database is 'none.fasta', which is not a file"):
        kft.search(small, ["MKT"], "none.fasta")
    empty = tmp_path / "empty.fasta"
    empty.write_text("")
    with pytest.raises(ValueError, match="empty"):
        kft.search(small, ["MKT"], empty)
    table = pd.DataFrame({"id": ["a", "a", "b"], "sequence": ["MKT", "GSS", "WWP"]})
    with pytest.warns(UserWarning, match=r"1 name of several records \(a\); hit_record"):
        assert kft.search(small, ["GSS"], table, k=1).table.hit_record.tolist() == [1]

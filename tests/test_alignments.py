"""Alignments: formats, errors, and the columns that change together."""

import numpy as np
import pytest

from kft.data import Alignment, read_alignment
from kft.structure import direct_couplings, mutual_information, sequence_weights, simulate_family

pytestmark = pytest.mark.once

ROWS = ("MKTAY-", "MRT-YW", "GKSAYW")


def write(folder, text, name="family.a3m"):
    path = folder / name
    path.write_text(text)
    return path


def test_a3m_leaves_insertions_out(tmp_path):
    text = "#A3M#\n>\nMKTAY\n>second one\nMRaaT-Y\n>\nGK.SAy\nY\n"
    family = read_alignment(write(tmp_path, text))
    assert family.names == ("sequence 1", "second", "sequence 3")
    assert family.rows == ("MKTAY", "MRT-Y", "GKSAY")
    assert (family.format, family.inserted, family.query) == ("a3m", 3, "MKTAY")


def test_stockholm_in_two_blocks(tmp_path):
    text = (
        "# STOCKHOLM 1.0\n#=GF ID test\nquery  MK.T\nother  mkaT\n#=GC SS HHHH\n\n"
        "query  AY\nother  -Y\n//\nignored\n"
    )
    family = read_alignment(write(tmp_path, text, "x.sto"))
    assert (family.rows, family.format) == (("MK-TAY", "MKAT-Y"), "stockholm")
    assert family.to_query().rows == ("MKTAY", "MKT-Y")
    assert family.to_query().inserted == 1


def test_aligned_fasta(tmp_path):
    family = read_alignment(write(tmp_path, ">a x\nMK-T\n>b\nM.KT\n", "x.fasta"))
    assert (family.rows, family.names, family.format) == (("MK-T", "M-KT"), ("a", "b"), "fasta")
    assert family.letters.tolist() == [[10, 8, 20, 16], [10, 20, 8, 16]]


def test_take_keeps_the_query():
    assert Alignment(("a", "b", "c"), ROWS).take([2, 0]).rows == (ROWS[0], ROWS[2])


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "x.a3m", "is empty"),
        ("MKT\n", "x.a3m", "line 1: expected '# STOCKHOLM' or a header"),
        (">a\n>b\nMKT\n", "x.a3m", "line 1: no sequence follows"),
        (">a\nMK-T\n>b\nMKAT\n", "x.a3m", "the query 'a' has 1 gap"),
        (">a\nMKT\n>b\nMKTA\n>c\nMK\n", "x.a3m", r"2 of 3 rows have another length: 'b' 4, 'c' 2"),
        (">a\nMKT\n>b\nM1T\n", "x.a3m", "sequence 'b', column 2: '1' is no residue"),
        ("# STOCKHOLM 1.0\na MKT\n", "x.sto", "the line // that ends"),
        ("# STOCKHOLM 1.0\na MKT x\n//\n", "x.sto", "line 2: expected a name and a row"),
        ("# STOCKHOLM 1.0\n//\n", "x.sto", "at least one sequence"),
        ("# STOCKHOLM 1.0\na MKT\nb MK\n//\n", "x.sto", "read as stockholm.*'b' 2"),
    ],
)
def test_files_that_are_no_alignment(tmp_path, text, name, message):
    with pytest.raises(ValueError, match=message):
        read_alignment(write(tmp_path, text, name))


def test_format_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="format must be one of a3m, stockholm, fasta"):
        read_alignment(write(tmp_path, ">a\nMKT\n"), format="clustal")


def drawn(seed, sequences=30, columns=5):
    letters = np.random.default_rng(seed).choice(list("ACD-"), (sequences, columns))
    letters[0] = list("ACDAC")
    return Alignment(tuple(map(str, range(sequences))), tuple(map("".join, letters)))


def frequencies(family, pseudocount):
    """Weights and weighted frequencies by loops over sequences, from the equations."""
    rows, alphabet = family.rows, "ACDEFGHIKLMNPQRSTVWY-"
    columns, count = len(rows[0]), len(alphabet)
    weights = []
    for row in rows:
        equal = [sum(a == b for a, b in zip(row, other, strict=True)) for other in rows]
        weights.append(1 / sum(n >= 0.8 * columns for n in equal))
    single, pairs = np.zeros((columns, count)), np.zeros((columns, columns, count, count))
    for row, weight in zip(rows, weights, strict=True):
        for i in range(columns):
            a = alphabet.index(row[i])
            single[i, a] += weight / sum(weights)
            for j in range(columns):
                pairs[i, j, a, alphabet.index(row[j])] += weight / sum(weights)
    single = (1 - pseudocount) * single + pseudocount / count
    pairs = (1 - pseudocount) * pairs + pseudocount / count**2
    for i in range(columns):
        pairs[i, i] = np.diag(single[i])
    return np.array(weights), single, pairs


def test_weights_and_mutual_information_follow_their_equations():
    family = drawn(0)
    weights, single, pairs = frequencies(family, 0.0)
    np.testing.assert_allclose(sequence_weights(family), weights)
    values = mutual_information(family, corrected=False)
    for i, j in ((0, 1), (3, 2)):
        expected = 0.0
        for a, b in np.argwhere(pairs[i, j] > 0):
            together = pairs[i, j, a, b]
            expected += together * np.log(together / (single[i, a] * single[j, b]))
        np.testing.assert_allclose(values[i, j], expected, atol=1e-12)


def test_direct_couplings_follow_their_equations():
    family = drawn(1)
    _, single, pairs = frequencies(family, 0.5)
    columns, states = family.columns, 20
    covariance = np.zeros((columns * states, columns * states))
    for i in range(columns):
        for j in range(columns):
            block = pairs[i, j] - np.outer(single[i], single[j])
            covariance[i * states :, j * states :][:states, :states] = block[:states, :states]
    inverse = np.linalg.inv(covariance)
    raw = np.zeros((columns, columns))
    for i in range(columns):
        for j in range(columns):
            coupling = np.zeros((21, 21))
            coupling[:20, :20] = -inverse[i * 20 : i * 20 + 20, j * 20 : j * 20 + 20]
            coupling += -coupling.mean(0) - coupling.mean(1)[:, None] + coupling.mean()
            raw[i, j] = np.linalg.norm(coupling[:20, :20]) if i != j else 0.0
    np.testing.assert_allclose(direct_couplings(family, corrected=False), raw, rtol=1e-6)
    mean = raw.sum(1) / (columns - 1)
    corrected = raw - np.outer(mean, mean) / mean.mean()
    np.fill_diagonal(corrected, 0.0)
    np.testing.assert_allclose(direct_couplings(family), corrected, rtol=1e-6, atol=1e-9)


def test_direct_couplings_find_planted_pairs_that_information_misses():
    family, couplings = simulate_family(sequences=1500, columns=30, coupled=45, strength=3, seed=1)
    first, second = np.triu_indices(30, 1)
    truth = couplings[first, second]

    def precision(values):
        return truth[np.argsort(-values[first, second])[: truth.sum()]].mean()

    direct, information = precision(direct_couplings(family)), precision(mutual_information(family))
    assert direct >= 0.9
    assert direct > information


def test_a_gapped_query_is_named():
    family = Alignment(("q", "b"), ("M-T", "MKT"))
    with pytest.raises(ValueError, match="the query 'q' has 1 gap.*to_query"):
        direct_couplings(family)
    with pytest.raises(ValueError, match="pseudocount must be above 0"):
        direct_couplings(family.to_query(), pseudocount=0)


def test_too_many_columns_for_the_memory_are_named():
    rows = ("A" * 60_000,) * 2
    with pytest.raises(MemoryError, match="direct couplings of 60,000 columns need"):
        direct_couplings(Alignment(("a", "b"), rows))

"""One normal form of a sequence: what is encoded, compared, split and stored."""

import warnings

import numpy as np
import pytest
from models import esm2, in_turn, strings

import kft
import kft.inference.records
from kft.data import Split, read_csv
from kft.data.sequences import SequenceWarning, normal
from kft.data.splits import cluster, cluster_split

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
PEPTIDES = strings([20] * 40, AMINO_ACIDS)
ALTERED = {
    "lower case": str.lower,
    "mixed case": lambda x: x[:7].lower() + x[7:],
    "a stop": lambda x: x + "*",
    "a stop after space": lambda x: f" {x} * ",
    "space": lambda x: f"\t{x} ",
}
every_alteration = pytest.mark.parametrize("kind", ALTERED)


@pytest.fixture
def write(tmp_path):
    def to(sequences, targets, name="mine.csv"):
        lines = [f"{x},{y}" for x, y in zip(sequences, targets, strict=True)]
        path = tmp_path / name
        path.write_text("\n".join(["sequence,y", *lines]) + "\n")
        return path

    return to


def texts(warned):
    return [str(one.message) for one in warned if one.category is SequenceWarning]


def homes(data):
    return {x: name for name, split in data.splits.items() for x in split.inputs}


# Compared and split -----------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("kind", ["gaps", *ALTERED])
def test_copies_are_found_and_stay_on_one_side(write, kind):
    alter = ALTERED.get(kind, lambda x: f"{x[:5]}--{x[5:9]}.-{x[9:]}")
    copies = [alter(x) for x in PEPTIDES]
    assert cluster(PEPTIDES + copies).tolist() == [*range(40)] * 2
    parts, _ = cluster_split(PEPTIDES + copies)
    assert all(
        {i % 40 for i in parts["test"]}.isdisjoint(i % 40 for i in parts[other])
        for other in ("train", "valid")
    )
    data = read_csv(write(PEPTIDES + copies, np.arange(80) / 8), split="cluster")
    part_of = {x.replace("-", "").replace(".", ""): set() for x in homes(data)}
    for x, part in homes(data).items():
        part_of[x.replace("-", "").replace(".", "")].add(part)
    assert len(part_of) == 40 and all(len(parts) == 1 for parts in part_of.values())
    assert any(note.startswith("40 records repeat the sequence") for note in data.notes)
    at_random = read_csv(write(PEPTIDES + copies, np.arange(80) / 8))
    assert any("test sequences are also in train or valid" in note for note in at_random.notes)


@pytest.mark.once
@every_alteration
def test_a_table_keeps_the_normal_form_and_says_so_once(write, kind):
    few = [ALTERED[kind](x) if i < 3 else x for i, x in enumerate(PEPTIDES)]
    data = read_csv(write(few, np.arange(40) / 8), split=None)
    assert data.train.inputs == PEPTIDES
    said = [note for note in data.notes if "of 40 sequences" in note]
    # a cell of a table is stripped as every reader of tables does
    assert len(said) == (kind != "space") and all(note.startswith("3 of 40") for note in said)


@pytest.mark.once
def test_conflicting_targets_of_one_sequence_are_reported(write):
    data = read_csv(
        write([*PEPTIDES, PEPTIDES[4].lower(), PEPTIDES[5]], [*range(40), 4, 7.5]), split=None
    )
    (note,) = (note for note in data.notes if "different values" in note)
    assert note.startswith("1 sequence in several lines") and "lines 7 and 43" in note
    words = ["toxic", "benign"] * 20
    data = read_csv(write([*PEPTIDES, PEPTIDES[1] + "*"], [*words, "toxic"]), split=None)
    assert any("1 sequence in" in note and "lines 3 and 42" in note for note in data.notes)


# Stored -----------------------------------------------------------------------------------------


@pytest.mark.once
@every_alteration
def test_a_split_keeps_the_normal_form(kind):
    altered = [ALTERED[kind](PEPTIDES[0]), PEPTIDES[1]]
    with pytest.warns(SequenceWarning, match="1 of 2 sequences"):
        split = Split(altered, [0, 1])
    assert split.inputs == PEPTIDES[:2]
    split.take([1, 0]).take([0])  # what was said is not said again
    kft.batches(split, esm2().encode)


@pytest.mark.once
def test_labels_of_a_stop_go_with_it(write):
    labels = ["HEC" * 6 + "HE"] * 20
    altered = [x + "*" * (i < 2) for i, x in enumerate(PEPTIDES[:20])]
    words = [y + "C" * (i < 2) for i, y in enumerate(labels)]
    data = read_csv(write(altered, words), task="residue_classification", split=None)
    assert [len(row) for row in data.train.targets] == [20] * 20
    with (
        pytest.warns(SequenceWarning),
        pytest.raises(ValueError, match="has 4 entries .* 3 residues;.*a stop"),
    ):
        Split(["MKT*"], [[0, 1, 2, 0]])


@pytest.mark.once
def test_baselines_see_one_form():
    """A lower-case test set was predicted as if it had other residues."""
    rng = np.random.default_rng(0)
    targets = np.array([x.count("A") for x in PEPTIDES]) + 0.01 * rng.standard_normal(40)
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    answers = []
    for alter in (str, str.lower):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SequenceWarning)
            test = Split([alter(x) for x in PEPTIDES[30:]], targets[30:])
        data = kft.data.Dataset(
            "toy", "regression", Split(PEPTIDES[:30], targets[:30]), None, test, **about
        )
        answers.append(kft.baselines.composition(data).predictions)
    np.testing.assert_array_equal(*answers)


# Encoded ----------------------------------------------------------------------------------------


@pytest.mark.once
def test_normal_form():
    assert normal(" mk<MASK>t*\n") == "MK<mask>T"
    assert normal("MK**") == "MK*" and normal("*") == ""
    assert normal("mkß") == "mkß"  # refused by the encoder at its place, not turned into MKSS


@pytest.mark.parametrize("kind", in_turn(ALTERED))
def test_encoded_and_embedded_alike(kind):
    backbone = esm2()
    altered = [ALTERED[kind](x) for x in PEPTIDES[:3]] + PEPTIDES[3:5]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tokens = backbone.encode(altered)["token_ids"]
    np.testing.assert_array_equal(tokens, backbone.encode(PEPTIDES[:5])["token_ids"])
    with pytest.warns(SequenceWarning) as said_of_embed:
        found = kft.embed(backbone, altered, batch_size=2)
    np.testing.assert_array_equal(found, kft.embed(backbone, PEPTIDES[:5], batch_size=2))
    (text,) = texts(said_of_embed)
    assert "3 of 5 sequences" in text
    # whoever encodes by hand knows the case, and in either it is the same protein
    assert texts(said) == ([] if "case" in kind else [text])


@pytest.mark.once
def test_embedding_a_file_says_it_once_for_all_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(kft.inference.records, "CHUNK", 2)
    path = tmp_path / "in.fasta"
    path.write_text("".join(f">p{i}\n{x.lower()}*\n" for i, x in enumerate(PEPTIDES[:5])))
    with pytest.warns(SequenceWarning) as said:
        kft.embed(esm2(), path)
    (text,) = texts(said)
    assert "5 of 5 sequences held lower-case" in text
    assert "5 of 5 sequences ended in a stop" in text


@pytest.mark.once
def test_a_corpus_is_said_once():
    with pytest.warns(SequenceWarning) as said:
        kft.pretraining.masked_batches(
            [x + "*" for x in PEPTIDES], esm2().encode, tokens=64, crop=32
        )
    (text,) = texts(said)
    assert "40 of 40 sequences ended" in text


@pytest.mark.once
def test_what_is_no_residue_is_named_at_its_place():
    encode = esm2().encode
    with pytest.raises(ValueError, match=r"'\*' at position 4"):
        encode(["  M*K*"])
    with pytest.raises(ValueError, match="'ß' at position 5"):
        encode([" mktß"])
    with pytest.raises(ValueError, match="'1' at position 9"):
        encode(["MK<mask>1"])
    for empty in ("*", " ", ""):
        with pytest.raises(ValueError, match=r"sequences\[0\] is empty"):
            encode([empty])


# DNA --------------------------------------------------------------------------------------------

GENES = strings([30] * 4, "ACGT")


@pytest.mark.once
def test_dna_is_warned_of_with_the_count(write, tmp_path):
    backbone = esm2()
    some = [GENES[0], GENES[1].lower(), *PEPTIDES]
    message = "2 of 42 sequences consist of A, C, G, T, U and N alone"
    with pytest.warns(SequenceWarning, match=message):
        data = read_csv(write(some, np.arange(42) / 8), split=None)
    assert any(message in note for note in data.notes)
    kft.batches(data.train, backbone.encode)  # it was said
    with pytest.warns(SequenceWarning, match=message):
        backbone.encode(some)
    with pytest.warns(SequenceWarning, match=message):
        kft.embed(backbone, some)
    with pytest.warns(SequenceWarning, match=message):
        kft.batches((some, np.arange(42.0)), backbone.encode)
    with pytest.warns(SequenceWarning, match=message):
        Split(some, np.arange(42.0))
    rna = [x.replace("T", "U") for x in GENES]
    with pytest.warns(SequenceWarning, match="4 of 4 sequences consist"):
        backbone.encode(rna)


@pytest.mark.once
def test_peptides_are_not_taken_for_dna():
    esm2().encode(["AAAAAAAA", "GAG", "NNNNNNNN", "ACGTACGTK"])
    for split in kft.data.load("amp").splits.values():
        assert not any(map(kft.data.sequences.is_dna, split.inputs))


# What is none -----------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    "call",
    [
        lambda: esm2().encode(None),
        lambda: esm2().encode([None]),
        lambda: esm2().encode(3),
        lambda: Split(None, [0]),
        lambda: Split([None], [0]),
        lambda: Split([float("nan")], [0]),
        lambda: Split("MKT", [0, 1, 2]),
        lambda: Split(["MKT"], None),
        lambda: cluster(None),
        lambda: cluster("MKT"),
        lambda: cluster(["MKT", None]),
        lambda: kft.data.splits.group_split(None),
        lambda: kft.data.splits.group_split(["a", None, "b", "c"]),
        lambda: read_csv(None),
        lambda: kft.data.read_fasta(None),
    ],
)
def test_none_is_refused_in_words(call):
    with pytest.raises(TypeError, match="must|is None|is nan"):
        call()


@pytest.mark.once
@pytest.mark.parametrize("name", ["inputs", "target"])
def test_no_column_is_refused_in_words(write, name):
    with pytest.raises(TypeError, match=f"`{name}` must be the name of a column, received None"):
        read_csv(write(PEPTIDES, range(40)), **{name: None})


# Variants of one protein ------------------------------------------------------------------------


@pytest.mark.once
def test_the_note_on_copies_advises_what_can_be_done(write):
    """A library of point mutants forms one cluster: split='cluster' fails on it."""
    rng = np.random.default_rng(0)
    founder = strings([60], AMINO_ACIDS)[0]
    library = []
    for i in rng.integers(60, size=200):
        library.append(founder[:i] + AMINO_ACIDS[rng.integers(20)] + founder[i + 1 :])
    path = write(library, np.arange(200) / 8)
    (note,) = (note for note in read_csv(path).notes if "test sequences are also" in note)
    assert "by position" in note and "split='random'" in note and "cannot separate them" in note
    with pytest.raises(ValueError, match="form 1 cluster of near copies.* by position .*random"):
        read_csv(path, split="cluster")
    unlike = read_csv(write(PEPTIDES * 2, np.arange(80) / 8))
    (note,) = (note for note in unlike.notes if "test sequences are also" in note)
    assert note.endswith("split='cluster' keeps them apart.")

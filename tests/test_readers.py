"""Readers of the user's own files: what they accept, and which line they blame."""

import gzip
import hashlib
import itertools

import numpy as np
import pytest

from kft.data import Record, read_csv, read_fasta

pytestmark = pytest.mark.once

HEADER = "sequence,y\n"


@pytest.fixture
def write(tmp_path):
    def to(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to


def peptides(n, seed=0):
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list("ACDEFGHIKLMNPQRSTVWY"), 20)) for _ in range(n)]


def table(*columns, header="sequence,y", sep=","):
    rows = [sep.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([header.replace(",", sep), *rows]) + "\n"


# ---- tables


def test_regression_at_random(write):
    sequences = peptides(50)
    path = write(table(sequences, [i / 4 for i in range(50)]))
    loaded = read_csv(path)
    assert loaded.task == "regression" and loaded.classes is None and loaded.name == "mine"
    assert [len(split) for split in loaded.splits.values()] == [40, 5, 5]
    truth = {sequence: i / 4 for i, sequence in enumerate(sequences)}
    for split in loaded.splits.values():
        assert split.targets.dtype == np.float64
        assert split.targets.tolist() == [truth[x] for x in split.inputs]
    assert loaded.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.notes == ("Split at random, seed 0.",)
    assert read_csv(path, seed=1).test.inputs != loaded.test.inputs


@pytest.mark.parametrize(
    ("words", "task", "classes"),
    [
        (["toxic", "benign"], None, ("benign", "toxic")),
        (["True", "False"], None, ("False", "True")),
        (["none", "some"], None, ("none", "some")),
        ([10, 9], "classification", ("9", "10")),
        (["1", "b"], "classification", ("1", "b")),
    ],
)
def test_classes(write, words, task, classes):
    loaded = read_csv(write(table(peptides(40), words * 20)), task=task)
    assert loaded.task == "classification" and loaded.classes == classes
    assert [np.bincount(split.targets).tolist() for split in loaded.splits.values()] == [
        [16, 16],
        [2, 2],
        [2, 2],
    ]
    first = loaded.classes.index(str(words[0]))
    assert loaded.train.targets[loaded.train.inputs.index(peptides(40)[0])] == first


def test_whole_numbers_are_a_regression_and_a_note_says_so(write):
    loaded = read_csv(write(table(peptides(40), [0, 1] * 20)))
    assert loaded.task == "regression"
    assert any("2 values" in n and "task='classification'" in n for n in loaded.notes)


def test_residue_classes(write):
    labels = ["CHE" * 6 + "CC" for _ in range(20)]
    loaded = read_csv(write(table(peptides(20), labels)), task="residue_classification")
    assert loaded.classes == ("C", "E", "H")
    assert loaded.train.targets[0][:3].tolist() == [0, 2, 1]
    labels[4] = labels[4][1:]
    with pytest.raises(ValueError, match="line 6: .*19 letters for 20 residues"):
        read_csv(write(table(peptides(20), labels)), task="residue_classification")


@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_separators_are_recognised(write, sep):
    path = write(table(peptides(20), np.arange(20) / 8, sep=sep))
    assert len(read_csv(path, split=None).train) == 20


def test_separator_by_argument(write):
    path = write(table(peptides(20), np.arange(20) / 8, sep="|"))
    with pytest.raises(
        ValueError, match=r"`inputs` is 'sequence', .*columns .*sequence\|y.*`sep=`"
    ):
        read_csv(path)
    assert len(read_csv(path, sep="|", split=None).train) == 20


def test_gzip_by_content_bom_windows_ends_blank_lines_and_spaces(write):
    text = "\ufeffid, seq ,value\r\n\r\na, MKT ,1.5\r\n,,\r\nb,GIG,2\r\n"
    plain = read_csv(write(text), inputs="seq", target="value", split=None)
    packed = write(gzip.compress(text.encode()), "no_suffix")
    assert plain.train.inputs == ["MKT", "GIG"] and plain.train.targets.tolist() == [1.5, 2.0]
    assert read_csv(packed, inputs="seq", target="value", split=None).train.inputs == ["MKT", "GIG"]


def test_without_split_everything_is_in_train(write):
    loaded = read_csv(write(HEADER + "MKT,1.5\nGIG,2.5\n"), split=None)
    assert loaded.train.inputs == ["MKT", "GIG"]
    assert loaded.valid is None and loaded.test is None and list(loaded.splits) == ["train"]


def test_split_by_column(write):
    marks = ["train", "Valid", "test", "val", "validation", "TRAIN"]
    path = write(table(peptides(6), [0.5] * 6, marks, header="sequence,y,fold"))
    loaded = read_csv(path, split="fold")
    order = peptides(6)
    assert loaded.train.inputs == [order[0], order[5]] and loaded.test.inputs == [order[2]]
    assert loaded.valid.inputs == [order[1], order[3], order[4]]


def test_split_by_cluster_keeps_copies_together(write):
    founders = peptides(40)
    copies = [x[:10] + "A" + x[11:] for x in founders]
    loaded = read_csv(write(table(founders + copies, np.arange(80) / 8)), split="cluster")
    for split in loaded.splits.values():
        held = set(split.inputs)
        assert all((a in held) == (b in held) for a, b in zip(founders, copies, strict=True))
        assert len(set(split.groups)) == len({x[:10] for x in held})


def test_groups_stay_together(write):
    groups = [f"family {i % 20}" for i in range(100)]
    path = write(table(peptides(100), np.arange(100) / 8, groups, header="sequence,y,family"))
    loaded = read_csv(path, groups="family")
    held = [set(split.groups) for split in loaded.splits.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == 20
    assert all(len(split) == 5 * len(set(split.groups)) for split in loaded.splits.values())


def test_repeats_are_kept_and_counted(write):
    sequences = peptides(30) + peptides(30)[:10] * 2
    loaded = read_csv(write(table(sequences, np.arange(50) / 8)))
    assert sum(map(len, loaded.splits.values())) == 50
    assert any(note.startswith("20 records repeat") for note in loaded.notes)
    known = {*loaded.train.inputs, *loaded.valid.inputs}
    leaked = sum(x in known for x in loaded.test.inputs)
    assert leaked and any(note.startswith(f"{leaked} test sequences") for note in loaded.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line should name the columns"),
        ("\n\n", "is empty"),
        (HEADER, "has a header but no records"),
        (HEADER + "MKT,1.5\n,2.5\n", "line 3: column 'sequence' is '', a missing value"),
        (HEADER + "MKT,1.5\n  ,2.5\n", "line 3: column 'sequence' is ''"),
        (HEADER + "MKT,1.5\nGIG,\n", "line 3: column 'y' is ''"),
        (HEADER + "MKT,NaN\nGIG,1\n", "line 2: column 'y' is 'NaN', a missing value"),
        (HEADER + "MKT,1\nGIG,N/A\n", "line 3: column 'y' is 'N/A'"),
        (HEADER + "MKT,1\nGIG,-inf\n", "line 3: column 'y' is '-inf', not a finite number"),
        (HEADER + "MKT,1\n\n\nGIG,high\n", "line 5: column 'y' is 'high', but other lines"),
        (HEADER + "MKT,high\nGIG,1\n", "line 2: column 'y' is 'high', but"),
        (HEADER + 'MKT,1\nGIG,"1,5"\n', "line 3: .*'1,5'.*decimals take a point"),
        (HEADER + "MKT,1\nGIG\n", "line 3: has 1 column, the header has 2"),
        (HEADER + "MKT,1\nGIG,1,5\n", "line 3: has 3 columns, the header has 2"),
        (HEADER + 'MKT,1\n"GIG,2\nAAA,3\n', "line 3: .*unclosed quote"),
        (HEADER + "MKT,a\nGIG,a\n", "holds only 'a'; a classification needs at least two"),
        ("sequence,sequence,y\nMKT,GIG,1\n", "'sequence', which is twice among the columns"),
        ("seq,value\nMKT,1\n", "`inputs` is 'sequence', which is not among .*: seq, value"),
        ("sequence,value\nMKT,1\n", "`target` is 'y', which is not among .*: sequence, value"),
    ],
)
def test_tables_that_are_wrong(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(text), split=None)


def test_lines_are_counted_as_an_editor_does(write):
    """A quoted cell with line ends inside takes as many lines as it shows."""
    text = 'sequence,y,comment\nMKT,1,"two\nlines"\nGIG,2,"three\r\nmore\r\nlines"\nAAA,bad,x\n'
    with pytest.raises(ValueError, match="line 7: column 'y' is 'bad'"):
        read_csv(write(text), split=None)
    with pytest.raises(ValueError, match="line 4: column 'y' is ''"):
        read_csv(write(text.replace("GIG,2", "GIG,")), split=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "fold"}, "line 4: column 'fold' is 'holdout'; expected train, valid or test"),
        ({"split": "part"}, "`split` must be 'random', 'cluster', None or a column .*family"),
        ({"split": "half"}, "'half' .* puts no record into valid; mark some lines 'valid'"),
        ({"split": "leaky", "groups": "family"}, "line 3: group 'b' is in valid here but in train"),
        ({"split": "cluster", "groups": "family"}, "`groups` is 'family' but `split` is 'cluster'"),
        ({"groups": "clan"}, "`groups` is 'clan', which is not among"),
        ({"task": "ranking"}, "`task` must be one of classification, multilabel, regression"),
        ({"task": "regression", "target": "family"}, "line 2: column 'family' is 'b', not a fin"),
        ({"fractions": (0.5, 0.5, 0.5)}, "`fractions` must be three positive numbers of sum 1"),
        ({}, "3 records are too few"),
    ],
)
def test_arguments_that_are_wrong(write, options, message):
    text = (
        "sequence,y,fold,half,leaky,family\n"
        "MKT,1,train,train,train,b\nGIG,2,test,test,valid,b\nAAA,3,holdout,test,test,c\n"
    )
    with pytest.raises(ValueError, match=message):
        read_csv(write(text), **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.encode() + b"MKT,1\nGIG\xff,2\n", "line 3: holds bytes that are not text"),
        ((HEADER + "MKT,1\n").encode("utf-16"), "line 1: holds bytes that are not text"),
        (gzip.compress(b"sequence,y\nMKT,1\n" * 99)[:-9], "damaged or ends early"),
        (b"\x1f\x8bnot gzip at all", "damaged or ends early"),
    ],
)
def test_tables_that_are_no_text(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(content))


@pytest.mark.parametrize("reader", [read_csv, read_fasta])
def test_no_such_file(tmp_path, reader):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"`path` is {path}, which is not a file"):
            reader(path)  # FASTA too: at once, not at the first record


# ---- FASTA


def test_fasta_records(write):
    text = ">sp|P1|A first one\nMKT\nAYI\n>b\nmkt*x\n"
    assert list(read_fasta(write(text))) == [
        Record("sp|P1|A first one", "MKTAYI"),
        Record("b", "mkt*x"),
    ]
    name, sequence = first = next(read_fasta(write(text)))
    assert (name, first.id, sequence) == ("sp|P1|A first one", "sp|P1|A", "MKTAYI")


def test_fasta_tolerates_what_programs_write(write):
    text = "\ufeff; comment\r\n\r\n>a\r\nMKT \r\n\r\n AYI\r\n; more\r\n>b\r\nG I G"
    expected = [("a", "MKTAYI"), ("b", "GIG")]
    assert list(read_fasta(write(text))) == expected
    assert list(read_fasta(write(text.replace("\r\n", "\r")))) == expected
    assert list(read_fasta(write(gzip.compress(text.encode()), "packed"))) == expected


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_fasta_streams(write, pack):
    """The first records arrive before the fault at the end is met."""
    text = "".join(f">{i}\n{'MKTAYI' * 20}\n" for i in range(20_000)) + ">last\n"
    records = read_fasta(write(pack(text.encode())))
    assert len(list(itertools.islice(records, 19_999))) == 19_999
    with pytest.raises(ValueError, match="line 40001: no sequence follows the header 'last'"):
        list(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no FASTA record"),
        (b"\n\n", "holds no FASTA record"),
        (b"\nMKT\n>a\nMKT\n", "line 2: expected a header that begins with '>', received 'MKT"),
        (b"sequence,y\nMKT,1\n", "line 1: expected a header"),
        (b">a\n\n>b\nMKT\n", "line 1: no sequence follows the header 'a'"),
        (b">a\nMKT\n>\nMKT\n", "line 3: the header is empty"),
        (b">a\nMKT\nA\xffY\n", "line 3: holds bytes that are not text"),
        (b">a\nMKT\n\0\1\2\n", "line 3: holds bytes that are not text"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: holds bytes that are not text"),
        (b"PK\x03\x04\x14\0\x06", "line 1: holds bytes that are not text"),
        (b"\x1f\x8bnot gzip at all", "after line 0: the compressed file is damaged"),
    ],
)
def test_fasta_that_is_wrong(write, content, message):
    with pytest.raises(ValueError, match=message):
        list(read_fasta(write(content)))


def test_fasta_truncated_gzip_names_the_last_good_line(write):
    draw = np.random.default_rng(0)  # random letters, as repeats would pack into one block
    text = "".join(f">{i}\n{''.join(draw.choice(list('ACDE'), 99))}\n" for i in range(5_000))
    packed = gzip.compress(text.encode())
    records = []
    with pytest.raises(ValueError, match=r"after line (\d+): .* ends early"):
        records.extend(read_fasta(write(packed[: len(packed) // 2])))
    assert 1_000 < len(records) < 4_000


def test_non_ascii_names_are_text(write):
    assert next(read_fasta(write(">Müller β-defensin\nGIG\n"))).name == "Müller β-defensin"

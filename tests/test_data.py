"""Data sets: the contract that each of them keeps, and the numbers that are known of them."""

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from contracts import check_data, check_loaded_twice

from kft import data
from kft.data import Dataset, Split
from kft.data.proteins import amp

pytestmark = pytest.mark.once

needs_flip = pytest.mark.skipif(
    not os.environ.get("KFT_DATA"), reason="KFT_DATA is unset: the FLIP files are not here"
)
VARIANTS = [
    pytest.param("amp", {}, id="amp"),
    pytest.param("amp", {"seed": 3}, id="amp-seed3"),
    pytest.param("gb1", {}, id="gb1", marks=needs_flip),
    pytest.param("gb1", {"split": "low_vs_high", "crop": True}, id="gb1-crop", marks=needs_flip),
    pytest.param("secondary_structure", {}, id="secondary_structure", marks=needs_flip),
]


@cache
def read(name, **options):
    """Read once for all tests that only look at it."""
    return data.load(name, **options)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_data_set_keeps_the_contract(name, options):
    loaded = read(name, **options)
    check_data(loaded, name)
    assert "doi" in loaded.citation


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_loading_twice_gives_the_same_data(name, options):
    check_loaded_twice(read(name, **options), **options)


# ---- amp


def rows_of_amp():
    """(peptide, label), read here once more and with other tools, as the truth to compare with."""
    file = resources.files("modlamp") / "data" / "AMPvsUniProt.csv"
    return [(p, int(label)) for p, label in list(csv.reader(file.read_text().splitlines()))[1:]]


def test_amp_holds_each_unambiguous_peptide_once_with_its_label():
    loaded = read("amp")
    labels = {}
    for peptide, label in rows_of_amp():
        labels.setdefault(peptide, set()).add(label)
    expected = {peptide: min(found) for peptide, found in labels.items() if len(found) == 1}
    found = {p: t for s in loaded.splits.values() for p, t in zip(s.inputs, s.targets, strict=True)}
    assert found == expected
    assert loaded.classes[found["GLWSKIKEVGKEAAKAAAKAAGKAALGAVSEAV"]] == "antimicrobial"
    content = (resources.files("modlamp") / "data" / "AMPvsUniProt.csv").read_bytes()
    assert loaded.checksum == hashlib.sha256(content).hexdigest()


def test_amp_numbers_and_what_its_notes_say():
    loaded = read("amp")
    assert [len(split) for split in loaded.splits.values()] == [3234, 462, 924]
    assert loaded.notes[0].startswith("558 of the 5,200 rows")
    assert loaded.notes[1].startswith("22 peptides carry both labels")
    assert all(abs(split.targets.mean() - 2540 / 4620) < 0.005 for split in loaded.splits.values())
    groups = [set(split.groups) for split in loaded.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 2224


def test_amp_notes_are_computed_from_the_file(monkeypatch):
    draw = np.random.default_rng(0)
    peptides = ["".join(draw.choice(list("ACDEFGHIKL"), 12)) for _ in range(64)]
    rows = [f"{p}, {i % 2}" for i, p in enumerate(peptides)] + [f"{peptides[0]}, 0"] * 3
    content = "\n".join(["67,1,UniProt,AMP", *rows, f"{peptides[1]}, 0"]).encode()
    monkeypatch.setattr(amp, "_read_modlamp", lambda: (content, "9.9"))
    loaded = data.load("amp")
    assert loaded.notes[0].startswith("4 of the 68 rows")
    assert loaded.notes[1].startswith("1 peptides carry both")
    assert all(peptides[1] not in split.inputs for split in loaded.splits.values())
    assert sum(map(len, loaded.splits.values())) == 63
    assert "modlamp 9.9" in loaded.source


def test_amp_says_what_to_do_without_modlamp_or_with_another_layout(monkeypatch):
    with pytest.raises(ValueError, match="UniProt,AMP.*Install modlamp 4"):
        amp._labels_by_peptide(b"sequence,label\nAAA,1")
    monkeypatch.setattr(amp.metadata, "version", raise_not_found)
    with pytest.raises(FileNotFoundError, match="pip install modlamp"):
        data.load("amp")


def raise_not_found(name):
    raise amp.metadata.PackageNotFoundError(name)


# ---- the FLIP benchmark


def flip_zip(name):
    return zipfile.ZipFile(Path(os.environ["KFT_DATA"]) / "flip" / name / "splits.zip")


@needs_flip
def test_gb1_numbers():
    loaded = read("gb1")
    assert [len(split) for split in loaded.splits.values()] == [2691, 299, 5743]
    assert {len(x) for split in loaded.splits.values() for x in split.inputs} == {265}
    assert loaded.variable_positions == (38, 39, 40, 53)  # V39, D40, G41, V54
    distances = [mutations(loaded, split) for split in loaded.splits.values()]
    assert max(distances[0]) == max(distances[1]) == 3 and set(distances[2]) == {4}


def mutations(loaded, split):
    positions = loaded.variable_positions
    return [sum(x[i] != a for i, a in zip(positions, "VDGV", strict=True)) for x in split.inputs]


@needs_flip
def test_gb1_targets_follow_their_sequences():
    loaded = read("gb1")
    with flip_zip("gb1").open("splits/three_vs_rest.csv") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file)))
    truth = {row["sequence"]: float(row["target"]) for row in rows}
    for split in loaded.splits.values():
        assert split.targets.tolist() == [truth[x] for x in split.inputs]
    validation = {row["sequence"] for row in rows if row["validation"] == "True"}
    assert set(loaded.valid.inputs) == validation


@needs_flip
def test_gb1_crop_keeps_the_domain_and_every_difference():
    whole, cropped = read("gb1"), data.load("gb1", crop=True)
    assert {len(x) for split in cropped.splits.values() for x in split.inputs} == {56}
    assert cropped.variable_positions == (38, 39, 40, 53)
    assert any("56 of 265" in note for note in cropped.notes)
    for long, short in zip(whole.splits.values(), cropped.splits.values(), strict=True):
        assert all(x in y for x, y in zip(short.inputs, long.inputs, strict=True))
        assert len(set(short.inputs)) == len(short)
        np.testing.assert_array_equal(long.targets, short.targets)
    wild_type = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
    assert cropped.train.targets[cropped.train.inputs.index(wild_type)] == 1.0


@needs_flip
def test_gb1_unknown_split_lists_the_published_ones():
    names = "low_vs_high, one_vs_rest, sampled, three_vs_rest, two_vs_rest"
    with pytest.raises(ValueError, match=f"one of {names}; received 'four_vs_rest'"):
        data.load("gb1", split="four_vs_rest")


@needs_flip
def test_secondary_structure_numbers_and_records():
    loaded = read("secondary_structure")
    assert [len(split) for split in loaded.splits.values()] == [9712, 1080, 364]
    assert loaded.classes == ("C", "E", "H")
    texts = [
        flip_zip("secondary_structure").read(f"splits/{name}.fasta").decode().split("\n")
        for name in ("sequences", "sampled", "mask")
    ]
    truth = {s: (t, m) for s, t, m in zip(*(text[1::2] for text in texts), strict=True)}
    for split in loaded.splits.values():
        for sequence, target, mask in zip(split.inputs, split.targets, split.masks, strict=True):
            labels, resolved = truth[sequence]
            assert "".join("CEH"[i] for i in target) == labels
            assert "".join("01"[i] for i in mask.astype(int)) == resolved
    unseen = 1 - np.mean([c == "1" for _, m in truth.values() for c in m])
    assert any(f"{unseen:.1%}" in note for note in loaded.notes)


# ---- finding a data set


def test_unknown_name_lists_the_valid_ones_and_guesses():
    with pytest.raises(ValueError, match=r"amp, cells, chains, .*; received 'gb2'.*'gb1'"):
        data.load("gb2")
    proteins = ("amp", "chains", "gb1", "secondary_structure")
    images = ("cells", "digits", "gravitational_waves")
    assert data.names() == sorted([*proteins, *images, "two_cities"])


def test_unknown_option_lists_the_valid_ones():
    with pytest.raises(TypeError, match=r"'amp' has no option 'crop'; .*fractions, seed"):
        data.load("amp", crop=True)
    with pytest.raises(TypeError, match="takes none"):
        data.load("secondary_structure", split="sampled")


def test_import_is_light():
    """Beside Keras, `import kft` loads nothing third-party, and data sets little."""
    code = (
        "import sys, keras; seen = set(sys.modules)\n"
        "def new():\n"
        "    names = {name.split('.')[0] for name in set(sys.modules) - seen}\n"
        "    seen.update(sys.modules)\n"
        "    print(*names)\n"
        "import kft; new()\n"
        "import kft.data; kft.data.load('amp'); new()\n"
        "import kft.backbones.vision; print('keras_hub' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root), "KERAS_BACKEND": "jax"}  # quicker than torch
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=True
    )
    *lines, keras_hub = run.stdout.splitlines()
    kft, with_data = (set(line.split()) - sys.stdlib_module_names for line in lines)
    assert keras_hub == "False"  # nor do vision backbones, before one is made
    assert kft == {"kft"}
    loaded = {name for name in with_data if "cython" not in name}  # numpy's own
    assert loaded <= {"kft", "modlamp", "numpy"}


# ---- the records


def test_split_takes_every_field_along():
    split = Split(["AC", "D"], [[0, 1], [2]], groups=["x", "y"], masks=[[1, 0], [1]])
    taken = split.take([1, 0, 1])
    assert taken.inputs == ["D", "AC", "D"]
    assert [t.tolist() for t in taken.targets] == [[2], [0, 1], [2]]
    assert taken.groups.tolist() == ["y", "x", "y"]
    assert [m.tolist() for m in taken.masks] == [[True], [True, False], [True]]
    assert len(split.take([])) == 0


def test_split_refuses_a_boolean_mask_as_positions():
    with pytest.raises(TypeError, match="flatnonzero"):
        Split(["A", "C"], [0, 1]).take([True, False])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": [1.0]}, "`targets` has 1 entries but `inputs` has 2"),
        ({"targets": [1.0, float("nan")]}, "`targets` of record 1 is nan"),
        ({"targets": [float("inf"), 1.0]}, "`targets` of record 0 is inf"),
        ({"targets": [1, None]}, "`targets` of record 1 is None"),
        ({"targets": np.array([[1.0, 2.0], [1.0, np.nan]])}, "`targets` of record 1"),
        ({"targets": [[0, 1], [1, 1]]}, "`targets` of record 1 has 2 entries .* has 3 residues"),
        ({"targets": [[0, 1], [1, 1, 0]], "masks": [[1, 1], [1]]}, "`masks` of record 1 has 1"),
        ({"targets": [0, 1], "groups": ["a"]}, "`groups` has 1 entries"),
        ({"targets": [0, 1], "masks": [[1, 1]]}, "`masks` has 1 entries"),
    ],
)
def test_split_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Split(["AC", "DEF"], **arguments)


def test_one_value_for_all_records_is_no_column():
    with pytest.raises(TypeError, match="`groups` must hold one entry per input, received 'a'"):
        Split(["AC", "DEF"], [0, 1], groups="a")
    assert repr(Split([], np.zeros(0))) == "Split(0 records)"


@pytest.mark.parametrize(
    ("task", "classes", "targets", "message"),
    [
        (
            "ranking",
            None,
            [0, 1],
            "one of classification, multilabel, regression, residue",
        ),
        ("classification", ("a", "b"), [0, 2], "targets from 0 to 2, but `classes` names 2"),
        ("classification", ("a", "b"), [-1, 1], "targets from -1 to 1"),
        ("classification", ("a", "b"), [0.0, 1.0], "needs integers"),
        ("classification", None, [0, 1], "name the classes"),
        ("regression", ("a", "b"), [0.0, 1.0], "leave `classes` out"),
        ("residue_classification", ("a", "b"), [0, 1], "one target per record"),
        ("classification", ("a", "b"), [[0], [1]], "one target per residue"),
    ],
)
def test_dataset_refuses(task, classes, targets, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(Split(["A", "C"], targets), task=task, classes=classes)


def make_dataset(train, **changes):
    fields = {"task": "classification", "classes": ("no", "yes"), "valid": None, "test": None}
    about = {"source": "typed in", "licence": "CC0", "citation": "", "checksum": "0" * 64}
    return Dataset(name="toy", train=train, **fields | about | changes)


def test_printing_is_a_short_summary():
    long = Split(["A" * 60] * 1000, [0, 1] * 500)
    text = str(make_dataset(long, notes=("Typed by hand.",)))
    assert len(text) < 400 and "A" * 60 not in text
    for part in ("toy", "classification", "1,000", "no, yes", "typed in", "CC0", "Typed by hand."):
        assert part in text
    assert repr(long) == "Split(1,000 records, input lengths 60 to 60)"

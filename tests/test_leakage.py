"""Near copies of test records in training, and what they add to a score."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from models import esm2
from PIL import Image

import kft
from kft.comparison import scoring
from kft.comparison.copies import Copies
from kft.comparison.folding import deal, joined_copies, merged
from kft.data import Dataset, Split
from kft.exploration import near_copies, similarity
from kft.exploration.similarity import align_pair

pytestmark = pytest.mark.once

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
ABOUT = {"source": "drawn", "licence": "none", "citation": "", "checksum": ""}


def protein(length, rng):
    return "".join(rng.choice(LETTERS, length))


def mutated(text, share, rng):
    letters = np.array(list(text))
    changed = rng.choice(len(letters), round(share * len(letters)), replace=False)
    letters[changed] = [rng.choice(LETTERS[letters[i] != LETTERS]) for i in changed]
    return "".join(letters)


class Nearest(keras.Model):
    """A model that has learnt the training peptides by heart."""

    def __init__(self, train):
        super().__init__()
        self.letters = np.array([list(x) for x in train.inputs])
        self.targets = train.targets

    def encode(self, sequences, max_length=None, pad_lengths=None, names=None):
        letters = np.array([list(x) for x in sequences])
        same = (letters[:, None] == self.letters).sum(axis=-1)  # (B, N)
        return {"class": self.targets[same.argmax(axis=1)].astype("float32")[:, None]}

    @staticmethod
    def predict_on_batch(inputs):
        return np.concatenate([1 - inputs["class"], inputs["class"]], axis=1)


def planted(seed=0, copies=60):
    """Peptides whose class is drawn at random, clean and with copies of test records in train."""
    rng = np.random.default_rng(seed)

    def part(count):
        return Split([protein(20, rng) for _ in range(count)], rng.integers(0, 2, count))

    train, valid, test = part(200), part(20), part(150)
    near = [mutated(x, 0.1, rng) for x in test.inputs[:copies]]
    leaking = Split(train.inputs + near, np.append(train.targets, test.targets[:copies]))
    task = {"task": "classification", "valid": valid, "test": test, "classes": ("no", "yes")}
    clean = Dataset("clean", train=train, **task, **ABOUT)
    return clean, replace(clean, name="leaking", train=leaking)


@pytest.fixture(scope="module")
def both():
    return planted()


# Finding them -------------------------------------------------------------------------------------


def test_similar_sequences_are_found_however_they_differ():
    rng = np.random.default_rng(0)
    train = [protein(int(n), rng) for n in rng.integers(40, 120, 60)]
    test = [protein(60, rng), mutated(train[7], 0.2, rng), train[3][:20] + train[3][24:],
            f"{train[11].lower()[:9]}--{train[11][9:]}*", train[5][4:]]  # fmt: skip
    found = near_copies(train, test)
    assert found["test"].tolist() == [1, 2, 3, 4]
    assert found["train"].tolist() == [7, 3, 11, 5]
    assert found["how"].tolist() == ["alignment", "alignment", "equal", "alignment"]
    assert found["identity"][0] == pytest.approx(0.8, abs=0.02) and found["identity"][2] == 1
    assert near_copies(train, test, identity=0.95)["test"].tolist() == [2, 3, 4]


def test_a_fragment_in_training_is_no_copy_of_a_whole_protein():
    rng = np.random.default_rng(0)
    whole = protein(100, rng)
    train = [protein(80, rng), whole[30:60]]
    assert not len(near_copies(train, [whole]))
    assert near_copies(train, [whole], coverage=0.25)["coverage"].tolist() == [0.3]
    assert near_copies([whole], [train[1]])["coverage"].tolist() == [1.0]


def test_in_many_sequences_few_words_are_enough(both, monkeypatch):
    """Of more words than are kept, the least of each stretch, which copies have in common."""
    rng = np.random.default_rng(0)
    train = [protein(150, rng) for _ in range(30)]
    test = [mutated(x, 0.03, rng) for x in train[:6]] + [protein(150, rng)]
    whole = near_copies(train, test)
    monkeypatch.setattr(similarity, "MOST_WORDS", 1500)  # of about 5,000
    few = near_copies(train, test)
    assert few["train"].tolist() == whole["train"].tolist() == [0, 1, 2, 3, 4, 5]
    found = set(zip(*similarity._words(train, np.array([len(x) for x in train])), strict=True))
    monkeypatch.undo()
    every = set(zip(*similarity._words(train, np.array([len(x) for x in train])), strict=True))
    assert found < every and len(found) <= 1500  # words of the sequence itself, and not too many


def test_sequences_shorter_than_a_word_have_no_copies():
    assert not len(similarity.similar_sequences(["MK", "MT"]))
    assert align_pair("", "MK") == (0.0, 0.0) and align_pair("MK", "MK") == (1.0, 1.0)


def test_the_nearest_of_a_family_is_named():
    rng = np.random.default_rng(0)
    parent = protein(200, rng)
    train = [protein(200, rng) for _ in range(20)]
    train += [mutated(parent, share, rng) for share in (0.25, 0.02, 0.15, 0.1, 0.2)]
    assert near_copies(train, [parent])["train"].tolist() == [21]


def test_the_band_of_an_alignment_holds_the_best_one(monkeypatch):
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(20):
        one = protein(int(rng.integers(30, 150)), rng)
        at, gap = int(rng.integers(5, 20)), int(rng.integers(0, 12))
        pairs.append((one, mutated(one[:at] + one[at + gap :], 0.1, rng) + protein(9, rng)))
    fast = [align_pair(*pair) for pair in pairs]
    monkeypatch.setattr(similarity, "_band", lambda one, other: None)
    assert fast == [align_pair(*pair) for pair in pairs]


def test_very_long_proteins_take_little_memory():
    rng = np.random.default_rng(0)
    titin = protein(20_000, rng)
    assert align_pair(titin, titin[500:]).identity == 1  # all cells would take gigabytes


def test_of_variants_positions_are_counted():
    rng = np.random.default_rng(0)
    parent = protein(50, rng)
    train = [parent, mutated(parent, 0.04, rng), mutated(parent, 0.06, rng)]
    test = [mutated(parent, 0.02, rng), mutated(parent, 0.08, rng), train[1]]
    found = near_copies(train, test)
    assert found[["test", "train", "how"]].values.tolist() == [
        [0, 0, "substitution"], [2, 1, "equal"],
    ]  # fmt: skip
    assert found["identity"][0] == pytest.approx(0.98)
    assert "variants of one protein" in found.attrs["note"]
    assert near_copies([protein(50, rng)], test).attrs["note"] == ""


def test_images_that_look_alike(tmp_path):
    rng = np.random.default_rng(0)
    images = [
        np.array(Image.fromarray(rng.integers(0, 200, (6, 6), "uint8")).resize((48, 48)))
        for _ in range(12)
    ]
    Image.fromarray(images[4]).save(tmp_path / "a.png")
    smaller = np.array(Image.fromarray(images[9]).resize((40, 40)))
    found = near_copies(images[:11], [images[11], tmp_path / "a.png", smaller + np.uint8(20)])
    assert found[["test", "train", "how"]].values.tolist() == [[1, 4, "equal"], [2, 9, "image"]]
    assert 0.99 < found["identity"][1] <= 1 and np.isnan(found["coverage"][1])


def test_groups_and_rows():
    rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    train = Split([*rows, {"a": 5.0, "b": 6.0}], [0.0, 1.0, 2.0], groups=["x", "y", "z"])
    test = Split([{"a": 7.0, "b": 8.0}, rows[1], rows[0] | {"b": 0.0}], [0.0, 1.0, 2.0],
                 groups=["z", "z", "new"])  # fmt: skip
    found = near_copies(train, test)
    assert found[["test", "train", "how"]].values.tolist() == [[0, 2, "group"], [1, 1, "equal"]]
    assert len(near_copies(train.inputs, test.inputs)) == 1
    assert not len(near_copies([np.array([1.0])], [np.array([1.0])]))  # one number is no record


def test_embeddings_find_what_alignment_does_not():
    rng = np.random.default_rng(0)
    train = [protein(12, rng) for _ in range(30)]
    test = [protein(12, rng), "".join(sorted(train[5]))]

    def composition(sequences):
        return np.array([[x.count(letter) for letter in LETTERS] for x in sequences])

    assert not len(near_copies(train, test))
    found = near_copies(train, test, embed=composition)
    assert found[["test", "train", "how"]].values.tolist() == [[1, 5, "embedding"]]
    near = near_copies(train, train[:3], embed=partial(kft.embed, esm2()))
    assert near["how"].tolist() == ["equal"] * 3
    with pytest.raises(ValueError, match=r"embed must return arrays \(N, D\).*received \(30,\)"):
        near_copies(train, test, embed=lambda x: np.zeros(len(x)))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"identity must be a number from 0 to 1, received 70"):
        near_copies(["MKT"], ["MKT"], identity=70)
    with pytest.raises(TypeError, match=r"inputs of one kind, received image and sequence"):
        near_copies(["MKT"], [np.zeros((8, 8))])
    assert not len(near_copies([], ["MKT"])) and not len(near_copies(["MKT"], []))


# Their price --------------------------------------------------------------------------------------


def test_without_copies_the_score_is_that_of_clean_data():
    """Ten draws, where intervals of 95% must hold the score of clean data nearly always."""
    all_hold, rest_hold, rest_hold_chance, prices = [], [], [], []
    for seed in range(10):
        clean, leaking = planted(seed)
        honest = kft.evaluate(Nearest(clean.train), clean, copies=False, resamples=300)["AUROC"]
        found = kft.evaluate(Nearest(leaking.train), leaking, resamples=300)
        rest = found.score_without_copies["AUROC"]
        all_hold.append(found["AUROC"].low < honest.value)
        rest_hold.append(rest.low < honest.value < rest.high)
        rest_hold_chance.append(rest.low < 0.5 < rest.high)
        prices.append(found.price_of_copies["AUROC"].low)
    assert sum(all_hold) == 0 and min(prices) > 0
    assert sum(rest_hold) >= 9 and sum(rest_hold_chance) >= 9


def test_the_price_is_paired_and_printed_where_there_are_copies(both):
    clean, leaking = both
    honest = kft.evaluate(Nearest(clean.train), clean)
    assert honest.score_without_copies is None and "\n" not in repr(honest)
    found = kft.evaluate(Nearest(leaking.train), leaking)
    rest, price = found.score_without_copies["AUROC"], found.price_of_copies["AUROC"]
    assert price.value == pytest.approx(found["AUROC"].value - rest.value)
    widths = [x.high - x.low for x in (found["AUROC"], rest, price)]
    assert 0 < widths[2] < 0.8 * np.hypot(*widths[:2])  # that of two independent scores
    assert repr(found).endswith(
        f"\nAUROC {rest} without the 60 of 150 test records that have a near copy in training; "
        f"the difference is {price}."
    )
    assert found.remark in str(found) and repr(found.scores) != repr(honest.scores)
    assert found.scores.price_of_copies == found.price_of_copies


def test_baselines_and_residues_are_scored_without_copies_too(both):
    _, leaking = both
    copies = Copies.of(leaking, "test")
    rows = scoring.baseline_rows(leaking, 200, copies=copies)
    rest = replace(leaking, test=leaking.test.take(np.flatnonzero(copies.kept)))
    for row, other in zip(rows, scoring.baseline_rows(rest, 200), strict=True):
        assert row.score_without_copies["accuracy"].value == pytest.approx(
            other.scores["accuracy"].value
        )
    rng = np.random.default_rng(0)
    chains = [protein(n, rng) for n in (5, 9, 4, 7, 6)]
    test = Split(
        chains,
        [rng.integers(0, 2, len(x)) for x in chains],
        masks=[rng.random(len(x)) < 0.8 for x in chains],
    )
    residues = Dataset("r", "residue_classification", test, None, test, classes="ab", **ABOUT)
    table = pd.DataFrame({"test": [1, 3]})
    predictions = [rng.dirichlet([1, 1], len(x)) for x in chains]
    scores, _ = scoring.scores_without(residues, [predictions], Copies(table, 5, "test"), 50)
    kept = [0, 2, 4]
    expected = scoring.scores_of(
        replace(residues, test=test.take(kept)), [[predictions[i] for i in kept]], 50
    )
    for name, score in expected.items():
        assert scores[name].value == pytest.approx(score.value)


def test_each_fold_is_scored_without_its_own_copies(both):
    parts = deal(both[1], 3)
    near = [Copies.of(part, "test") for part in parts]
    joined = joined_copies(near)
    assert joined.records == 430 and len(joined) == sum(map(len, near)) > 60  # of both of a pair
    assert joined.kept.tolist() == np.concatenate([one.kept for one in near]).tolist()
    assert "test records of all 3 folds" in joined.note and joined_copies([]).note == ""
    near[2] = None
    rows = [
        scoring.baseline_rows(*of, copies=own)
        for *of, own in zip(parts, [1] * 3, near, strict=True)
    ]
    for i, row in enumerate(merged(rows, parts)):
        for name, rest in row.score_without_copies.items():
            each = [fold[i].score_without_copies[name].value for fold in rows[:2]]
            assert rest.seeds.tolist() == pytest.approx([*each, row.scores[name].seeds[2]])
            price = row.price_of_copies[name].seeds
            assert price == pytest.approx(row.scores[name].seeds - rest.seeds, nan_ok=True)
        assert row.price_of_copies["accuracy"].seeds[2] == 0
    without = merged([rows[2]], parts[2:])
    assert not any(row.score_without_copies or row.price_of_copies for row in without)


def test_valid_records_count_as_training_and_train_has_no_copies(both):
    _, leaking = both
    swapped = replace(leaking, train=leaking.valid, valid=leaking.train)
    assert set(Copies.of(swapped, "test").table["split"]) == {"valid"}
    assert len(Copies.of(swapped, "test")) == len(Copies.of(leaking, "test")) == 60
    assert not len(Copies.of(swapped, "train"))


def test_copies_are_searched_once_and_can_be_given(both, monkeypatch):
    _, leaking = both
    model, data = Nearest(leaking.train), replace(leaking)
    first = kft.evaluate(model, data)

    def fail(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr("kft.comparison.copies.near_copies", fail)
    assert kft.evaluate(model, data).remark == first.remark
    fresh = replace(leaking)
    assert kft.evaluate(model, fresh, copies=False).score_without_copies is None
    given = kft.evaluate(model, fresh, copies=pd.DataFrame({"test": np.arange(10)}))
    assert "without the 10 of 150 test records" in given.remark
    everything = kft.evaluate(model, fresh, copies=pd.DataFrame({"test": np.arange(150)}))
    assert "AUROC undefined without the 150 of 150" in everything.remark
    for wrong in ({"test": [150]}, {"row": [1]}):
        with pytest.raises(ValueError, match=r"column test has positions from 0 to 149"):
            kft.evaluate(model, fresh, copies=pd.DataFrame(wrong))


def test_without_biotite_the_score_says_that_nothing_was_searched(both, monkeypatch):
    def missing():
        raise ImportError("aligning sequences needs biotite")

    monkeypatch.setattr(similarity, "_biotite", missing)
    found = kft.evaluate(Nearest(both[1].train), replace(both[1]))
    assert found.remark == "Near copies were not searched: aligning sequences needs biotite"


def test_a_comparison_prints_both_scores(both, tmp_path):
    clean, leaking = both
    options = {"epochs": 1, "resamples": 100, "controls": False, "out": tmp_path, "verbose": False}
    found = kft.compare(esm2(), leaking, ["linear_probe"], 1, **options)
    text, frame = str(found), found.to_frame()
    row = next(row for row in found.rows if row.name == "linear_probe")
    assert str(row.score_without_copies["AUROC"].interval()) in text
    assert "without copies" in text and "AUROC without copies low" in frame
    assert "the scores without the 60 of 150 test records that have a near copy" in text
    assert f"For {found.best.name} the difference is" in found.leakage
    assert "near copy" in (tmp_path / "leaking.json").read_text()
    plain = kft.compare(esm2(), leaking, ["linear_probe"], 1, **options, copies=False)
    for honest in (plain, replace(found, copies=Copies.of(clean, "test"))):
        assert honest.leakage == ""
    assert "copies" not in str(plain)

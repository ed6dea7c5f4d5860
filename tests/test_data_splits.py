"""Splits: every record once, near copies on one side, classes in balance, the seed in charge."""

import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from kft import data
from kft.data.splits import KMER, PARTS, SHARED, cluster, cluster_split, group_split, random_split

pytestmark = pytest.mark.once


def check_partition(parts, n):
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))


def families(count, size, seed=0):
    """Random peptides of 24 residues, each with mutants at one position."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    for _ in range(count):
        founder = rng.choice(letters, 24)
        for _ in range(size):
            mutant = founder.copy()
            mutant[rng.integers(24)] = rng.choice(letters)
            yield "".join(mutant)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_near_copies_cross_the_split_of_amp(seed):
    """All pairs, counted here as a product of sparse matrices, not as in the code."""
    loaded = data.load("amp", seed=seed)
    parts = list(loaded.splits.values())
    ours = {"analyzer": "char", "ngram_range": (KMER, KMER), "lowercase": False, "binary": True}
    count = CountVectorizer(**ours).fit([x for part in parts for x in part.inputs])
    for one, other in itertools.combinations(parts, 2):
        a, b = count.transform(one.inputs), count.transform(other.inputs)
        shared = (a @ b.T).tocoo()
        smaller = np.minimum(a.sum(axis=1)[shared.row], b.sum(axis=1)[shared.col])
        assert shared.nnz > 1000  # chance does share words: the comparison is alive
        assert (shared.data / np.asarray(smaller).ravel()).max() < SHARED


def test_cluster_finds_families_and_chains_but_not_strangers():
    sequences = list(families(30, 4))
    assert len(set(cluster(sequences).tolist())) == 30
    assert all(len(set(cluster(sequences)[i : i + 4].tolist())) == 1 for i in range(0, 120, 4))
    # ends share nothing, but each shares half of its words with the middle
    assert cluster(["ACDEFGHIKL", "FGHIKLMNPQ", "LMNPQRSTVW"], k=4, threshold=0.4).tolist() == [
        0
    ] * 2 + [1]
    assert cluster(["ACDEFGH", "DEFGHIKLM", "HIKLMNP"], k=3, threshold=0.4).tolist() == [0, 0, 0]


def test_a_fragment_clusters_with_its_precursor():
    precursor = next(families(1, 1))
    assert cluster([precursor * 4, precursor[5:15]]).tolist() == [0, 0]


def test_sequences_shorter_than_a_word_cluster_only_if_equal():
    assert cluster(["AC", "AC", "AD", ""]).tolist() == [0, 0, 1, 2]


def test_a_library_of_point_mutants_is_one_cluster_and_cannot_be_split():
    library = list(families(1, 300))
    assert set(cluster(library)) == {0}
    with pytest.raises(ValueError, match=r"300 sequences form 1 cluster .*by position"):
        cluster_split(library)


def test_cluster_split_keeps_families_together_and_classes_in_balance():
    sequences = list(families(100, 4))
    targets = np.repeat(np.arange(100) % 4 == 0, 4)  # a quarter of the families
    parts, groups = cluster_split(sequences, (0.7, 0.1, 0.2), seed=1, stratify=targets)
    check_partition(parts, 400)
    assert all(
        abs(len(part) - n) <= 4 for part, n in zip(parts.values(), (280, 40, 80), strict=True)
    )
    assert all(abs(targets[part].mean() - 0.25) <= 0.05 for part in parts.values())
    seen = [set(groups[part].tolist()) for part in parts.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_large_groups_go_to_the_largest_part_if_small_ones_can_fill_the_others():
    groups = [0] * 300 + [1] * 60 + list(range(2, 642))
    train, valid, test = group_split(groups, (0.7, 0.1, 0.2)).values()
    assert set(train) >= set(range(360))
    assert [len(train), len(valid), len(test)] == [700, 100, 200]


def test_large_groups_are_shared_out_if_there_are_no_small_ones():
    parts = group_split(np.repeat(np.arange(10), 20), (0.7, 0.1, 0.2))
    assert [len(part) for part in parts.values()] == [140, 20, 40]


def test_group_split_needs_enough_groups():
    with pytest.raises(ValueError, match="form 2 groups"):
        group_split(["a", "b", "a"])


@pytest.mark.parametrize(("n", "sizes"), [(100, [80, 10, 10]), (13, [10, 2, 1]), (10, [8, 1, 1])])
def test_random_split_sizes(n, sizes):
    parts = random_split(n)
    check_partition(parts, n)
    assert [len(part) for part in parts.values()] == sizes


def test_random_split_stratifies_classes_and_numbers():
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.repeat([0, 1], [950, 50]))
    numbers = rng.lognormal(size=1000)
    for part in random_split(1000, stratify=classes).values():
        assert abs(classes[part].mean() - 0.05) <= 0.01
    for part in random_split(1000, stratify=numbers).values():
        assert abs(np.median(numbers[part]) - np.median(numbers)) < 0.05


def test_random_split_is_random():
    """A split in file order would put the first 80% into train."""
    train = random_split(1000)["train"]
    assert 350 < (train < 500).sum() < 450


@pytest.mark.parametrize(
    "split",
    [
        lambda seed: random_split(200, seed=seed),
        lambda seed: random_split(200, seed=seed, stratify=np.arange(200) % 3),
        lambda seed: group_split(np.arange(200) // 2, seed=seed),
        lambda seed: cluster_split(list(families(50, 4)), seed=seed)[0],
    ],
)
def test_the_seed_decides_and_nothing_else(split):
    np.random.seed(1)
    first = split(seed=0)
    np.random.seed(2)
    again, other = split(seed=0), split(seed=1)
    assert all(np.array_equal(first[part], again[part]) for part in PARTS)
    assert not any(np.array_equal(first[part], other[part]) for part in PARTS)


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.1, -0.2, 0.1), (0.9, 0.1, 0), 1]
)
def test_wrong_fractions(fractions):
    with pytest.raises(ValueError, match="`fractions` must be three positive numbers of sum 1"):
        random_split(100, fractions)
    with pytest.raises(ValueError, match="`fractions`"):
        group_split(range(100), fractions)


def test_too_few_records():
    for n in (0, 2):
        with pytest.raises(ValueError, match=f"{n} records are too few"):
            random_split(n)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`stratify` has 2 entries for 30 records"):
        random_split(30, stratify=[0, 1])
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1, received 0"):
        cluster(["ACDE"], threshold=0)
    with pytest.raises(ValueError, match="k must be an integer of at least 1, received 0"):
        cluster(["ACDE"], k=0)
    for seed in (None, 1.5, True, -1):
        with pytest.raises(ValueError, match=f"seed must be an integer of at least 0, .* {seed}"):
            random_split(30, seed=seed)

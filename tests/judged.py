"""Simulated sets whose truth is known, to count how often what judges a model is wrong."""

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from kft.evaluation.calibration import judge_calibration
from kft.evaluation.conformal import fit_conformal
from kft.evaluation.crossvalidation import corrected_t_test
from kft.evaluation.groups import audit
from kft.evaluation.means import mean_interval, minus
from kft.evaluation.metrics import Scored
from kft.evaluation.transfer import judge_transfer

GROUPS = np.array(["white male", "white female", "non-white male", "non-white female"])
BIASED, BALANCED = (43, 6, 12, 1), (16, 15, 16, 15)  # the persons of Faces95; as many, balanced


# Coverage of 90%, as shares of the sets ---------------------------------------------------------


def coverage_of_means(sets, n=100, seed=0):
    """{kind of mean: share of the 90% intervals that hold the truth}."""
    rng = np.random.default_rng(seed)
    held = {}
    options = {"confidence": 0.9, "resamples": 300}
    for i in range(sets):
        common, rare, other = rng.random((3, n)) < [[0.8], [0.97], [0.6]]
        errors = np.abs(rng.standard_normal(n))
        clusters = np.arange(3 * n) // 3
        alike = rng.random(n)[clusters] + rng.random(3 * n)
        high, weights = rng.uniform(0.95, 0.99), rng.exponential(size=n)
        many, few = (mean_interval(x, seed=i, **options) for x in (common, other))
        for name, truth, found in (
            ("share 0.8", 0.8, many),
            ("share 0.97", 0.97, mean_interval(rare, seed=i, **options)),
            ("shares between 0.95 and 0.99", high, mean_interval(rng.random(n) < high, **options)),
            (
                "share 0.8, records with weights",
                0.8,
                mean_interval(common, weights=weights, **options),
            ),
            ("difference of shares", 0.2, minus(many, few)),
            ("MAE", np.sqrt(2 / np.pi), mean_interval(errors, seed=i, **options)),
            ("in clusters", 1.0, mean_interval(alike, clusters, seed=i, **options)),
        ):
            held[name] = held.get(name, 0) + (found.low <= truth <= found.high)
    return {name: count / sets for name, count in held.items()}


def conformal_coverage(sets, held_out=100, seed=0):
    """{kind: coverage of 90% sets and intervals}, over fresh records; in all and in each group.

    The groups differ: the second is noisier, which one threshold for both cannot know.
    """
    rng = np.random.default_rng(seed)
    covered = {}
    for _ in range(sets):
        groups = np.arange(2 * held_out) % 2
        noise = np.where(groups, 2.0, 1.0)
        logits = rng.standard_normal((2 * held_out, 3)) * 2 / noise[:, None]
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        classes = (chances.cumsum(axis=1) < rng.random((2 * held_out, 1))).sum(axis=1)
        numbers, predicted = noise * rng.standard_normal(2 * held_out), np.zeros(2 * held_out)
        old, new = np.arange(held_out), np.arange(held_out, 2 * held_out)
        for task, targets, given in (
            ("classification", classes, chances), ("regression", numbers, predicted),
        ):  # fmt: skip
            for by, names in (("one threshold", None), ("by group", groups)):
                part = (None, None) if names is None else (names[old], names[new])
                found = fit_conformal(task, targets[old], given[old], 0.9, part[0])
                hit = found.covers(targets[new], given[new], part[1])
                for group in (0, 1):
                    key = (task, by, f"group {group}")
                    covered.setdefault(key, []).append(hit[groups[new] == group].mean())
                covered.setdefault((task, by, "all"), []).append(hit.mean())
    return {key: float(np.mean(values)) for key, values in covered.items()}


# Levels: shares of sets without an effect in which a test at 5% finds one -----------------------


def level_of_audit(sets, cluster=1, effect=0.0, seed=0, weighted=False):
    """Three groups of 90, 24 and 6 records; with `effect` the last but one is predicted worse."""
    rng, found = np.random.default_rng(seed), 0
    by = np.repeat([0, 1, 2], [90, 24, 6])
    clusters = np.arange(120) // cluster if cluster > 1 else None
    for i in range(sets):
        shared = rng.standard_normal(120 // cluster).repeat(cluster) * (cluster > 1)
        worse = shared + rng.standard_normal(120) > 0.8 - effect * (by == 1)
        weights = rng.exponential(size=120) if weighted else None
        right = Scored(np.ones(120, int), np.where(worse, 0.1, 0.9), clusters, weights)
        found += audit("classification", right, by, resamples=199, seed=i).differs
    return found / sets


def level_of_transfer(sets, task="classification", shift=0.0, cluster=1, seed=0):
    """Share of sets in which fine-tuning is advised: 80 records of the source, 60 new ones.

    With `shift` the predictions of new records are worse.
    """
    rng, advised = np.random.default_rng(seed), 0
    for i in range(sets):
        parts = []
        for n, noise in ((80, 1.0), (60, 1.0 + shift)):
            groups = np.arange(n) // cluster
            shared = rng.standard_normal(n)[groups] * (cluster > 1)
            truth = rng.standard_normal(n)
            values = truth * 1.5 + noise * rng.standard_normal(n) + shared
            if task == "classification":
                truth, values = (truth > 0).astype(int), stats.norm.cdf(values)
            parts.append(Scored(truth, values, groups if cluster > 1 else None))
        constant = np.full(60, 0.5)
        verdict = judge_transfer(task, *parts, constant, resamples=199, seed=i)
        advised += not verdict.transferable
    return advised / sets


def level_of_calibration(sets, sharpness=1.0, n=200, seed=0, weighted=False):
    """Share of sets in which a model is called badly calibrated; it is so if not of sharpness 1."""
    rng, found = np.random.default_rng(seed), 0
    for i in range(sets):
        logits = 1.5 * rng.standard_normal(n)
        targets = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(int)
        stated = 1 / (1 + np.exp(-sharpness * logits))
        options = {"resamples": 199, "weights": rng.exponential(size=n) if weighted else None}
        p = judge_calibration("classification", targets, stated, seed=i, **options).p
        found += p <= 0.05
    return found / sets


def levels_of_cross_validation(sets, k=5, repeats=10, n=60, effect=0.0, seed=0):
    """Shares of sets in which the corrected and the naive t test find a difference.

    Two methods are compared: straight lines through one of two features, which are equally good
    unless there is an `effect`. All sets are computed at once.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2, sets, n))
    targets = features[0] * (1 + effect) + features[1] + rng.standard_normal((sets, n))
    differences = []
    for _ in range(repeats):
        places = rng.permuted(np.tile(np.arange(n) % k, (sets, 1)), axis=1)
        for fold in range(k):
            test = places == fold
            errors = [_error_of_line(x, targets, test) for x in features]
            differences.append(errors[0] - errors[1])
    differences = np.stack(differences, axis=1)  # (sets, k * repeats)
    corrected = np.mean([corrected_t_test(d, 1 / (k - 1)).p <= 0.05 for d in differences])
    naive = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05)
    return float(corrected), float(naive)


def _error_of_line(x, y, test):
    """Mean squared error on the test records of a line through the others, for each set."""
    train = ~test
    n = train.sum(axis=1, keepdims=True)
    mean_x, mean_y = ((v * train).sum(axis=1, keepdims=True) / n for v in (x, y))
    slope = (((x - mean_x) * (y - mean_y) * train).sum(axis=1, keepdims=True)) / (
        ((x - mean_x) ** 2 * train).sum(axis=1, keepdims=True)
    )
    squares = (y - mean_y - slope * (x - mean_x)) ** 2
    return (squares * test).sum(axis=1) / test.sum(axis=1)


# Groups -----------------------------------------------------------------------------------------


def faces(persons, seed, images=20, tested=60):
    """The audit of a classifier trained on 20 images of so many persons of each of the `GROUPS`.

    What tells the two classes apart is in part common to all persons and in part differs from
    group to group. It is tested on one image each of 60 other persons of each group.
    """
    rng = np.random.default_rng(seed)
    cues = np.eye(len(GROUPS), 12)
    common = np.eye(1, 12, 8)

    def draw(persons, images):
        by = np.repeat(np.arange(len(GROUPS)), persons)
        faces = 0.5 * rng.standard_normal((len(by), 12))
        by, faces = by.repeat(images), faces.repeat(images, axis=0)
        classes = rng.permuted(np.arange(len(by)) % 2)
        seen = (2 * classes - 1)[:, None] * (0.3 * common + 1.5 * cues[by])
        return by, classes, seen + faces + 0.8 * rng.standard_normal(faces.shape)

    _, classes, features = draw(persons, images)
    model = LogisticRegression().fit(features, classes)
    by, classes, features = draw([tested] * len(GROUPS), 1)
    scored = Scored(classes, model.predict_proba(features))
    return audit("classification", scored, GROUPS[by], resamples=500, seed=seed)

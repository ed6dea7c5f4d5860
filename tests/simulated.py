"""Data sets whose truth is known, to see how often an interval holds it and how often a test errs.

A record has a difficulty that all methods share; a method has an ability that differs from seed to
seed, and errors of its own on each record. All is normal, so that the expected score is known.
"""

import numpy as np
from scipy.stats import norm

from kft.evaluation.metrics import bootstrap
from kft.evaluation.significance import against_best, resampled


class World:
    """Test sets and methods of one kind.

    Args:
        task: "classification" (scored by AUROC) or "regression" (Spearman).
        records: N, test records.
        seeds: S, trainings per method.
        between: deviation of the ability from seed to seed.
        own: deviation of a seed's own errors on the records; what all share has 1.
        cluster: records per group; those of a group share their difficulty, and it is groups that
            are drawn.
    """

    def __init__(self, task, records=300, seeds=5, between=0.1, own=0.5, cluster=1):
        self.task, self.records, self.seeds = task, records, seeds
        self.between, self.own, self.cluster = between, own, cluster

    def truth(self, ability):
        """The expected score over seeds and test sets."""
        ability = ability + self.between * norm.ppf((np.arange(2000) + 0.5) / 2000)
        noise = np.sqrt(1 + self.own**2)
        if self.task == "classification":
            return norm.cdf(ability / (np.sqrt(2) * noise)).mean()
        pearson = ability / np.sqrt(ability**2 + noise**2)
        return (6 / np.pi * np.arcsin(pearson / 2)).mean()

    def draw(self, abilities, rng):
        """targets (N,), groups (N,), and for each method its (S, N) predictions."""
        groups = np.arange(self.records) // self.cluster
        shared = rng.standard_normal(groups.max() + 1)[groups]
        if self.task == "classification":
            targets = rng.integers(2, size=self.records)
        else:
            targets = rng.standard_normal(self.records)
        methods = []
        for ability in abilities:
            ability = ability + self.between * rng.standard_normal((self.seeds, 1))
            own = self.own * rng.standard_normal((self.seeds, self.records))
            values = ability * targets + shared + own
            methods.append(norm.cdf(values) if self.task == "classification" else values)
        return targets, groups, methods

    def scored(self, abilities, rng, resamples):
        """The headline metric of each method on one data set."""
        targets, groups, methods = self.draw(abilities, rng)
        seed = int(rng.integers(2**31))
        scores = [
            resampled(self.task, targets, values, resamples, seed, groups) for values in methods
        ]
        return [next(iter(score.values())) for score in scores]


def coverage(world, sets=300, confidence=0.9, ability=1.0, resamples=400, seed=0):
    """Share of the data sets whose interval holds the truth."""
    rng, truth = np.random.default_rng(seed), world.truth(ability)
    intervals = [
        world.scored([ability], rng, resamples)[0].interval(confidence) for _ in range(sets)
    ]
    return np.mean([low <= truth <= high for _, low, high in intervals])


def textbook_coverage(world, sets=300, confidence=0.9, ability=1.0, resamples=400, seed=0):
    """The same for the nested bootstrap, which draws the seeds with replacement too."""
    rng, truth, held = np.random.default_rng(seed), world.truth(ability), []
    for _ in range(sets):
        targets, groups, (values,) = world.draw([ability], rng)
        each = [bootstrap(world.task, targets, row, resamples, 0, groups)[1] for row in values]
        draws = np.stack([next(iter(row.values())) for row in each])  # (S, R)
        chosen = rng.integers(len(draws), size=draws.shape)
        draws = np.take_along_axis(draws, chosen, axis=0).mean(axis=0)
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        held.append(low <= truth <= high)
    return np.mean(held)


def rejections(world, methods=2, sets=300, level=0.05, ability=1.0, resamples=400, seed=0):
    """Of methods that are all equally good: how often a named pair, and any, is called unequal."""
    rng = np.random.default_rng(seed)
    named, any_at_all = [], []
    for _ in range(sets):
        scores = world.scored([ability] * methods, rng, resamples)
        named.append(min(row.p for row in against_best(scores[:2])) < level)
        any_at_all.append(min(row.corrected for row in against_best(scores)) < level)
    return np.mean(named), np.mean(any_at_all)


WORLDS = {
    "AUROC, 5 seeds": World("classification"),
    "AUROC, 3 seeds, unstable training": World("classification", seeds=3, between=0.3),
    "AUROC, 5 seeds, clusters of 4": World("classification", records=600, cluster=4),
    "Spearman, 5 seeds": World("regression"),
    "Spearman, 3 seeds, stable training": World("regression", seeds=3, between=0.02),
}

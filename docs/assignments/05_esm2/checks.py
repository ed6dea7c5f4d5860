"""Checks of assignment 5."""

import numpy as np
from scipy.stats import rankdata

import kft
from kft.comparison import Comparison
from kft.course import Wrong, caption_is_complete, equal_numbers, hidden, no_overlap

STRATEGIES = ("linear_probe", "lora")


def auroc(targets, scores):
    """The share of pairs of a 1 and a 0 in which the 1 has the higher score."""
    positive = np.asarray(targets) == 1
    ranks, n = rankdata(scores)[positive], positive.sum()
    return (ranks.sum() - n * (n + 1) / 2) / (n * (len(positive) - n))


def parts(work, data):
    """The parts of the submission's data set, checked to be a split of its table."""
    line = work.line_of("peptides")
    if not isinstance(work.peptides, kft.data.Dataset):
        raise Wrong("`peptides` must be a data set, as `kft.data.read_table` returns it.", line)
    if work.peptides.task != "classification":
        raise Wrong(
            f"`peptides` is read as a {work.peptides.task}: 0 and 1 are classes, so give `task`.",
            line,
        )
    splits = dict(work.peptides.splits)
    if set(splits) != {"train", "valid", "test"}:
        raise Wrong(f"`peptides` must have train, valid and test, received {list(splits)}.", line)
    return splits


def check_rows(work, data):
    line, splits = work.line_of("peptides"), parts(work, data)
    labels = dict(zip(data["table"].sequence, data["table"].antimicrobial, strict=True))
    rows = [row for x in splits.values() for row in zip(x.inputs, x.targets, strict=True)]
    if sorted(sequence for sequence, _ in rows) != sorted(labels):
        raise Wrong(f"`peptides` has {len(rows)} records, the table {len(labels)}: keep all.", line)
    if any(labels[sequence] != target for sequence, target in rows):
        raise Wrong("`peptides` has targets that are not those of the table.", line)
    for name, share in (("train", 0.6), ("valid", 0.15), ("test", 0.25)):
        found = len(splits[name]) / len(rows)
        if abs(found - share) > 0.06:
            raise Wrong(
                f"{name} has {found:.0%} of the records, and {share:.0%} are asked for.", line
            )


def check_copies(work, data):
    line, splits = work.line_of("peptides"), parts(work, data)
    for name in ("valid", "test"):
        no_overlap(splits["train"].inputs, splits[name].inputs, line)
        copies = [
            (one, other)
            for other in splits[name].inputs
            for one in splits["train"].inputs
            if work.module.near(one, other)
        ]
        if copies:
            one, other = copies[0]
            raise Wrong(
                f"{len(copies)} near copies of {name} records are in training, such as {one} of "
                f"{other}: split by clusters.",
                line,
            )


def check_experiment(work, data):
    line, result = work.line_of("result"), work.result
    if not isinstance(result, Comparison):
        raise Wrong("`result` must be what `kft.compare` returns.", line)
    if len(result.seeds) < 3:
        raise Wrong(f"`result` has {len(result.seeds)} seeds, which tell no spread: use 3.", line)
    rows = {row.name: row for row in result.rows}
    wanted = [*STRATEGIES, "from_scratch", "linear_probe, shuffled labels"]
    if missing := [name for name in wanted if name not in rows]:
        raise Wrong(f"`result` lacks {', '.join(missing)}.", line)
    for name in wanted:
        if rows[name].error:
            raise Wrong(f"{name} failed: {rows[name].error}", line)
        for predictions in rows[name].predictions:
            if np.shape(predictions) != (len(work.peptides.test), 2):
                raise Wrong(f"{name} does not predict the test records of `peptides`.", line)


@hidden
def check_again(work, data):
    """The cheapest strategy, run again on the same split, scores the same."""
    again = kft.compare(
        kft.load("kft_esm2_tiny"), work.peptides, ["linear_probe"], seeds=[0], controls=False,
        out="again", verbose=False,
    )  # fmt: skip
    for row, other in ((x, y) for x in again.rows for y in work.result.rows if x.name == y.name):
        one, two = (auroc(work.peptides.test.targets, x.predictions[0][:, 1]) for x in (row, other))
        if abs(one - two) > 0.02:
            raise Wrong(
                f"{row.name} has AUROC {two:.3f} in `result`, and {one:.3f} if it is run again on "
                f"`peptides`.",
                work.line_of("result"),
            )


def check_aurocs(work, data, rng):
    line, targets = work.line_of("aurocs"), rng.permutation(np.arange(40) % 2)
    scores = rng.normal(size=(3, 40)) + 0.7 * targets
    probabilities = [np.stack([1 - p, p], axis=1) for p in 1 / (1 + np.exp(-scores))]
    row = next(iter(work.result.rows))
    row = type(row)(name="drawn", kind="strategy", predictions=probabilities)
    found = np.asarray(work.aurocs(row, targets), "float64")
    right = np.array([auroc(targets, p[:, 1]) for p in probabilities])
    if found.shape == right.shape and np.allclose(found, 1 - right, atol=1e-6):
        raise Wrong("`aurocs` takes the probability of class 0: class 1 is asked for.", line)
    equal_numbers("aurocs", found, right, 1e-6, line, "the AUROC of each seed")


def check_difference(work, data, rng):
    line, n = work.line_of("difference"), 120
    targets = rng.permutation(np.arange(n) % 2)
    one = rng.normal(size=n) + targets
    other = one + 0.3 * rng.normal(size=n)  # alike: paired records have a small error
    gain, error = work.difference(targets, one, other, np.random.default_rng(1), 400)
    equal_numbers("the difference", gain, auroc(targets, one) - auroc(targets, other), 1e-6, line,
                  "the AUROC of `one` minus that of `other`")  # fmt: skip
    paired, apart = spread(targets, one, other, rng)
    if not 0.75 * paired < error < 1.3 * paired:
        known = 0.75 * apart < error < 1.3 * apart
        why = "draw the same records for both" if known else "take the deviation of the differences"
        raise Wrong(
            f"the standard error is {error:.3g}, and should be about {paired:.3g}: {why}.", line
        )


def spread(targets, one, other, rng, draws=400):
    """Deviations of the difference with the same records drawn for both, and with others."""
    n, found = len(targets), []
    for _ in range(draws):
        drawn, others = rng.integers(0, n, (2, n))
        first = auroc(targets[drawn], one[drawn])
        found.append([first - auroc(targets[i], other[i]) for i in (drawn, others)])
    return np.std(found, axis=0)


def score_of(work, name):
    row = next((row for row in work.result.rows if row.name == name), None)
    if row is None:
        raise Wrong(f"{name!r} is no method of `result`.", work.line_of("choice"))
    return float(np.mean([auroc(work.peptides.test.targets, p[:, 1]) for p in row.predictions]))


def check_gain(work, data):
    best = max(STRATEGIES, key=lambda name: score_of(work, name))
    if abs(score_of(work, best) - score_of(work, work.best)) > 1e-9:
        raise Wrong(f"`best` is {work.best!r}, and {best!r} scores higher.", work.line_of("best"))
    one, other = (
        np.mean([p[:, 1] for p in row.predictions], axis=0)
        for name in (work.best, "from_scratch")
        for row in work.result.rows
        if row.name == name
    )
    targets = np.asarray(work.peptides.test.targets)
    right = auroc(targets, one) - auroc(targets, other)
    line = work.line_of("gain")
    if abs(float(work.gain) - right) > 1e-6:
        raise Wrong(
            f"`gain` is {work.gain:.4f}: {work.best} minus from_scratch is {right:.4f}.", line
        )
    error = spread(targets, one, other, np.random.default_rng(0))[0]
    if not 0.75 * error < work.standard_error < 1.3 * error:
        raise Wrong(
            f"`standard_error` is {work.standard_error:.3g}, and should be about {error:.3g}.", line
        )


def check_shares(work, data):
    line = work.line_of("shares")
    if not isinstance(work.shares, dict) or set(work.shares) != set(STRATEGIES):
        raise Wrong(f"`shares` must be a dict with {', '.join(STRATEGIES)}.", line)
    for row in work.result.rows:
        if row.name in STRATEGIES:
            equal_numbers(f"shares[{row.name!r}]", work.shares[row.name],
                          row.trainable / row.parameters, 1e-3, line,
                          "the trained parameters over all parameters")  # fmt: skip


def check_choice(work, data):
    right = work.result.recommended.name
    if work.choice != right:
        raise Wrong(
            f"`choice` is {work.choice!r}: the cheapest within one standard error of the best is "
            f"{right!r}.",
            work.line_of("choice"),
        )
    line, best = work.line_of("reason"), work.result.best
    if not isinstance(work.reason, str) or len(work.reason.split()) < 15:
        raise Wrong("`reason` must be two or three sentences.", line)
    numbers = {
        "the score of your choice": work.result.interval(work.result.recommended).value,
        "the highest score": work.result.interval(best).value,
    }
    text = f"What: which method to use. How: by its score and cost. Wow: {work.reason}"
    caption_is_complete(text, numbers, line)


def check_caption(work, data):
    numbers = {
        "the number of training peptides": len(work.peptides.train),
        "the number of test peptides": len(work.peptides.test),
        "the mean AUROC of the best strategy": score_of(work, work.best),
        "the gain over random weights": float(work.gain),
        "its standard error": float(work.standard_error),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))

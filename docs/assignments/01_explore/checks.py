"""Checks of assignment 1."""

import numpy as np

from kft.course import Wrong, caption_is_complete, equal_numbers, hidden, no_overlap, no_value

MISSING = -999
KEYS = ["train_x", "train_y", "test_x", "test_y", "scaler"]


def features(work, table):
    return table.drop(columns=["soluble", "split", work.module.leak_of(table)])


def distinct(table):
    return table.drop(columns="split").drop_duplicates()


def check_missing(work, data):
    counts = (data["table"] == MISSING).sum()
    counts = counts[counts > 0]
    line = work.line_of("missing")
    if not isinstance(work.missing, dict) or set(work.missing) != set(counts.index):
        raise Wrong(
            f"`missing` must be a dict with the {len(counts)} columns of your table that hold "
            f"{MISSING}, received {work.missing!r}.",
            line,
        )
    for name, count in counts.items():
        equal_numbers(f"missing[{name!r}]", work.missing[name], count, line=line)


def check_copies(work, data):
    expected = len(data["table"]) - len(distinct(data["table"]))
    equal_numbers(
        "copies", work.copies, expected, line=work.line_of("copies"),
        why="the number of rows that repeat an earlier one in all columns but `split`",
    )  # fmt: skip


def check_imbalance(work, data):
    share = data["table"].soluble.mean()
    without_copies = distinct(data["table"]).soluble.mean()
    if not np.isclose(float(work.share), without_copies, atol=0.002):
        equal_numbers(
            "share", work.share, share, 0.005, work.line_of("share"), "that of your table"
        )
    expected = max(float(work.share), 1 - float(work.share))
    equal_numbers("majority", work.majority, expected, 1e-3, work.line_of("majority"))


def check_leak(work, data):
    if work.leak != work.module.leak_of(data["table"]):
        raise Wrong(
            f"`leak` is {work.leak!r}, which is known before the measurement: look for a column "
            f"that separates the two classes nearly by itself.",
            work.line_of("leak"),
        )


def prepared(work, table):
    """What `prepare` gives; the student's own choice of `leak` has a line of its own."""
    line = work.line_of("prepare")
    before = table.copy()
    found = work.prepare(table, work.module.leak_of(table))
    if not table.equals(before):
        raise Wrong("`prepare` changes the table that it gets: work on a copy.", line)
    if not isinstance(found, dict) or not set(KEYS) <= set(found):
        raise Wrong(f"`prepare` must return a dict with {', '.join(KEYS)}.", line)
    columns = features(work, table).shape[1]
    for part in ("train", "test"):
        x, y = np.asarray(found[f"{part}_x"], "float64"), np.asarray(found[f"{part}_y"])
        if x.ndim != 2 or x.shape[1] != columns or len(x) != len(y) or not len(x):
            raise Wrong(
                f"`{part}_x` must have shape (records, {columns}) with a record for each of "
                f"`{part}_y`, received {x.shape}: all measured columns without `soluble`, `split` "
                f"and the leak.",
                line,
            )
        if not np.isfinite(x).all():
            raise Wrong(f"`{part}_x` holds values that are no finite numbers.", line)
        found[f"{part}_x"] = x
    return found


def unscaled(found, part, line):
    try:
        return found[f"{part}_x"] * found["scaler"].scale_ + found["scaler"].mean_
    except AttributeError:
        raise Wrong("`scaler` must be a StandardScaler that was fitted.", line) from None


def codes_are_gone(work, table):
    found, line = prepared(work, table), work.line_of("prepare")
    measured = features(work, table)
    measured = measured.mask(measured == MISSING)
    for part in ("train", "test"):
        values = unscaled(found, part, line)
        no_value(np.round(values, 6), MISSING, line)
        low, high = measured.min().to_numpy(), measured.max().to_numpy()
        if (values < low - 1e-3).any() or (values > high + 1e-3).any():
            raise Wrong(
                f"`{part}_x`, scaled back, has values outside of what was measured: replace "
                f"{MISSING} before you scale, and scale each part once.",
                line,
            )


def parts_are_separate(work, table):
    found, line = prepared(work, table), work.line_of("prepare")
    train, test = np.round(found["train_x"], 6), np.round(found["test_x"], 6)
    no_overlap(train, test, line)
    records, expected = len(train) + len(test), len(distinct(table))
    if records != expected:
        word = "more" if records > expected else "less"
        raise Wrong(
            f"`prepare` keeps {records} records, {word} than the {expected} different ones: keep "
            f"each once, also those with values {MISSING}.",
            line,
        )
    share = len(test) / records
    if not 0.15 < share < 0.4:
        raise Wrong(f"{share:.0%} of the records are for the test: use the column `split`.", line)


def scaler_is_of_training(work, table):
    found, line = prepared(work, table), work.line_of("prepare")
    unscaled(found, "train", line)
    both = np.concatenate([found["train_x"], found["test_x"]])
    train = found["train_x"]
    if np.abs(train.mean(0)).max() > 1e-6 or np.abs(train.std(0) - 1).max() > 1e-6:
        # With copies in it the mean of all is not exactly 0, but nearer than that of training.
        everything = np.abs(both.mean(0)).mean() < np.abs(train.mean(0)).mean()
        reason = "it was fitted on all records" if everything else "it saw other records"
        raise Wrong(
            f"scaled training records must have mean 0 and standard deviation 1, and have not: "
            f"{reason}. Fit the scaler on the training records that you keep, alone.",
            line,
        )
    measured = features(work, table)
    values = unscaled(found, "test", line)
    for i, name in enumerate(measured):
        known = np.unique(measured[name].round(3))
        near = known[np.searchsorted(known, values[:, i].round(3)).clip(0, len(known) - 1)]
        if np.mean(np.abs(near - values[:, i]) < 2e-3) < 0.8:
            raise Wrong(
                f"`test_x`, scaled back by the scaler, is not what was measured in {name!r}: scale "
                f"the test records with the scaler of training.",
                line,
            )


def check_codes(work, data):
    codes_are_gone(work, data["table"].copy())


def check_separate(work, data):
    parts_are_separate(work, data["table"].copy())


def check_scaler(work, data):
    scaler_is_of_training(work, data["table"].copy())


@hidden
def check_unseen(work, data, rng):
    for _ in range(2):
        table = work.draw(rng)["table"]
        for check in (codes_are_gone, parts_are_separate, scaler_is_of_training):
            try:
                check(work, table)
            except Wrong as wrong:
                raise Wrong(f"with the table of another student: {wrong}", wrong.line) from None


def check_model(work, data, rng):
    found, line = prepared(work, data["table"].copy()), work.line_of("score")
    counts = np.bincount(np.asarray(found["test_y"]).astype(int), minlength=2)
    error = float(np.sqrt((0.25 / counts).sum())) / 2  # of the balanced accuracy of a guess
    reached = float(work.score(found, 0))
    if not 0.5 + 2 * error < reached <= 1:
        raise Wrong(
            f"the balanced accuracy is {reached:.3f}, and not above 0.5 by two standard errors "
            f"({2 * error:.3f}): a network that always gives the frequent class has 0.5. Weight the "
            f"classes.",
            line,
        )
    shuffled = []
    for seed in range(3):
        labels = rng.permutation(np.asarray(found["train_y"]))
        shuffled.append(float(work.score({**found, "train_y": labels}, seed)))
    if np.mean(shuffled) > 0.5 + 2 * error or len({reached, *shuffled}) == 1:
        raise Wrong(
            f"with shuffled training labels `score` still gives {np.mean(shuffled):.3f}, and must "
            f"give about 0.5: it does not come from what the network learned from `train_y`.",
            line,
        )


def check_caption(work, data):
    tables = [data["table"], distinct(data["table"])]
    numbers = {
        "the number of values -999": (data["table"] == MISSING).sum().sum(),
        "the number of records (of the table, or without copies)": [len(x) for x in tables],
        "the share of soluble peptides": [x.soluble.mean() for x in tables],
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))

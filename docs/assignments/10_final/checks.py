"""Checks of assignment 10."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import kft
from kft.comparison import Comparison, Evaluation
from kft.course import (
    Wrong,
    below_baseline,
    caption_is_complete,
    equal_numbers,
    has_numbers,
    hidden,
    no_overlap,
    no_value,
)
from kft.data import Dataset
from kft.exploration import Findings
from kft.preparation import Resplit

FAILED = -999
PARTS = ("train", "valid", "test")
SECTIONS = {
    "question": "the question", "data": "the data", "preparation": "the preparation",
    "exploration": "what was found", "model": "the model", "training": "its training",
    "assessment": "its assessment", "comparison": "the comparison", "limits": "the limits",
    "repeat": "how to repeat it",
}  # fmt: skip


# What is right ------------------------------------------------------------------------------------


def rmse(predicted, targets):
    return float(np.sqrt(np.mean((np.ravel(predicted) - np.ravel(targets)) ** 2)))


def normal(table):
    """The records that should be kept: sequence in capitals -> family."""
    rows = table[table.activity != FAILED]
    return dict(zip(rows.sequence.str.strip().str.upper(), rows.family, strict=True))


def right_defects(work, table):
    return {
        "failed": int((table.activity == FAILED).sum()),
        "copies": int(table.sequence.str.strip().str.upper().duplicated().sum()),
        "families": int(table.family.nunique()),
        "leak": work.module.leak_of(table),
    }


# On any table -------------------------------------------------------------------------------------


def prepared(work, table, seed=0):
    line, before = work.line_of("prepare"), table.copy()
    found = work.prepare(table, seed)
    if not table.equals(before):
        raise Wrong("`prepare` changes the table that it gets: work on a copy.", line)
    if not isinstance(found, Dataset) or None in (found.valid, found.test):
        raise Wrong("`prepare` must return a data set of kft with train, valid and test.", line)
    if not all(isinstance(x, str) for part in found.splits.values() for x in part.inputs):
        raise Wrong(
            "the inputs of `prepare` must be the sequences alone: other columns are not known for a new "
            "peptide, and one was derived from the result.",
            line,
        )
    return found


def sequences(part):
    return [x.strip().upper() for x in part.inputs]


def records_are_right(work, table):
    found, line = prepared(work, table.copy()), work.line_of("prepare")
    wanted = normal(table)
    for part in found.splits.values():
        no_value(np.round(np.asarray(part.targets, "float64"), 4), FAILED, line)
    kept = [x for part in found.splits.values() for x in sequences(part)]
    no_overlap(sequences(found.train) + sequences(found.valid), sequences(found.test), line)
    if twice := len(kept) - len(set(kept)):
        raise Wrong(f"`prepare` keeps {twice} peptides twice, in another spelling.", line)
    if failed := set(kept) - set(wanted):
        raise Wrong(f"`prepare` keeps {len(failed)} peptides whose assay failed.", line)
    if lost := set(wanted) - set(kept):
        raise Wrong(f"`prepare` loses {len(lost)} peptides, such as {min(lost)}.", line)
    rows = table[table.activity != FAILED]
    measured = dict(zip(rows.sequence.str.strip().str.upper(), rows.activity, strict=True))
    for part in found.splits.values():
        values = np.ravel(found.as_measured(part.targets))
        right = [measured[x] for x in sequences(part)]
        equal_numbers(
            "the targets of `prepare`", values, right, 1e-4, line, "the activities of the table"
        )


def families_are_whole(work, table):
    line, family = work.line_of("prepare"), normal(table)
    for seed in (0, 1):
        found = prepared(work, table.copy(), seed)
        of = {name: {family.get(x) for x in sequences(part)} for name, part in found.splits.items()}
        both = (of["train"] | of["valid"]) & of["test"] - {None}
        both |= of["train"] & of["valid"] - {None}
        if both:
            raise Wrong(
                f"`prepare` separates {len(both)} families, such as {min(both)}: relatives of a "
                f"peptide would be in training and in the test.",
                line,
            )
        share = len(found.test) / len(family)
        if not 0.05 < share < 0.4:
            raise Wrong(f"{share:.0%} of the peptides are for the test: 10 to 30% are usual.", line)


# Of the student's own data ------------------------------------------------------------------------


def check_explored(work, data):
    table, line = data["table"], work.line_of("defects")
    if not isinstance(work.found, Findings):
        raise Wrong("`found` must be what `kft.explore` returns.", work.line_of("found"))
    if not any("-999" in str(one.evidence) + one.meaning for one in work.found):
        raise Wrong(
            "`found` does not see -999: explore your table as it is.", work.line_of("found")
        )
    right = right_defects(work, table)
    if not isinstance(work.defects, dict) or set(work.defects) != set(right):
        raise Wrong(f"`defects` must be a dict with {', '.join(right)}.", line)
    if work.defects["leak"] != right["leak"]:
        raise Wrong(
            f"defects['leak'] is {work.defects['leak']!r}: look for the column that goes with the "
            f"activity where the assay did not fail.",
            line,
        )
    for name in ("failed", "copies", "families"):
        equal_numbers(f"defects[{name!r}]", work.defects[name], right[name], 1e-12, line)


def check_records(work, data):
    records_are_right(work, data["table"])


def check_families(work, data):
    families_are_whole(work, data["table"])


@hidden
def check_unseen(work, data, rng):
    table = work.draw(rng)["table"]
    for check in (records_are_right, families_are_whole):
        try:
            check(work, table)
        except Wrong as wrong:
            raise Wrong(f"with the table of another student: {wrong}", wrong.line) from None


def with_targets(data, targets):
    """The data set with other targets in training."""
    return replace(
        data, train=replace(data.train, targets=np.asarray(targets, data.train.targets.dtype))
    )


def check_trained(work, data, rng):
    line = work.line_of("error_of")
    found = prepared(work, data["table"].copy())
    guess = rmse(found.train.targets.mean(), found.test.targets)
    reached = float(work.error_of(found))
    turned = float(
        work.error_of(with_targets(found, 2 * found.train.targets.mean() - found.train.targets))
    )
    if not turned > guess:
        raise Wrong(
            f"with training activities turned upside down `error_of` gives {turned:.2f} and must be above "
            f"the {guess:.2f} of a guess: it does not come from what the model learned in training.",
            line,
        )
    if not reached < turned:
        raise Wrong(
            "`error_of` does not fall when the model learns from the right activities.", line
        )


def check_baseline(work, data):
    line, table = work.line_of("errors"), data["table"].copy()
    if len(work.errors) < 5 or len(work.guesses) != len(work.errors):
        raise Wrong(
            "`errors` and `guesses` must have a number for each of at least five splits.", line
        )
    splits = [prepared(work, table, seed) for seed in range(len(work.errors))]
    right = [rmse(x.train.targets.mean(), x.test.targets) for x in splits]
    equal_numbers(
        "`guesses`", work.guesses, right, 1e-4, work.line_of("guesses"),
        "the errors of the mean of training, for `prepare(table, seed)` of seeds 0, 1, ...",
    )  # fmt: skip
    again = float(work.error_of(splits[-1]))
    if not abs(again - work.errors[-1]) < 0.25 * again:
        raise Wrong(
            f"`errors` has {work.errors[-1]:.2f} for the last split, and training again gives "
            f"{again:.2f}: let `error_of` compute them.",
            line,
        )
    below_baseline(work.errors, work.guesses, 2, line, "the error")


def check_honest(work, data):
    line = work.line_of("random_errors")
    found = np.asarray(work.random_errors, "float64")
    if found.ndim != 1 or len(found) < 5 or len(set(found.tolist())) == 1:
        raise Wrong(
            "`random_errors` must have a number for each of at least five random splits.", line
        )
    data = kft.prepare(prepared(work, data["table"].copy()), steps=[Resplit("random", seed=97)])
    again = float(work.error_of(data))
    spread = max(found.std(ddof=1), 0.1 * again)
    if not abs(again - found.mean()) < 4 * spread:
        raise Wrong(
            f"`random_errors` are {found.mean():.2f} in the mean, and a random split gives "
            f"{again:.2f}: let `error_of` compute them.",
            line,
        )


def check_compared(work, data):
    line, found = work.line_of("comparison"), work.comparison
    if not isinstance(found, Comparison):
        raise Wrong("`comparison` must be what `kft.compare` returns.", line)
    strategies = [row.name for row in found.rows if row.kind == "strategy" and row.scores]
    if len(strategies) < 2 or len(found.seeds) < 2:
        raise Wrong(
            f"`comparison` has {len(strategies)} strategies and {len(found.seeds)} seeds: at least two of "
            f"each are needed to tell a difference from chance.",
            line,
        )
    if not any(row.kind == "baseline" for row in found.rows):
        raise Wrong("`comparison` has no baseline.", line)
    records = len(prepared(work, data["table"].copy()).test)
    if found.records != records:
        raise Wrong(f"`comparison` has {found.records} test records, `prepare` {records}.", line)


def check_assessed(work, data):
    line, judged = work.line_of("judged"), work.judged
    if not isinstance(judged, Evaluation) or judged.split != "test":
        raise Wrong("`judged` must be what `kft.evaluate` returns for the test part.", line)
    if judged.model is not work.model:
        raise Wrong("`judged` assesses another model than `model`.", line)
    test = prepared(work, data["table"].copy()).test
    if sequences(judged.data.test) != sequences(test):
        raise Wrong("`judged` assesses other records than the test part of `prepare(table)`.", line)
    right = rmse(kft.predict(work.model, test.inputs), test.targets)
    equal_numbers("the RMSE of `judged`", judged["RMSE"].value, right, 1e-3, line)
    guess = rmse(np.mean(prepared(work, data["table"].copy()).train.targets), test.targets)
    if not right < guess:
        raise Wrong(f"`model` has an RMSE of {right:.2f}, a guess {guess:.2f}: it is no use.", line)


def text_of(work):
    line = work.line_of("page")
    path = Path(work.page)
    if path.suffix != ".html" or not path.exists():
        raise Wrong(f"`page` must name an HTML file that `kft.report` has written: {path}.", line)
    return path.read_text("utf-8")


def check_page(work, data):
    line, text = work.line_of("page"), text_of(work)
    missing = [said for key, said in SECTIONS.items() if f'<section id="{key}"' not in text]
    if missing:
        raise Wrong(
            f"the page lacks {', '.join(missing)}: give `kft.report` what `kft.explore`, `kft.fit`, "
            f"`kft.evaluate` and `kft.compare` returned.",
            line,
        )
    if len(work.question.split()) < 6 or not work.question.strip().endswith("?"):
        raise Wrong("`question` must be a sentence with a question mark.", work.line_of("question"))
    if work.question.split()[0] not in text or work.question.strip() not in plain(text):
        raise Wrong("the page does not have your `question`.", line)
    for name, value in work.judged.items():
        if f"{value.value:.3f}" not in text:
            raise Wrong(f"the page does not have the {name} of `judged`, {value.value:.3f}.", line)


def plain(text):
    """HTML without tags, with its signs as they are."""
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def check_page_captions(work, data):
    line, text = work.line_of("page"), text_of(work)
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.S)
    if len(figures) < 2:
        raise Wrong(f"the page has {len(figures)} figures: give `kft.report` all parts.", line)
    for figure in figures:
        caption = plain("".join(re.findall(r"<figcaption>(.*?)</figcaption>", figure, re.S)))
        what, stands, wow = caption.partition("What stands out:")
        if len(what.split()) < 8 or not stands or len(wow.split()) < 4:
            raise Wrong(f"a figure of the page has no full caption: {caption[:80]!r}.", line)
        if not re.search(r"\d", caption):
            raise Wrong(f"a caption of the page has no number: {caption[:80]!r}.", line)


def check_figures(work, data):
    line = work.line_of("figures")
    if not isinstance(work.figures, dict) or set(work.figures) != {"data", "result"}:
        raise Wrong("`figures` must be a dict with data and result.", line)
    for name, figure in work.figures.items():
        line = work.line_of(f"plot_{name}")
        if not isinstance(figure, Figure) or not figure.axes:
            raise Wrong(f"figures[{name!r}] must be a figure of matplotlib with axes.", line)
        axes = [ax for ax in figure.axes if ax.has_data()]
        if not axes:
            raise Wrong(f"figures[{name!r}] is empty.", line)
        if not all(ax.get_xlabel().strip() and ax.get_ylabel().strip() for ax in axes):
            raise Wrong(f"figures[{name!r}] has an axis without a label.", line)


def check_captions(work, data):
    line, table = work.line_of("captions"), data["table"].copy()
    if not isinstance(work.captions, dict) or set(work.captions) != {"data", "result"}:
        raise Wrong("`captions` must be a dict with data and result.", line)
    found = prepared(work, table)
    numbers = {
        "data": {
            "the number of peptides": sum(map(len, found.splits.values())),
            "the number of families": table.family.nunique(),
        },
        "result": {
            "the number of test peptides": len(found.test),
            "the RMSE of `model`": rmse(
                kft.predict(work.model, found.test.inputs), found.test.targets
            ),
        },
    }
    for name, wanted in numbers.items():
        try:
            caption_is_complete(work.captions[name], wanted, line)
        except Wrong as wrong:
            raise Wrong(f"captions[{name!r}]: {wrong}", line) from None


def check_reasons(work, data):
    line, defects = work.line_of("reasons"), right_defects(work, data["table"])
    error, guess, easy = (np.mean(x) for x in (work.errors, work.guesses, work.random_errors))
    wanted = {
        "missing": {"the number of failed assays": defects["failed"]},
        "copies": {"the number of copies": defects["copies"]},
        "split": {"the mean error on random splits": easy, "the mean error on yours": error},
        "model": {"its mean error over splits": error},
        "verdict": {"the mean error": error, "the mean guess": guess},
    }
    if not isinstance(work.reasons, dict) or set(work.reasons) != set(wanted):
        raise Wrong(f"`reasons` must be a dict with {', '.join(wanted)}.", line)
    for name, numbers in wanted.items():
        text = work.reasons[name]
        if not isinstance(text, str) or len(text.split()) < 10:
            raise Wrong(f"reasons[{name!r}] must be a sentence of at least ten words.", line)
        try:
            has_numbers(text, numbers, line)
        except Wrong as wrong:
            raise Wrong(f"reasons[{name!r}]: {wrong}", line) from None

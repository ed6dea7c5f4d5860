# %% [markdown]
# # 10. The final: from data to a defended report
#
# A laboratory asks: *can the activity of a peptide be predicted from its sequence, for peptides unlike those
# that were measured?* You get its table, as it is. Get, explore, prepare, build, train, assess,
# compare; justify each choice by a number; give each plot a caption that says **what** it shows, **how** it was
# made and what stands out (**wow**). The result is one page that somebody reads who was not there, and
# you defend it in the oral exam.
#
# **You learn**: the whole way, and that its most important steps come before the network. **kft helps**
# with each: `kft.explore`, `kft.prepare`, `kft.fit`, `kft.compare`, `kft.evaluate`, `kft.report`.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course
from kft.preparation import DropDuplicates, DropTargets, Resplit

data = course.data()
table = data["table"].copy()  # change this copy; `data` stays as it is
table.head()

# %% [markdown]
# ## Explore
#
# Let kft look first, and then look yourself. How many assays failed (rows), how many rows repeat the peptide
# of an earlier row in any spelling, how many families are there, and which column was derived from the
# result?

# %%
# TODO: what kft.explore finds, with target and groups
found = kft.explore(table, target="activity", groups="family")

# %%
print(found)

# %%
# TODO: {"failed": rows, "copies": rows, "families": number, "leak": name of a column}
defects = {
    "failed": int((table.activity == -999).sum()),
    "copies": int(table.sequence.str.upper().duplicated().sum()),
    "families": int(table.family.nunique()),
    "leak": table[table.activity != -999]
    .corr(numeric_only=True)["activity"]
    .drop("activity")
    .abs()
    .idxmax(),
}
print(defects)

# %% [markdown]
# ## Prepare
#
# Write a function that prepares *any* such table: it returns a data set of kft with `train`, `valid` and
# `test`, whose inputs are sequences and whose target is the activity. Leave out failed assays and copies,
# nothing else. The question asks for peptides unlike those measured, so no family may be separated:
# `kft.data.read_csv(table, inputs=..., target=..., groups=..., fractions=(train, valid, test), seed=...)` keeps
# groups together; give about a quarter of the peptides to the test. `kft.prepare(data, steps={reason: step})`
# records each step with its reason on the page: `DropTargets(value)` leaves out records whose target is a value,
# `DropDuplicates()` those that repeat an earlier one.


# %%
def prepare(table, seed=0):
    """Return a data set with train, valid and test; another seed gives another split."""
    # TODO: read, split by family, leave out failed assays and copies
    raw = kft.data.read_csv(
        table, inputs="sequence", target="activity", groups="family", task="regression",
        fractions=(0.65, 0.1, 0.25), seed=seed,
    )  # fmt: skip
    steps = {
        "The laboratory enters -999 when an assay fails, which is no activity.": DropTargets(-999),
        "A peptide that was entered twice would count twice.": DropDuplicates(),
    }
    return kft.prepare(raw, steps=steps)


prepared = prepare(table)
print(prepared)

# %% [markdown]
# ## Train, and beat a guess
#
# `error_of` trains a model on the training part of a prepared data set and returns its root mean squared
# error on the test part. `kft.Model(backbone, kft.heads.for_data(data))` is a new model, and a strategy in closed
# form (`kft.fit(model, data, "linear_probe")`) is fast; any other will do. `guess_of` is the error of always
# saying the mean activity of the training part. Compare them on at least five splits, `prepare(table, seed)` of the
# seeds 0, 1, 2 and so on.


# %%
def train(data):
    """Return what kft.fit returns, for a new model on the small ESM-2 that comes with kft."""
    # TODO: a model with a head for these data, trained by a strategy
    model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.for_data(data))
    return kft.fit(model, data, "linear_probe", verbose=0)


def error_of(data):
    """Train a model, and return its RMSE on the test part."""
    # TODO: by `train` and kft.predict
    predicted = np.ravel(kft.predict(train(data).model, data.test.inputs))
    return float(np.sqrt(np.mean((predicted - data.test.targets) ** 2)))


def guess_of(data):
    """Return the RMSE on the test part of the mean of the training part."""
    # TODO: a number
    return float(np.sqrt(np.mean((data.train.targets.mean() - data.test.targets) ** 2)))


# TODO: errors of at least five splits
errors = [error_of(prepare(table, seed)) for seed in range(6)]
# TODO: guesses of the same splits
guesses = [guess_of(prepare(table, seed)) for seed in range(6)]
print(np.round(errors, 2), np.round(guesses, 2))

# %% [markdown]
# ## What an honest split costs
#
# Split the same records at random (`kft.prepare(prepared, steps=[Resplit("random", seed=...)])`): relatives of
# the test peptides are then in training. How good does the model seem?

# %%
# TODO: errors of at least five random splits
random_errors = [
    error_of(kft.prepare(prepared, steps=[Resplit("random", seed=seed)])) for seed in range(5)
]
print(np.round(random_errors, 2))

# %% [markdown]
# ## Compare, choose, assess
#
# `kft.compare(backbone, prepared, [...], seeds=..., controls=False)` trains strategies (such as `linear_probe`,
# `head_only` and `lora`) and baselines on the same split. Choose one, train the model that you hand in, and
# assess it with `kft.evaluate(model, prepared)`.

# %%
# TODO: at least two strategies, at least two seeds
comparison = kft.compare(
    kft.load("kft_esm2_tiny"), prepared, ["linear_probe", "head_only"], seeds=2, controls=False,
    epochs=5, verbose=False,
)  # fmt: skip
print(comparison)
# TODO: what kft.fit returns for the model that you hand in
done = train(prepared)
model = done.model
# TODO: its assessment
judged = kft.evaluate(model, prepared)
print(judged)

# %% [markdown]
# ## The page
#
# Ask your question in one sentence, and write the page by `kft.report([...], page, question=question)` with all
# parts: what you found, how the model was trained, its assessment, and the comparison.

# %%
# TODO: a question that ends with a question mark
question = (
    "Can the activity of a peptide be predicted from its sequence, for peptides of new families?"
)
# TODO: the name of the file, ending in .html
page = "report.html"
# TODO: what kft.report returns
report = kft.report(
    [found, done, judged, comparison], page, question=question, title="Activity of peptides",
    command="python assignment.py",
)  # fmt: skip

# %% [markdown]
# ## Your two plots
#
# One of the data as you prepared them, one of the result, with labelled axes.

# %%
predicted = np.ravel(kft.predict(model, prepared.test.inputs))
rmse = float(np.sqrt(np.mean((predicted - prepared.test.targets) ** 2)))
activities = np.concatenate([part.targets for part in prepared.splits.values()])


def plot_data():
    """Return a figure of the prepared data."""
    # TODO: a matplotlib figure with labelled axes
    figure, ax = plt.subplots()
    ax.hist(
        [part.targets for part in prepared.splits.values()],
        stacked=True,
        label=list(prepared.splits),
    )
    ax.set(xlabel="activity", ylabel="peptides")
    ax.legend()
    return figure


def plot_result():
    """Return a figure of the predictions for the test part."""
    # TODO: a matplotlib figure with labelled axes
    figure, ax = plt.subplots()
    ax.plot(prepared.test.targets, predicted, "o")
    ax.axline((activities.mean(), activities.mean()), slope=1, color="grey")
    ax.set(xlabel="measured activity", ylabel="predicted activity")
    return figure


figures = {"data": plot_data(), "result": plot_result()}
plt.show()

# %% [markdown]
# Their captions: **what** they show, **how** they were made, and what stands out (**wow**). That of the data has
# the number of peptides and of families, that of the result the number of test peptides and the RMSE. Compute
# the numbers; do not type them.

# %%
# TODO: {"data": text, "result": text}, each `What: ... How: ... Wow: ...`
captions = {
    "data": (
        f"What: activity of {len(activities)} peptides, by the part that they are in. How: "
        f"{defects['families']} families were kept together; {defects['failed']} rows of failed assays and "
        f"copies were left out. Wow: activities reach from {activities.min():.1f} to "
        f"{activities.max():.1f}, and each part has the whole range."
    ),
    "result": (
        f"What: predicted against measured activity of {len(predicted)} test peptides; on the line both are "
        f"equal. How: a linear head on a frozen ESM-2, trained on {len(prepared.train)} peptides of other "
        f"families. Wow: the RMSE is {rmse:.2f}, that of always saying the mean {guess_of(prepared):.2f}."
    ),
}

# %% [markdown]
# ## Defend it
#
# Justify each choice in a sentence or two with the number that decided it: `missing` (number of failed
# assays), `copies` (number of copies), `split` (mean error on random splits and on yours), `model` (its mean
# error over splits), `verdict` (the mean error and the mean guess: does it answer the question, and what limits
# it?).

# %%
honest, guessed, easy = np.mean(errors), np.mean(guesses), np.mean(random_errors)
# TODO: {"missing": text, "copies": text, "split": text, "model": text, "verdict": text}
reasons = {
    "missing": (
        f"{defects['failed']} rows have -999, which is how a failed assay is entered; there is no "
        f"activity to learn, so they are left out rather than filled."
    ),
    "copies": (
        f"{defects['copies']} rows repeat a peptide in another spelling; each is kept once, or it would "
        f"count twice."
    ),
    "split": (
        f"The laboratory wants peptides of new families. A random split has relatives on both sides and "
        f"gives an error of {easy:.2f}, which is too good; with families kept together it is {honest:.2f}."
    ),
    "model": (
        f"A linear probe on the frozen ESM-2 has an error of {honest:.2f} over {len(errors)} splits and trains in "
        f"seconds. What the comparison says of it: {comparison.recommendation}"
    ),
    "verdict": (
        f"Yes, roughly: the error is {honest:.2f}, that of always saying the mean {guessed:.2f}. What a family has "
        f"of its own cannot be seen in the sequence, so a few peptides of a new family should be measured. Before "
        f"a network is used, look at the comparison: a count of the residues is a baseline to beat."
    ),
}

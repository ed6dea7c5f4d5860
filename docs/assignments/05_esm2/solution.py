# %% [markdown]
# # 5. Fine-tune ESM-2, and compare strategies
#
# A protein language model has read many proteins. You have about 165 peptides, and want to know which
# of them kill bacteria. Should you train a head on frozen features, add LoRA, or train all of it?
# That is a question for an experiment, and an experiment needs a fair split, several seeds, a
# baseline, a control, and an error of the difference.
#
# **You learn**: why near copies must stay on one side of a split; to compare methods by the same
# records; what a control with shuffled labels is for; to choose, and to defend a choice. **kft
# helps**: `kft.data.read_table` splits by clusters of similar sequences, `kft.compare` runs the
# experiment.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.
# The experiment takes a minute or two.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

import kft
from kft import course

data = course.data()
table = data["table"]
table.head()

# %% [markdown]
# ## A fair split
#
# If a near copy of a test peptide is in training, the model may know its answer by heart, and the
# score says nothing about new peptides. Use `kft.data.read_table(table, inputs=..., target=...,
# split=..., fractions=...)`, where `inputs` and `target` are names of columns, with a split by
# clusters: 60 % for training, 15 % for validation, 25 % for the test. Keep all rows. Read what `print`
# says: the targets are 0 and 1, and kft must know by `task=` that these are classes.

# %%
# TODO: a data set, with `fractions=(0.6, 0.15, 0.25)`
peptides = kft.data.read_table(
    table,
    inputs="sequence",
    target="antimicrobial",
    task="classification",
    split="cluster",
    fractions=(0.6, 0.15, 0.25),
)
print(peptides)

# %% [markdown]
# ## The experiment
#
# Compare a cheap strategy, `linear_probe` (a regression on frozen features), with a more expensive one,
# `lora`. `kft.compare(backbone, data, strategies, ...)` adds baselines and two controls: the same network
# from random weights, all of which are trained, `from_scratch`, and the first strategy with shuffled
# labels. Use `seeds=3`, `epochs=2` and `batch_size=8`, and leave the controls in.

# %%
backbone = kft.load("kft_esm2_tiny")
# TODO: the comparison
result = kft.compare(
    backbone,
    peptides,
    ["linear_probe", "lora"],
    seeds=3,
    epochs=2,
    batch_size=8,
    out="out",
)
rows = {row.name: row for row in result.rows}

# %% [markdown]
# ## Scores by seed
#
# `row.predictions` has an array (records, 2) of probabilities for each seed, in the order of
# `peptides.test`. Compute the area under the ROC curve (`roc_auc_score`) of each seed yourself.


# %%
def aurocs(row, targets):
    """Return the AUROC of each seed of a row, a list."""
    # TODO
    return [roc_auc_score(targets, probabilities[:, 1]) for probabilities in row.predictions]


for name, row in rows.items():
    print(f"{name:30}", np.round(aurocs(row, peptides.test.targets), 3))

# %% [markdown]
# ## Is the difference real?
#
# Two methods are judged by the *same* test records, so compare them record by record: draw the
# records anew with replacement, compute the difference of both AUROCs on each draw, and take the
# standard deviation of the differences. That is the standard error that comes from the records.
# (`kft.compare` adds that of the seeds.)


# %%
def difference(targets, one, other, rng, draws=500):
    """Return AUROC of `one` minus that of `other`, and its standard error over records.

    `one` and `other` are scores of the same records, whose classes are `targets`, 0 or 1. Draws in
    which a class is missing are left out.
    """
    # TODO: two numbers; draw positions by `rng.integers(0, n, n)`, the same for both
    n, found = len(targets), []
    for _ in range(draws):
        drawn = rng.integers(0, n, n)
        if len(set(targets[drawn])) == 2:
            both = [roc_auc_score(targets[drawn], scores[drawn]) for scores in (one, other)]
            found.append(both[0] - both[1])
    gain = roc_auc_score(targets, one) - roc_auc_score(targets, other)
    return gain, np.std(found)


def mean_scores(name):
    """Return the probability of class 1 for each test record, the mean over seeds."""
    return np.mean([probabilities[:, 1] for probabilities in rows[name].predictions], axis=0)


# TODO: the name of the better of your two strategies, by the mean of its AUROCs
best = max(
    ["linear_probe", "lora"],
    key=lambda name: np.mean(aurocs(rows[name], peptides.test.targets)),
)
# TODO: the difference of `mean_scores` of the best and of "from_scratch", and its standard error
gain, standard_error = difference(
    peptides.test.targets, mean_scores(best), mean_scores("from_scratch"), np.random.default_rng(0)
)
print(f"{best} minus from_scratch: {gain:.3f}, standard error {standard_error:.3f}")

# %% [markdown]
# ## What does each of them train?

# %%
# TODO: {name: trained share of all parameters} of your two strategies, from `rows`: a row knows
# how many `parameters` there are, and how many were `trainable`
shares = {name: rows[name].trainable / rows[name].parameters for name in ("linear_probe", "lora")}

# %% [markdown]
# ## Choose
#
# The rule of one standard error: of all methods whose score lies within one standard error of the
# best score, take the cheapest (Breiman et al. 1984). It may be a baseline; then say so.
# `result.recommended` is the row of this method, `result.best` that of the highest score, and
# `result.interval(row).value` the score of a row: its AUROC, the mean over seeds.

# %%
print(result.recommendation)
# TODO: the name of the method that you would use
choice = result.recommended.name
# TODO: why, in two or three sentences, with the score of your choice and that of the method that
# scores highest
reason = (
    f"{choice} has a test AUROC of {result.interval(result.recommended).value:.3f}. The highest is "
    f"{result.interval(result.best).value:.3f}, of {result.best.name}, and the difference is within "
    f"one standard error, so the cheaper one is as good for all that these peptides can tell."
)

# %% [markdown]
# ## A caption
#
# Write a caption of this plot: **what** is shown, **how** it was made (number of training and of
# test peptides), and what stands out (**wow**): the mean AUROC of your best strategy, the gain
# over random weights and its standard error. Compute the numbers; do not type them. Three digits
# are enough: `{gain:#.3g}`.

# %%
for place, name in enumerate(rows):
    values = aurocs(rows[name], peptides.test.targets)
    plt.plot(values, [place] * len(values), "o")
plt.yticks(range(len(rows)), list(rows))
plt.xlabel("test AUROC")
plt.show()

# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = (
    f"What: area under the ROC curve of each method, a point for each seed. How: trained on "
    f"{len(peptides.train)} peptides and judged on {len(peptides.test)} others, none of which is a "
    f"near copy of one in training. Wow: {best} has the highest mean of the strategies, "
    f"{np.mean(aurocs(rows[best], peptides.test.targets)):.3f}; its difference to the same network "
    f"from random weights is {gain:#.3g} ± {standard_error:#.3g}."
)

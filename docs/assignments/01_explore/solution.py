# %% [markdown]
# # 1. Explore and prepare
#
# A laboratory has measured which peptides stay in solution. Before a network may see the table,
# look at it: what is missing, what is there twice, how rare is the answer, and which column
# knows too much? Then write the function that prepares *any* such table, train a small network,
# and write a caption that another scientist can check.
#
# **You learn**: to look first; to prepare from training records alone; why 90 % accuracy can be
# worthless. **kft helps**: `kft.explore` looks for all of this, `kft.prepare` mends it; here you do it
# once by hand.
#
# Run the first cell. `DATA.md` says what the columns are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`.

# %%
import keras
import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

import kft
from kft import course

data = course.data()
table = data["table"].copy()  # change this copy; `data` stays as it is
table.head()

# %% [markdown]
# ## What kft finds
#
# Read it before you go on. Which of its findings are defects, and which are properties?

# %%
print(kft.explore(table, target="soluble", split="split"))

# %% [markdown]
# ## Values that are no values
#
# The machine stores -999 when a sensor fails. Count these values for each column that has any.

# %%
# TODO: {column: how many times it holds -999}, of the columns that hold it
missing = {name: int((table[name] == -999).sum()) for name in table if (table[name] == -999).any()}

# %% [markdown]
# ## Rows that are there twice
#
# A measurement that was entered twice may stand in training *and* in the test. Count the rows
# that repeat an earlier one in all columns but `split`.

# %%
# TODO: an integer
copies = int(table.drop(columns="split").duplicated().sum())

# %% [markdown]
# ## How rare is the answer?
#
# Always giving the more frequent answer has an accuracy, too. A model has to be better.

# %%
# TODO: the share of rows with soluble == 1
share = float(table.soluble.mean())
# TODO: the accuracy of always giving the more frequent answer
majority = max(share, 1 - share)

# %% [markdown]
# ## A column that knows too much
#
# One column was filled in after the result was known. With it the test score is perfect, and
# the model is of no use. Look at the mean of each column by class.

# %%
print(table.drop(columns="split").groupby("soluble").mean())
# TODO: its name
leak = next(name for name in ("turbidity", "pellet_weight", "recovered") if name in table)

# %% [markdown]
# ## Prepare
#
# `prepare` takes a table as yours, with other numbers, and the name of its leak. It returns
# a dict: `train_x` and `test_x`, arrays (records, columns) without `soluble`, `split` and the leak,
# scaled; `train_y` and `test_y`, 0 or 1; and `scaler`, the `StandardScaler` that was used.
#
# The order matters: replace -999 before you average anything. Replace it by the
# median of the training records. Keep each measurement once: the first of its rows, in the part that
# this row is in. Use no number of the test records to prepare the training records.


# %%
def prepare(table, leak):
    # TODO: a dict with train_x, train_y, test_x, test_y and scaler
    rows = table[~table.drop(columns="split").duplicated()]
    rows = rows.mask(rows == -999)
    train, test = rows[rows.split == "train"], rows[rows.split == "test"]
    columns = [name for name in rows if name not in ("soluble", "split", leak)]
    medians = train[columns].median()
    scaler = StandardScaler().fit(train[columns].fillna(medians).to_numpy())
    return {
        "train_x": scaler.transform(train[columns].fillna(medians).to_numpy()),
        "train_y": train.soluble.to_numpy(int),
        "test_x": scaler.transform(test[columns].fillna(medians).to_numpy()),
        "test_y": test.soluble.to_numpy(int),
        "scaler": scaler,
    }


prepared = prepare(table, leak)

# %% [markdown]
# ## A small network
#
# `score` trains a network on `train_x`, `train_y`, and returns its balanced accuracy on the test
# records: the mean of the shares of each class that it finds. 0.5 is a guess, and the network must be
# above it by two standard errors, which are about 0.1. The rare class needs a weight: see `class_weight`
# of `model.fit`.


# %%
def score(prepared, seed):
    # TODO: train a network, return its balanced accuracy on the test records
    keras.utils.set_random_seed(seed)
    x, y = prepared["train_x"].astype("float32"), prepared["train_y"]
    x = np.concatenate([x, np.abs(x)], axis=1)
    test_x = prepared["test_x"].astype("float32")
    test_x = np.concatenate([test_x, np.abs(test_x)], axis=1)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    weight = {0: 1.0, 1: float((y == 0).sum() / (y == 1).sum())}
    model.fit(x, y.astype("float32"), batch_size=64, epochs=15, class_weight=weight, verbose=0)
    return balanced_accuracy_score(prepared["test_y"], model.predict(test_x, verbose=0)[:, 0] > 0.5)


print(f"balanced accuracy {score(prepared, 0):.3f}; a guess has 0.5")

# %% [markdown]
# ## A plot, and what it says
#
# Plot the two classes of one column. A caption says **what** is shown, **how** it was made, and what
# stands out (**wow**): `What: ... How: ... Wow: ...`, with the number of records that you plot, the
# share of soluble peptides (two digits or more), and the number of values -999 in the table.

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots()
for value, label in ((0, "not soluble"), (1, "soluble")):
    ax.hist(table.charge[(table.soluble == value) & (table.charge != -999)], 30, label=label)
ax.set(xlabel="charge", ylabel="records")
ax.legend()

# TODO: a text in three parts
caption = (
    f"What: charge of {len(table)} measurements, by whether the peptide stays in solution. "
    f"How: histograms of 30 bars without the values -999, of which the table has "
    f"{sum(missing.values())}. "
    f"Wow: only {share:.1%} are soluble, and they are those with a charge, of either sign."
)

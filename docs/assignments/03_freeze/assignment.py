# %% [markdown]
# # 3. Freeze, count, chop the head
#
# A network that has learned one task is half way to the next: its first layers see edges in any
# image, and only the last one, the head, belongs to the old task. So keep the layers ("freeze"),
# cut off the head ("chop") and train a new one. That trains a hundredth of the weights. Whether
# it is better than to begin anew depends on the data: you measure it.
#
# **You learn**: `layer.trainable = False`, and what it does not do; to count parameters; a
# functional model that shares layers with another; to *prove* that frozen weights have not moved.
# **kft helps**: `kft.parameters` counts, `kft.fingerprint` proves, `kft.replace_head` chops.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course

data = course.data()
print("the network will know", data["old_digits"], "and has to learn", data["new_digits"])

# %% [markdown]
# ## A network that knows five digits


# %%
def build():
    """Return a new network for 8 by 8 pixels and five classes."""
    images = x = keras.Input((8, 8, 1))
    for layer in [
        keras.layers.Conv2D(16, 3, padding="same", name="conv_1"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Activation("gelu", name="gelu"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.Conv2D(32, 3, padding="same", activation="gelu", name="conv_2"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(64, activation="gelu", name="features"),
        keras.layers.Dense(5, activation="softmax", name="head"),
    ]:
        x = layer(x)
    return keras.Model(images, x)


def train(model, images, labels, epochs):
    """Compile and train a model."""
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def accuracy(model, images, labels):
    return float(np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels))


keras.utils.set_random_seed(0)
old = train(build(), data["old_images"], data["old_labels"], epochs=6)
print(f"accuracy on the old digits: {accuracy(old, data['old_images'], data['old_labels']):.3f}")

# %% [markdown]
# ## Count parameters
#
# A convolution has a small matrix for each pair of a channel and a filter, and a bias for each
# filter. A normalisation of batches multiplies each channel by a number and adds one, which are
# trained; it also keeps a running mean and variance of each channel, which are not.


# %%
def conv_parameters(size, channels, filters):
    """Return how many parameters a convolution of `size` by `size` has."""
    # TODO: a number
    ...


def dense_parameters(inputs, outputs):
    """Return how many parameters a dense layer has."""
    # TODO: a number
    ...


def norm_parameters(channels):
    """Return how many parameters of a batch normalisation are trained, and how many are not."""
    # TODO: two numbers
    ...


# TODO: the number of all parameters of `old`, by your three functions
total = ...
print(total, "by hand;", old.count_params(), "by Keras")
print(kft.parameters(old))

# %% [markdown]
# ## Freeze, and chop the head
#
# In Keras `layer.trainable = False` freezes a layer. A batch normalisation that is frozen also
# stops to update its running mean and variance. The flag is read when a model is *compiled*: set
# it first.
#
# `chop` makes a new functional model: the input of the old one, all of its layers but the last,
# and a new dense layer. Each layer of a functional model knows its `output`. Layers are shared, so
# what is frozen in one is frozen in the other.


# %%
def freeze(model):
    """Freeze all layers of a model but the last one, which stays trainable."""
    # TODO
    ...


def chop(model, classes):
    """Return a new model: all layers of `model` but its last one, and a new head.

    The head is a dense layer with a softmax, named "new_head". `model` keeps its own.
    """
    # TODO: by keras.layers.Dense and keras.Model(inputs, outputs)
    ...


def transfer(model, images, labels, seed):
    """Return a model that shares the frozen layers of `model`, with a new head, trained."""
    keras.utils.set_random_seed(seed)
    # TODO: chop, freeze, `train` for 60 epochs; mind the order
    ...


# %% [markdown]
# ## Did it help?
#
# Train the new head from three seeds, and for comparison a whole network that begins anew, on the
# same few images. And prove that the old layers have not moved: `kft.fingerprint(model, None)` is
# a digest of all weights.

# %%
before = kft.fingerprint(old, None)
SEEDS = [0, 1, 2]
# TODO: {seed: model} by `transfer` of `old`
chopped = ...
print("old layers have not moved:", kft.fingerprint(old, None) == before)


def anew(seed):
    keras.utils.set_random_seed(seed)
    return train(build(), data["images"], data["labels"], epochs=60)


# TODO: {"chopped": [three numbers], "anew": [three numbers]}, accuracies on the test images
scores = ...
print({name: np.round(values, 3) for name, values in scores.items()})
print(kft.parameters(chopped[0]))

# %%
plt.plot([0] * 3, scores["chopped"], "o")
plt.plot([1] * 3, scores["anew"], "s")
plt.xticks([0, 1], ["new head", "anew"])
plt.xlim(-0.5, 1.5)
plt.ylabel("test accuracy")
plt.show()

# %% [markdown]
# ## The same with a protein language model
#
# `kft.load("kft_esm2_tiny")` is a transformer that was trained to fill in hidden residues. Freeze
# it, put a head for two classes on it, and train that on your peptides. `kft.fit` without a
# strategy trains what is marked as trainable, and nothing else; what frozen layers answer is
# computed once.
#
# Then chop this head, too: `kft.replace_head(model, head)`, with one that predicts a number
# (`kft.heads.Regression()`), as another task would need it.

# %%
backbone = kft.load("kft_esm2_tiny")
# TODO: freeze it, in one line
backbone.trainable = ...
peptide_model = kft.Model(backbone, kft.heads.Classification(2))
# TODO: train it on `data["peptides"]` and `data["antimicrobial"]`, with epochs=30 and
# learning_rate=0.01
done = ...
table = kft.parameters(peptide_model)
print(table)
# TODO: the share of parameters that were trained
share = ...
probabilities = kft.predict(peptide_model, data["test_peptides"])
right = np.mean(probabilities.argmax(axis=1) == data["test_antimicrobial"])
print(f"test accuracy {right:.3f}")
# TODO: the same backbone with a head for one number
regressor = ...

# %% [markdown]
# ## A caption
#
# Write a caption of your plot of the digits: **what** is shown, **how** it was made (number of
# training images, number of test images), and what stands out (**wow**): the mean accuracy of
# both ways. Compute the numbers; do not type them.

# %%
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = ...

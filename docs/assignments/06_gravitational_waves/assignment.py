# %% [markdown]
# # 6. Gravitational waves with a vision transformer
#
# Two black holes circle each other, faster and faster, and merge: the detector hears a *chirp*. It also hears
# lorries, power lines and ravens. First you train a vision transformer (ViT) to tell chirps from glitches.
# Then you chop its head and put one on that reads a number from the picture: the mass.
#
# **You learn**: how a ViT sees an image; why records of one origin must stay in one part; how the
# features of one task serve another. **kft helps**: `kft.Model`, `kft.fit`, `kft.replace_head`, and
# `kft.data.spectrogram`, which makes the same images from real strain.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course
from kft.backbones.vision.models import VisionTransformer
from kft.data import Dataset, Split

data = course.data()
classes = data["classes"]
figure, axes = plt.subplots(1, len(classes), figsize=(12, 2))
for k, ax in enumerate(axes):
    ax.imshow(data["images"][data["labels"] == k][0], origin="lower")
    ax.set(title=classes[k], xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## An honest split
#
# Up to six images come from one stretch of noise. If one of them is in training and another in the test, the
# model may know the noise. Give whole stretches to the parts: about 65% of the images to `train`, 15% to
# `valid`, 20% to `test`. `kft.data.splits.group_split` may help, or shuffle the stretches yourself.


# %%
def split(stretch, seed=0):
    """Return {"train", "valid", "test"}: positions of the images, given the stretch of each."""
    # TODO: a dict of three integer arrays
    ...


def dataset(name, task, images, targets, stretch, classes=None):
    """Put images and targets into a data set of kft, divided by `split`."""
    parts = {
        part: Split([images[i] for i in at], targets[at], stretch[at])
        for part, at in split(stretch).items()
    }
    about = {"source": "simulated by kft", "licence": "Apache-2.0", "citation": "", "checksum": ""}
    return Dataset(name, task, **parts, classes=classes, **about)


glitches = dataset(
    "glitches", "classification", data["images"], data["labels"], data["stretch"], classes
)
print(glitches)

# %% [markdown]
# ## How a ViT sees
#
# It cuts an image into patches of `patch_size` pixels, makes a vector (a token) of each, and adds one token for
# the class. Each block has an attention with four products by a matrix (query, key, value and output), from
# `width` to `width` numbers, each with a bias.


# %%
def tokens_of(image_size, patch_size):
    """Return how many tokens a ViT makes of a square image."""
    # TODO: patches, and the class token
    ...


def parameters_of_attention(width):
    """Return how many parameters the attention of one block has."""
    # TODO: four matrices and their biases
    ...


# %%
def small_vit():
    return kft.backbones.randomised(
        VisionTransformer("vit", num_blocks=2, width=32, num_heads=4, patch_size=8, image_size=32),
        seed=0,
    )


print(small_vit().output_shape, tokens_of(32, 8))
print(kft.parameters(small_vit()))

# %% [markdown]
# ## Classify
#
# Put the head `kft.heads.for_data(glitches)` on `small_vit()`, by `kft.Model(backbone, head)`, and train all of
# it with `kft.fit`. It has to learn from nothing, so it needs some 20 epochs and a learning rate of about 2e-3.
# `kft.fit` returns what was done; `model` of that is the trained model. `kft.predict(model, images)` gives
# probabilities.

# %%
# TODO: a kft.Model that has been trained
classifier = ...

# %%
# TODO: the probabilities that it gives for the test images, (images, classes)
probabilities = ...
print("accuracy", np.mean(np.argmax(probabilities, axis=1) == glitches.test.targets))


# %%
def confusion(labels, probabilities):
    """Return integers (K, K): how many images of class i (row) are taken for class j (column)."""
    # TODO: count
    ...


print(confusion(glitches.test.targets, probabilities))

# %% [markdown]
# ## The mass
#
# How fast the frequency rises tells the *chirp mass*,
#
# $$\mathcal{M} = \frac{(m_1 m_2)^{3/5}}{(m_1 + m_2)^{1/5}} .$$
#
# It reaches from 1 to 70 solar masses, so its logarithm (base 10) is predicted.


# %%
def chirp_mass(mass_1, mass_2):
    """Return the chirp mass of two bodies, of numbers or arrays."""
    # TODO: the formula
    ...


chirps = dataset(
    "chirps", "regression", data["chirps"], np.log10(chirp_mass(data["mass_1"], data["mass_2"])),
    data["chirp_stretch"],
)  # fmt: skip

# %% [markdown]
# ## Chop the head
#
# `kft.replace_head(classifier, head)` shares the backbone. With the strategy "head_only" (the third argument of
# `kft.fit`) the new head learns and the backbone stays as it is: `classifier` still works. For a head alone
# 20 epochs with a learning rate of 1e-2 are enough.

# %%
# TODO: the classifier's backbone with a head for chirps, whose head alone has been trained
regressor = ...

# %% [markdown]
# Now train everything, by the strategy "full", from the same start, for some 40 epochs with a learning rate of
# 2e-3. The backbone would change under `classifier`, too, so take a copy: `kft.load_model` reads what
# `classifier.save` has written.

# %%
classifier.save("classifier.keras")
# TODO: a copy of the classifier with a new head, all of which has been trained on chirps
tuned = ...


# %%
def rmse(predicted, true):
    return float(np.sqrt(np.mean((np.ravel(predicted) - true) ** 2)))


# TODO: RMSE on the test chirps of "constant" (the mean of training), "head_only" and "full"
errors = ...
print(errors)

# %% [markdown]
# ## A caption
#
# Write a caption for the figure: **what** is shown, **how** it was made (number of training chirps), and what
# stands out (**wow**), with the RMSE of `tuned` and of the constant. Compute the numbers; do not type
# them.

# %%
plt.plot(chirps.test.targets, kft.predict(tuned, chirps.test.inputs).ravel(), "o")
plt.axline((1, 1), slope=1, color="grey")
plt.gca().set(xlabel="log10 of the chirp mass", ylabel="predicted")
plt.show()
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = ...

# %% [markdown]
# # 8. SAM: train what is named, print the tables
#
# SAM ("Segment Anything") gets an image and a prompt, a point or a box, and returns three masks. For each
# it also predicts how good the mask is: the IoU with the true one. On images unlike those of its
# training this judgement is poor. You train *only* the head that predicts the IoU. The masks must not
# change by a single pixel, and you show that: with tables, with digests of weights, with pixels.
#
# The SAM here is small and has random weights, so that it runs in seconds without network. What you
# write works for `kft.load("sam-vit-base")`, too.
#
# **You learn**: to name what is trained and to prove that nothing else was; the loss of a predicted
# score; how to tell an improvement from a good guess. **kft helps**: `kft.train_only`,
# `kft.parameters`, `kft.fingerprint`, `kft.fit`, `kft.segmentation.Predictor`.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course
from kft.backbones.sam import Sam, original_name
from kft.segmentation import Predictor, Prompting, boxes_of, to_masks

HEAD = "mask_decoder.iou_prediction_head"
data = course.data()
cells = data["cells"]
sam = kft.backbones.randomised(Sam(**data["shape"]), data["seed"])
print(cells)

# %% [markdown]
# ## The table
#
# `kft.parameters(sam)` prints a table that groups layers. The course wants the long one: a line for
# each weight, by the name of the original code. `kft.parameters(model).rows` has `module`, `weight`,
# `trainable` and `parameters` (how many numbers) of each; `original_name("module/weight")`
# translates.


# %%
def table_of(model):
    """Return a list with (original name, "trainable" or "frozen", how many numbers) of each weight."""
    # TODO: a list of tuples
    ...


for name, state, numbers in table_of(sam):
    print(f"{name:72} {state:9} {numbers:>8,}")

# %% [markdown]
# ## Train what is named
#
# Freeze all layers of a model but those that a name stands for. It must not matter what was frozen
# before. You may use `kft.train_only`, or `kft.freeze` and `kft.unfreeze`.


# %%
def freeze_all_but(model, name):
    """Leave exactly the layers `name` of `model` trainable; returns nothing."""
    # TODO: one line
    ...


freeze_all_but(sam, HEAD)
for name, state, numbers in table_of(sam):
    if state == "trainable":
        print(f"{name:72} {state:9} {numbers:>8,}")
# TODO: how many numbers the model has, and how many of them learn
counts = ...
print(counts)

# %% [markdown]
# ## The loss of a predicted score
#
# The intersection over union of two masks is the number of pixels in both over the number in either; it
# is 1 if both are empty. The head learns to predict it: its loss is the mean squared error. A loss that is
# made of masks gives this head no gradient at all, since no mask depends on it.


# %%
def iou(mask, truth):
    """Return the IoU of two bool arrays (height, width), from 0 to 1."""
    # TODO: a number
    ...


def iou_loss(predicted, true):
    """Return the mean squared error of predicted IoU, a number, of arrays of any shape."""
    # TODO: a number
    ...


def iou_loss_gradient(predicted, true):
    """Return the gradient of `iou_loss` in `predicted`, an array of its shape."""
    # TODO: an array
    ...


# %% [markdown]
# ## Errors, image by image
#
# For each image: prompt the model with the box of each cell, and compare the three IoU that it predicts
# with the true ones. `Predictor(model).set_image(image).predict(boxes=boxes_of(labels))` has `masks`,
# bool (cells, 3, height, width), and `iou`, floats (cells, 3); `to_masks(labels)` are the true masks
# (cells, height, width), in the same order.


# %%
def true_and_predicted(model, image, labels):
    """Return two arrays (cells, 3): the true IoU of each mask, and the IoU that the model predicts."""
    # TODO: prompt with boxes, compare with the true masks
    ...


def errors_of(model, split):
    """Return a list with the loss of the IoU for each image of a split."""
    # TODO: by `true_and_predicted` and `iou_loss`
    ...


def masks_of(model, split):
    """All masks of a split, prompted with boxes: what the training must not change."""
    pairs = zip(split.inputs, split.targets, strict=True)
    found = [Predictor(model).set_image(x).predict(boxes=boxes_of(y)).masks for x, y in pairs]
    return np.concatenate(found)


# TODO: the errors of the test images before training
before = ...
masks_before = masks_of(sam, cells.test)
frozen_before = kft.fingerprint(sam, trainable=False)

# %% [markdown]
# ## Train
#
# `kft.fit(sam, cells, epochs=..., learning_rate=..., batch_size=..., prompting=Prompting(...))`
# without a strategy trains what is marked trainable. The image encoder is frozen, so each image is
# encoded once. A dozen epochs with a learning rate of 3e-3, batches of 4, 4 objects and 1 round are enough.

# %%
# TODO: what kft.fit returns
done = ...

# %%
for row in done.history[::4]:
    print(f"epoch {row['epoch'] + 1}: loss of the IoU {row['iou_loss']:.4f}")
print("frozen weights unmoved:", kft.fingerprint(sam, trainable=False) == frozen_before)
# TODO: the errors of the test images after training
after = ...
# TODO: how many pixels of the masks of the test images have changed
changed_pixels = ...
print(np.mean(before), np.mean(after), changed_pixels)

# %% [markdown]
# ## Is that good?
#
# A head that has learned nothing but the average would always say the mean true IoU of the *training*
# masks (all cells, all three masks). Its error on the test images, image by image and then averaged, is
# what a good head must beat.


# %%
def true_iou(model, split):
    """Return a list with an array (cells, 3) for each image: the true IoU of its masks."""
    pairs = zip(split.inputs, split.targets, strict=True)
    return [true_and_predicted(model, image, labels)[0] for image, labels in pairs]


def error_of_the_mean(model, train, test):
    """Return the mean error of the images of `test`, of a head that always says the mean of `train`."""
    # TODO: a number, by `true_iou` and `iou_loss`
    ...


constant = error_of_the_mean(sam, cells.train, cells.test)
print(f"always the mean: {constant:.4f}")

# %% [markdown]
# ## Keep it
#
# Save the model as `samLE_funfrozenN.keras`, where N is how many numbers learned.

# %%
# TODO: the name of the file
path = ...
sam.save(path)

# %% [markdown]
# ## A caption
#
# Write a caption for the figure: **what** is shown, **how** it was made (how many numbers of how many
# learned), and what stands out (**wow**), with the mean error before and after. Compute the numbers; do not
# type them.

# %%
plt.plot(before, "o", label="before")
plt.plot(after, "o", label="after")
plt.axhline(constant, label="always the mean")
plt.gca().set(xlabel="test image", ylabel="squared error of the predicted IoU", yscale="log")
plt.legend()
plt.show()
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = ...

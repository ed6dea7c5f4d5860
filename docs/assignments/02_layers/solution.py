# %% [markdown]
# # 2. Layers: perceptron, MLP and CNN
#
# A perceptron draws a line. Layers with a bend between them draw curves. Convolutions know that
# a digit is the same digit one pixel further. You build all three, from their formulas and from Keras
# layers.
#
# **You learn**: what a layer computes; why there is a GELU between layers; why convolutions need
# fewer weights. **Keras helps**: `keras.ops`, `keras.layers.Dense`, `Conv2D`,
# `GlobalAveragePooling2D`, `MaxPooling2D`; **kft**: `print(kft.parameters(model))` counts weights.
#
# Run the first cell. `DATA.md` says what the arrays are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

import kft
from kft import course

data = course.data()
for name, values in data.items():
    print(name, values.shape)

# %% [markdown]
# ## A bend: GELU
#
# GELU(x) = x Φ(x), where Φ(x) is the share of a standard normal distribution below x:
# Φ(x) = (1 + erf(x / √2)) / 2. Write it with `keras.ops`, so that it runs on each backend. Do not use the
# approximation by tanh.


# %%
def gelu(x):
    # TODO: x times the share of a standard normal distribution below x
    return 0.5 * x * (1 + ops.erf(x / np.sqrt(2).astype("float32")))


# %% [markdown]
# ## A line: the perceptron
#
# Rosenblatt's perceptron answers sign(w·x + b). Its rule: where a point (x, y), y = ±1, is wrong or on
# the line, w becomes w + rate · y · x, and b becomes b + rate · y. Where it is right nothing
# changes. `step` does this for one point, and returns new (w, b).
#
# `perceptron` goes through the points again and again until all are right. If a line separates
# them, that takes a finite number of steps (Novikoff, 1962).


# %%
def step(w, b, x, y, rate):
    # TODO: new (w, b), for a point x with label y
    if y * (w @ x + b) > 0:
        return w, b
    return w + rate * y * x, b + rate * y


def perceptron(x, y):
    # TODO: (w, b) that separates the points x (n, 2) with labels y (n,)
    w, b = np.zeros(2), 0.0
    while (y * (x @ w + b) <= 0).any():
        for point, label in zip(x, y, strict=True):
            w, b = step(w, b, point, label, 1.0)
    return w, b


w, b = perceptron(data["line_x"], data["line_y"])
print("wrong:", (np.sign(data["line_x"] @ w + b) != data["line_y"]).sum())

# %% [markdown]
# ## Layers
#
# `mlp(2, [16, 8], 1)` is a network from 2 inputs through 16 and 8 hidden units to 1 output: `Dense`
# layers with your `gelu` after each hidden one, and nothing after the last, which gives logits.


# %%
def mlp(inputs, hidden, outputs):
    # TODO: a Keras model
    layers = [keras.layers.Dense(units, activation=gelu) for units in hidden]
    return keras.Sequential([keras.Input((inputs,)), *layers, keras.layers.Dense(outputs)])


print(kft.parameters(mlp(2, [16, 8], 1)))

# %% [markdown]
# Train one on the rings. `train_rings` returns the trained network, which has one logit for each
# point. Use `keras.utils.set_random_seed(seed)`, and `BinaryCrossentropy(from_logits=True)`. Its loss
# on test points must be less than half of what the best line reaches.


# %%
def train_rings(x, y, seed):
    # TODO: a trained network
    keras.utils.set_random_seed(seed)
    model = mlp(2, [16], 1)
    model.compile(keras.optimizers.Adam(0.03), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, y.reshape(-1, 1).astype("float32"), batch_size=50, epochs=25, verbose=0)
    return model


rings = train_rings(data["ring_x"], data["ring_y"], 0)
found = rings.predict(data["ring_test_x"], verbose=0)[:, 0] > 0
print("accuracy on test points:", (found == data["ring_test_y"]).mean())

# %% [markdown]
# ## Convolutions
#
# `cnn(4)` is a network from pictures (14, 14, 1) to 4 logits. Begin with a `Conv2D` that keeps the
# size (`padding="same"`, `strides=1`) and has `gelu`; pool before the last `Dense`, so that it has fewer
# weights than the MLP with 64 hidden units. What a pooling over the whole picture keeps does not depend on
# where the digit is.


# %%
def cnn(classes):
    # TODO: a Keras model
    return keras.Sequential(
        [
            keras.Input((14, 14, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation=gelu),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(32, 3, padding="same", activation=gelu),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(classes),
        ]
    )


def train_digits(x, y, seed):
    # TODO: a trained network
    keras.utils.set_random_seed(seed)
    model = cnn(4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, batch_size=48, epochs=8, verbose=0)
    return model


digits = train_digits(data["image_x"], data["image_y"], 0)
found = digits.predict(data["image_test_x"], verbose=0).argmax(1)
accuracy = float((found == data["image_test_y"]).mean())
print("accuracy on test pictures:", accuracy)

# %% [markdown]
# ## What it says
#
# Plot some test pictures with what the network says. The caption has three parts, `What: ... How:
# ... Wow: ...`: what is shown, how it was made, what stands out; with the number of training pictures,
# the weights of `mlp(196, [64], 4)`, and those of your `cnn(4)`.

# %%
figure, axes = plt.subplots(2, 4)
for ax, image, label in zip(axes.flat, data["image_test_x"], found, strict=False):
    ax.imshow(image[..., 0])
    ax.set_title(int(label))

# TODO: a text in three parts
caption = (
    f"What: eight test pictures, and the digit that the CNN finds in each. "
    f"How: it was trained on {len(data['image_x'])} pictures in 8 epochs; the others of the "
    f"{len(data['image_test_x'])} test pictures are not shown. "
    f"Wow: it is right on {accuracy:.1%} with {cnn(4).count_params():,} weights, and the MLP with 64 "
    f"hidden units has {mlp(196, [64], 4).count_params():,}."
)

# %% [markdown]
# # 7. Deep Dream
#
# Training changes weights until the outputs fit the images. Deep Dream does the opposite: the
# weights stay as they are, and the *image* is changed until an output is large. The result shows
# what the network looks for.
#
# The dream of a large network is pretty, but nobody can say whether it is right. So you train a
# small network on something that can be measured: stripes of four orientations, with any colour,
# width and place. If the network has learned orientation, its dream of a class has stripes of
# that orientation, and a Fourier transform shows it.
#
# **You learn**: the gradient of an output in the pixels, and how to check a gradient; gradient
# ascent with a normalised step; why a picture needs a control. **kft helps**: `Activation`
# computes the gradient on any backend, `kft.dreaming.dream` is the whole of Deep Dream.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course
from kft.interpretation.activations import Activation

data = course.data()


def show(rows, titles):
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(8, 2.3 * len(rows)), squeeze=False)
    for ax, image, title in zip(axes.flat, [x for row in rows for x in row], titles, strict=True):
        ax.imshow(np.clip(image, 0, 1))
        ax.set(title=title, xticks=[], yticks=[])
    plt.show()


show(
    [[data["images"][data["labels"] == k][0] for k in range(4)]],
    [f"{a:.0f}°" for a in data["angles"]],
)

# %% [markdown]
# ## The network
#
# Three convolutions. The last one has a channel for each class and no activation function; the
# mean of a channel over the image is the score of its class. Nothing is left out here: read it,
# and run it. A `kft.backbones.Backbone` is a Keras model with a list of stages, on which all of
# kft works.


# %%
class Pixels:
    """Turn images into what the network takes; mean and std are those of pixels from 0 to 255."""

    mean, std, value_range = (127.5,) * 3, (63.75,) * 3, None

    def __call__(self, images):
        return {"images": (np.asarray(images, dtype="float32") - 0.5) / 0.25}


class StripesNet(kft.backbones.Backbone):
    """Three convolutions."""

    encode = Pixels()
    image_size = (32, 32)

    def __init__(self, name="stripes_net"):
        images = x = keras.Input((32, 32, 3), name="images")
        stages = [
            keras.layers.Conv2D(8, 7, padding="same", activation="relu", name="edges"),
            keras.layers.Conv2D(16, 5, 2, padding="same", activation="relu", name="textures"),
            keras.layers.Conv2D(4, 1, name="classes"),
        ]
        for stage in stages:
            x = stage(x)
        super().__init__({"images": images}, x, stages, name)


def classifier(network):
    """Put a head on a network: the mean over the image, then a softmax."""
    means = keras.layers.GlobalAveragePooling2D()(network.output)
    return keras.Model(network.input, keras.layers.Softmax()(means))


keras.utils.set_random_seed(0)
net, untrained = StripesNet(), StripesNet(name="untrained")
model = classifier(net)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(net.encode(data["images"]), data["labels"], batch_size=16, epochs=15, verbose=0)
print(f"accuracy on the training images: {history.history['accuracy'][-1]:.2f}")

# %% [markdown]
# ## The gradient in the pixels, and how to check one
#
# `Activation(net, "classes", squares=False)` gives a function: `activation(image, weights)`
# returns the mean of the stage's channels, weighted by `weights`, and its gradient in the pixels,
# of the shape of the image. `activation.weights(k)` is 1 for channel `k` and 0 for the others.
#
# Do not believe a gradient that you have not checked. Along a unit vector $d$
#
# $$\frac{f(x + h d) - f(x - h d)}{2 h} \approx \nabla f(x) \cdot d .$$
#
# The difference is *central*: its error falls as $h^2$, that of $(f(x + hd) - f(x))/h$ only as
# $h$.


# %%
def slope(function, x, direction, h=1e-4):
    """Return the slope of `function` at the array `x` along `direction`, by a central difference.

    `direction` may have any length: the slope is that along its unit vector.
    """
    # TODO: a number
    unit = direction / np.linalg.norm(direction)
    return (function(x + h * unit) - function(x - h * unit)) / (2 * h)


activation = Activation(net, "classes", squares=False)
weights = activation.weights(0)
direction = np.random.default_rng(1).normal(size=data["noise"].shape)
value, gradient = activation(data["noise"], weights)
print("by the gradient:  ", np.sum(gradient * direction) / np.linalg.norm(direction))
print("by the difference:", slope(lambda x: activation(x, weights)[0], data["noise"], direction))

# %% [markdown]
# ## Gradient ascent
#
# The size of a gradient says nothing about how far to go: a network whose outputs are multiplied
# by 100 has the same dreams. So divide the gradient by the mean of its absolute values: then a
# step changes a pixel by `step_size` on average. After each step, pixels stay between 0 and 1.


# %%
def ascend(activation, image, channel, steps, step_size):
    """Change an image so that a channel of `activation` grows; `image` itself stays as it is.

    Returns the new image.
    """
    # TODO: `steps` times: gradient, divide, step up, clip
    weights = activation.weights(channel)
    for _ in range(steps):
        _, gradient = activation(image, weights)
        image = np.clip(image + step_size * gradient / np.abs(gradient).mean(), 0, 1)
    return image


# %% [markdown]
# ## Measure what the eye sees
#
# Stripes are a peak of the Fourier transform, and the angle of the peak is the angle across the
# stripes. Write a function that returns it in degrees, from 0 up to 180, for an image of any
# size.
#
# - Take the mean over colours, and subtract the mean of all pixels.
# - Multiply by a window, `np.outer(np.hanning(h), np.hanning(w))`, or the borders look like
#   stripes.
# - `np.abs(np.fft.fft2(grey)) ** 2` is the power; `np.fft.fftfreq(n)` are the frequencies, of
#   rows (y) and of columns (x). Use those whose length is between 0.06 and 0.3 per pixel.
# - A peak at an angle has a twin on the other side. So average $e^{2 i \theta}$, weighted by the
#   power, and not $\theta$: between 1° and 179° lies 0°, not 90°.


# %%
def orientation(image):
    """Return the angle across the stripes of an image (h, w, 3), in degrees from 0 up to 180."""
    # TODO: a number
    grey = image.mean(axis=-1)
    height, width = grey.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    y, x = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    used = (np.hypot(x, y) > 0.06) & (np.hypot(x, y) < 0.3)
    mean = np.sum((power * np.exp(2j * np.arctan2(y, x)))[used])
    return np.rad2deg(np.angle(mean)) / 2 % 180


# %% [markdown]
# ## Dreams, and a control
#
# Let a network dream of each class, always beginning with `data["noise"]`. The control is the
# network with random weights: what it dreams of as well says nothing about training (Adebayo et
# al. 2018, "Sanity checks for saliency maps"). The grader dreams again, with your `STEPS` and
# `STEP_SIZE`.

# %%
STEPS, STEP_SIZE = 30, 0.01


def dream_of_all(network):
    """Return an array (4, 32, 32, 3): a dream of each class."""
    # TODO: by `ascend`, with STEPS and STEP_SIZE
    activation = Activation(network, "classes", squares=False)
    return np.stack([ascend(activation, data["noise"], k, STEPS, STEP_SIZE) for k in range(4)])


# TODO: the dreams of the trained network
dreams = dream_of_all(net)
# TODO: the control
control = dream_of_all(untrained)

# %%
show([dreams, control], [f"{orientation(image):.0f}°" for image in [*dreams, *control]])

# %% [markdown]
# ## kft's Deep Dream
#
# `kft.dreaming.dream(net, image, "classes", channel, steps=..., octaves=...)` does the same with
# images of any size: in tiles, at several sizes from small to large ("octaves"), and with all
# frequencies of the gradient made equally strong. Let the clouds dream of a class, any of the four, so
# that its orientation can be measured in the result: 15 steps and 2 octaves are enough.

# %%
# TODO: number of the class
channel = 2
# TODO: the dream, an array (96, 96, 3)
large = kft.dreaming.dream(net, data["clouds"], "classes", channel, steps=15, octaves=2)

# %%
show([[data["clouds"], large]], [f"{orientation(image):.0f}°" for image in (data["clouds"], large)])

# %% [markdown]
# ## A caption
#
# Write a caption of the figure with dreams and controls, for somebody who has not read this page:
# **what** is shown, **how** it was made (network, number of training images, number of steps),
# and what stands out (**wow**), with the largest error of an angle of the dreams, in degrees.
# Compute the numbers; do not type them.

# %%
errors = [abs(orientation(image) - a) for image, a in zip(dreams, data["angles"], strict=True)]
worst = max(min(error, 180 - error) for error in errors)
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = (
    f"What: images that activate each of four classes most, of a trained network (above) and of "
    f"one with random weights (below). How: three convolutions were trained on {len(data['images'])} "
    f"striped images; then {STEPS} steps of gradient ascent began with the same noise. Wow: the "
    f"stripes that the trained network dreams of have the angles of the classes to within "
    f"{worst:#.3g}°; those of the other network have nothing to do with them."
)

"""Checks of assignment 7."""

import numpy as np

import kft
from kft.course import (
    Wrong,
    below_baseline,
    caption_is_complete,
    equal_numbers,
    frozen_unmoved,
    hidden,
)
from kft.interpretation.activations import Activation
from kft.params import digests

WITHIN = 15  # degrees


def turned(one, other):
    """Degrees between two orientations."""
    return abs((one - other + 90) % 180 - 90)


def angle_of(image):
    """Angle across the stripes of an image, measured in the pixels: the structure tensor."""
    grey = np.asarray(image, "float64").mean(axis=-1)
    down, across = np.gradient(grey)
    double = np.arctan2(2 * np.mean(across * down), np.mean(across**2 - down**2))
    return np.rad2deg(double) / 2 % 180


class Hills:
    """Stands for an activation whose gradient is known: the mean of the pixels times a pattern."""

    def __init__(self, rng, shape):
        self.patterns = rng.normal(0, 3, (2, *shape))
        self.calls = 0

    def weights(self, channel=None):
        return np.eye(2)[channel]

    def __call__(self, image, weights):
        self.calls += 1
        pattern = np.tensordot(weights, self.patterns, 1)
        value = float(np.mean(pattern * (image - 0.1 * image**2)))
        return value, pattern * (1 - 0.2 * image) / image.size


def check_slope(work, data, rng):
    line = work.line_of("slope")
    x, direction = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    unit = direction / np.linalg.norm(direction)
    expected = np.sum(3 * x**2 * unit)
    if np.isclose(found := float(work.slope(lambda v: np.sum(v**3), x, unit)), -expected):
        raise Wrong("`slope` has the wrong sign.", line)
    # A one-sided difference is wrong by h/2 times the second derivative, a central one by h**2.
    coarse = float(work.slope(lambda v: np.sum(v**3), x, unit, h=0.01))
    one_sided = expected + 0.01 * np.sum(3 * x * unit**2)
    if abs(coarse - one_sided) < 0.2 * abs(one_sided - expected):
        raise Wrong(
            "`slope` takes a one-sided difference, whose error falls only as h: go to both sides.",
            line,
        )
    equal_numbers("slope", found, expected, 1e-4, line, "the slope along a unit vector")
    longer = work.slope(lambda v: np.sum(v**3), x, 5 * unit)
    equal_numbers("slope of a direction of length 5", longer, expected, 1e-4, line,
                  "the slope along its unit vector")  # fmt: skip


def check_ascent(work, data, rng):
    line = work.line_of("ascend")
    hills, image = Hills(rng, (8, 8, 3)), rng.uniform(0.4, 0.6, (8, 8, 3))
    before = image.copy()
    once = np.asarray(work.ascend(hills, image, 1, 1, 0.02))
    if not np.array_equal(image, before):
        raise Wrong("`ascend` changes the image that it is given: work on a copy.", line)
    if once.shape != image.shape:
        raise Wrong(f"`ascend` must return an image {image.shape}, received {once.shape}.", line)
    change = float(np.abs(once - before).mean())
    if not np.isclose(change, 0.02, rtol=1e-3):
        raise Wrong(
            f"a step of 0.02 changes a pixel by {change:.3g} on average: divide the gradient by "
            f"the mean of its absolute values.",
            line,
        )
    _, gradient = hills(before, hills.weights(1))
    if np.sum((once - before) * gradient) < 0:
        raise Wrong("`ascend` goes down: add the gradient, do not subtract it.", line)
    equal_numbers("one step of `ascend`", once - before, 0.02 * gradient / np.abs(gradient).mean(),
                  1e-3, line, "along the gradient of the given channel")  # fmt: skip
    hills.calls = 0
    far = np.asarray(work.ascend(hills, image, 0, 40, 0.05))
    if far.min() < 0 or far.max() > 1:
        raise Wrong("`ascend` leaves the range of pixels: clip to 0 and 1 after each step.", line)
    if hills.calls < 40:
        raise Wrong(f"40 steps asked for the gradient {hills.calls} times: ask in each step.", line)
    start = hills(before, hills.weights(0))[0]
    if not hills(far, hills.weights(0))[0] > start:
        raise Wrong("after 40 steps of `ascend` the activation is no higher than before.", line)


@hidden
def check_weights_stay(work, data, rng):
    before = digests(work.net, None)
    work.ascend(Activation(work.net, "classes", squares=False), data["noise"], 0, 2, 0.01)
    frozen_unmoved(work.net, before, work.line_of("ascend"))


def check_orientation(work, data, rng):
    line = work.line_of("orientation")
    for angle in (30.0, 0.0, 90.0, 179.0, *rng.uniform(0, 180, 5)):
        image = work.module.stripes(rng, [angle], 1)[0][0]
        found = float(work.orientation(image))
        if not 0 <= found <= 180:
            raise Wrong(f"`orientation` gives {found:.0f}°: it must be from 0 up to 180.", line)
        if turned(found, angle) <= WITHIN:
            continue
        if turned(found, 90 - angle) <= WITHIN:
            why = "rows and columns are exchanged, or the angle is along the stripes"
        elif turned(found, angle + 90) <= WITHIN:
            why = (
                "that is along the stripes, not across them, or the mean of the angles of both "
                "peaks: average exp(2i angle)"
            )
        else:
            why = "average exp(2i angle), weighted by the power"
        raise Wrong(f"`orientation` of stripes at {angle:.0f}° is {found:.0f}°: {why}.", line)
    tall = np.concatenate([data["clouds"], data["clouds"][:30]])
    work.orientation(tall)  # any size


@hidden
def check_network(work, data, rng):
    accuracies = []
    for _ in range(4):
        images, labels = work.module.stripes(rng, data["angles"], 40)
        probabilities = work.model.predict(work.net.encode(images), verbose=0)
        accuracies.append(
            float(np.mean(probabilities.argmax(axis=1) == labels)) + 1e-9 * rng.random()
        )
    # A network with random weights may be better than a guess, which is 0.25.
    below_baseline(accuracies, 0.5, 5, work.line_of("model"), "accuracy on new images", True)


def check_dreams(work, data):
    line = work.line_of("dreams")
    dreams = np.asarray(work.dreams)
    if dreams.shape != (4, *data["noise"].shape):
        raise Wrong(f"`dreams` must have shape (4, 32, 32, 3), received {dreams.shape}.", line)
    activation = Activation(work.net, "classes", squares=False)
    for k, (dream, angle) in enumerate(zip(dreams, data["angles"], strict=True)):
        weights = activation.weights(k)
        start, end = (activation(image, weights)[0] for image in (data["noise"], dream))
        if not end > start + 1:
            raise Wrong(
                f"the dream of class {k} activates it by {end:.2f}, the noise by {start:.2f}: more "
                f"steps, or the channel is another.",
                line,
            )
        if turned(angle_of(dream), angle) > WITHIN:
            raise Wrong(
                f"the dream of class {k} has stripes at {angle_of(dream):.0f}°, the class at "
                f"{angle:.0f}°.",
                line,
            )
        again = np.asarray(work.ascend(activation, data["noise"], k, work.STEPS, work.STEP_SIZE))
        if np.abs(again - dream).mean() > 0.02:
            raise Wrong(
                f"`ascend` of `net` with STEPS and STEP_SIZE does not give the dream of class {k} "
                f"that is in `dreams`.",
                line,
            )


def check_control(work, data):
    line = work.line_of("control")
    control = np.asarray(work.control)
    if control.shape != (4, *data["noise"].shape):
        raise Wrong(f"`control` must have shape (4, 32, 32, 3), received {control.shape}.", line)
    if kft.fingerprint(work.untrained, None) == kft.fingerprint(work.net, None):
        raise Wrong("`untrained` has the weights of `net`: it is no control.", line)
    off = [turned(angle_of(x), angle) for x, angle in zip(control, data["angles"], strict=True)]
    if max(off) < WITHIN:
        raise Wrong(
            f"the controls have the orientations of the classes, to within {max(off):.0f}°: take "
            f"them from the network with random weights.",
            line,
        )
    activation = Activation(work.untrained, "classes", squares=False)
    for k, image in enumerate(control):
        again = np.asarray(work.ascend(activation, data["noise"], k, work.STEPS, work.STEP_SIZE))
        if np.abs(again - image).mean() > 0.02:
            raise Wrong("`ascend` of `untrained` does not give the images in `control`.", line)


def check_large(work, data):
    line, channel = work.line_of("large"), int(work.channel)
    large = np.asarray(work.large)
    if large.shape != data["clouds"].shape:
        raise Wrong(
            f"`large` must have shape {data['clouds'].shape}, received {large.shape}.", line
        )
    if large.min() < 0 or large.max() > 1:
        raise Wrong("`large` has pixels outside of 0 to 1.", line)
    activation = Activation(work.net, "classes", squares=False)
    middle = np.s_[32:64, 32:64]
    start, end = (
        activation(x[middle], activation.weights(channel))[0] for x in (data["clouds"], large)
    )
    if not end > start + 1:
        raise Wrong(
            f"the dream activates class {channel} by {end:.2f}, the clouds by {start:.2f}.", line
        )
    if turned(angle_of(large), data["angles"][channel]) > WITHIN:
        raise Wrong(
            f"`large` has stripes at {angle_of(large):.0f}°, class {channel} at "
            f"{data['angles'][channel]:.0f}°: dream of it with more steps or fewer octaves.",
            line,
        )
    if np.corrcoef((large - data["clouds"]).ravel(), data["clouds"].ravel())[0, 1] < -0.9:
        raise Wrong("nothing of the clouds is left in `large`: begin with `data['clouds']`.", line)


def check_caption(work, data):
    off = [
        turned(float(work.orientation(image)), angle)
        for image, angle in zip(work.dreams, data["angles"], strict=True)
    ]
    numbers = {
        "the number of training images": len(data["images"]),
        "the number of steps": int(work.STEPS),
        "the largest error of an angle": max(off),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))

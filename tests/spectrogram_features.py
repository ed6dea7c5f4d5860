"""What a simple classifier of spectrograms looks at, for tests and benchmarks."""

import numpy as np


def features(images):
    """Pooled pixels with the loudest column in the middle, and the loudest pixel of each row."""
    images = np.log1p(np.asarray(images, dtype=np.float32) / 10)
    pooled = images.reshape(len(images), 32, 2, 32, 2).mean(axis=(2, 4))
    loudest = (pooled**2).mean(axis=1).argmax(axis=1)
    moved = [np.roll(x, 16 - k, axis=1) for x, k in zip(pooled, loudest, strict=True)]
    return np.hstack([np.reshape(moved, (len(images), -1)), images.max(axis=2)])

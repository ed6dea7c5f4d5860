"""A Keras model that leaves batches in the order in which they come."""

from typing import Any

import keras

from kft.backbones.copies import Copied


class OrderedFit(Copied):
    """A `keras.Model` whose `fit` runs the batches of a `PyDataset` in their own order."""

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, shuffle: bool | None = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Run Keras's `fit`; batches of a `PyDataset` are not shuffled unless `shuffle` is True.

        Keras would shuffle them again, with Python's global random state.
        """
        if shuffle is None:
            shuffle = not isinstance(x, keras.utils.PyDataset)
        return super().fit(x, y, *args, shuffle=shuffle, **kwargs)

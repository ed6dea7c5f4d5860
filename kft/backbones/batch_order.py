"""A Keras model that leaves batches in the order in which they come."""

import keras

from kft.backbones.copies import Copied


class OrderedFit(Copied):
    """A `keras.Model` whose `fit` runs the batches of a `PyDataset` in their own order."""

    def fit(self, x=None, y=None, *args, shuffle=None, **kwargs):
        """Keras's `fit`. Batches of a `PyDataset` come in their own order, unless told to shuffle.

        Keras would shuffle them once more, with Python's global random state.
        """
        if shuffle is None:
            shuffle = not isinstance(x, keras.utils.PyDataset)
        return super().fit(x, y, *args, shuffle=shuffle, **kwargs)

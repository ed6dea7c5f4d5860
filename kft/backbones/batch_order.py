"""A Keras model that leaves batches in the order in which they come."""

import keras

from kft.backbones.copies import Copied


class OrderedFit(Copied):
    """A `keras.Model` whose `fit` runs the batches of a `PyDataset` in their own order."""

    def fit(self, x=None, y=None, *args, shuffle=None, **kwargs):
        """Run Keras's `fit`; batches of a `PyDataset` are not shuffled unless `shuffle` is True.

        Keras would shuffle them again, with Python's global random state.
        """
        if shuffle is None:
            shuffle = not isinstance(x, keras.utils.PyDataset)
        return super().fit(x, y, *args, shuffle=shuffle, **kwargs)

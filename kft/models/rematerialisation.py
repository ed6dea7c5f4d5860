"""`remat`: less memory in training, for more time."""

import keras

from kft.arguments import check_flag, check_instance
from kft.backbones.rematerialised import mark_blocks
from kft.keras_internals import GraphModel
from kft.lora.sharing import retrace_silently
from kft.params import layers


def remat(model: keras.Model, enabled: bool = True) -> list[str]:
    """Let the blocks of a model be computed again for the gradient instead of being kept.

    Rematerialisation, or gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): training
    needs the memory of one block and the inputs of all, and about a third more time. The gradients
    are the same, dropout included, up to rounding. It can be switched at any time, is kept in
    copies and files, and holds for every model of kft on the same blocks. What runs without
    `training=True`, such as `kft.predict`, is left as it is.

    `kft.load(name, remat=True)` and `kft.Model(backbone, head, remat=True)` call it.

    Args:
        model: A backbone of kft, or a `kft.Model` with any backbone that has blocks: layers of the
            graph that are made of several layers with weights.
        enabled: Whether blocks are computed again; False keeps what they compute, as Keras does.

    Returns:
        Paths of the blocks.

    Raises:
        TypeError: The model is a plain Keras model.
        ValueError: It has no blocks.

    Example:
        >>> import kft
        >>> kft.remat(kft.load("kft_esm2_tiny"))
        ['block_0', 'block_1', 'block_2']
    """
    expected = "a backbone of kft or a kft.Model, which kft.Model(backbone, head) makes"
    check_instance("model", model, GraphModel, expected)
    check_flag("enabled", enabled)
    blocks = {id(block) for block in mark_blocks(model, enabled)}
    paths = [path for path, layer in layers(model).items() if id(layer) in blocks]
    retrace_silently(model, paths)
    return paths

"""What vision backbones take from keras-hub: transformer blocks, and its graphs cut into stages.

keras-hub is imported when a part is asked for, never with kft: it brings TensorFlow along.

References: `keras-hub` 0.32, `models/vit/vit_layers.py`, `models/dinov2/dinov2_layers.py`,
`models/resnet/resnet_backbone.py`, `models/efficientnet/efficientnet_backbone.py` and
`models/mobilenet/mobilenet_backbone.py`.
"""

import re
from contextlib import contextmanager
from functools import cache

import keras

from kft.keras_internals import to_snake_case


def keras_hub():
    """The package.

    Raises:
        ImportError: it is not installed, or one that it needs.
        ValueError: Keras is set to channels first, which parts of keras-hub would follow.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"Vision backbones are made of keras-hub's layers, which cannot be imported "
            f'({error}): pip install "kft[vision]".'
        ) from error
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Vision backbones take images with channels last: call "
            'keras.config.set_image_data_format("channels_last").'
        )
    return keras_hub


# Transformers -------------------------------------------------------------------------------------


def encoder_block(sizes, name, dtype):
    """One encoder block, a layer float (B, L, D) -> float (B, L, D).

    Args:
        sizes: dict with family, width, num_heads, hidden_width, epsilon and swiglu.
        name, dtype: of the layer.
    """
    keras_hub()
    width, num_heads, hidden = (sizes[key] for key in ("width", "num_heads", "hidden_width"))
    if sizes["family"] == "dinov2":
        from keras_hub.src.models.dinov2.dinov2_layers import DINOV2Layer

        return DINOV2Layer(
            width, num_heads, hidden, use_swiglu_ffn=sizes["swiglu"], name=name, dtype=dtype
        )
    # DeiT's block computes the same, and answers with a pair whose second is None: no node of a
    # graph can do that.
    return _vit_block()(
        num_heads, width, hidden, layer_norm_epsilon=sizes["epsilon"], name=name, dtype=dtype
    )


@keras.saving.register_keras_serializable("kft", "ViTEncoderBlock")
class _LaterViTBlock(keras.layers.Layer):
    """Stands in Keras's registry for the class below, until keras-hub is imported."""

    @classmethod
    def from_config(cls, config):
        keras_hub()
        return _vit_block().from_config(config)


@cache
def _vit_block():
    from keras_hub.src.models.vit import vit_layers

    # The name is that of its weights in files, too.
    @keras.saving.register_keras_serializable("kft")
    class ViTEncoderBlock(vit_layers.ViTEncoderBlock):
        """keras-hub's, whose config names an argument that its constructor does not have."""

        def get_config(self):
            config = super().get_config()
            return {key: value for key, value in config.items() if key != "key_dim"}

    return ViTEncoderBlock


# Convolutional networks ---------------------------------------------------------------------------


def conv_stages(family, sizes, image_size, dtype):
    """The stages of a convolutional network, functional models of keras-hub's own layers.

    Args:
        family: one of `FAMILIES`.
        sizes: dict, the constructor's arguments of keras-hub's backbone.
        image_size: (H, W).
        dtype: name of a Keras dtype policy.

    Returns:
        list of keras.Model, each from a tensor (B, height, width, channels) to the next.
    """
    hub_class, shape, ends = FAMILIES[family]
    # keras-hub's EfficientNet hands no dtype down to its layers.
    with _dtype_policy(dtype):
        hub = getattr(keras_hub().models, hub_class)(**sizes, **{shape: (*image_size, 3)})
        return _cut(hub, ends(hub))


def _cut(hub, ends):
    """A functional model and [(name, last tensor)] of its stages -> one model per stage."""
    start, stages = hub.input, []
    for name, end in ends:
        # Between inner tensors Keras clones the nodes and shares the layers.
        stage = keras.Model(start, end, name=name)
        _name_anew(stage)
        stages.append(stage)
        start = end
    return stages


def _name_anew(stage):
    """Names that Keras made up count on within one process; these are the same in every one.

    Unique in the whole network: `kft.split` puts all layers into one graph.
    """
    made_up = [
        operation
        for operation in stage.operations
        if re.fullmatch(rf"{to_snake_case(type(operation).__name__)}(_\d+)?", operation.name)
        and not isinstance(operation, keras.layers.InputLayer)
    ]
    for i, operation in enumerate(made_up):
        # They have no weights, whose paths would keep the old name.
        operation.name = f"{stage.name}_{to_snake_case(type(operation).__name__)}_{i}"


def _resnet_ends(hub):
    counts = enumerate(hub.stackwise_num_blocks)
    blocks = [f"stack{i}_block{k}_out" for i, count in counts for k in range(count)]
    ends = [("stem", "pool1_pool"), *((f"block_{i}", name) for i, name in enumerate(blocks))]
    if hub.use_pre_activation:
        ends.append(("final_norm", "post_relu"))
    return [(name, hub.get_layer(last).output) for name, last in ends]


def _efficientnet_ends(hub):
    last = {}  # of each block; layers come in the order of the graph
    for layer in hub.layers:
        if found := re.match(r"block\d+[a-z]", layer.name):
            last[found[0]] = layer.output
    blocks = [(f"block_{i}", output) for i, output in enumerate(last.values())]
    stem, top = (hub.get_layer(f"{part}_activation").output for part in ("stem", "top"))
    return [("stem", stem), *blocks, ("top", top)]


def _mobilenet_ends(hub):
    blocks = [layer for layer in hub.layers if re.fullmatch(r"block_\d+_\d+", layer.name)]
    outputs = [(f"block_{i}", layer.output) for i, layer in enumerate(blocks[:-1])]
    return [("stem", blocks[0].input), *outputs, ("top", blocks[-1].output)]


FAMILIES = {  # keras-hub's class, what it calls the shape of an image, where its stages end
    "resnet": ("ResNetBackbone", "image_shape", _resnet_ends),
    "efficientnet": ("EfficientNetBackbone", "input_shape", _efficientnet_ends),
    "mobilenet": ("MobileNetBackbone", "image_shape", _mobilenet_ends),
}


@contextmanager
def _dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

"""Parts of keras-hub for vision backbones: transformer blocks, and its graphs cut into stages.

keras-hub is imported when a part is used, not with kft: it imports TensorFlow.

References: `keras-hub` 0.32, `models/vit/vit_layers.py`, `models/dinov2/dinov2_layers.py`,
`models/dinov3/dinov3_layers.py`, `models/resnet/resnet_backbone.py`,
`models/efficientnet/efficientnet_backbone.py` and `models/mobilenet/mobilenet_backbone.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import keras
from keras import ops

from kft.backbones.vision.positions import patch_rotations
from kft.keras_internals import change_class, to_snake_case
from kft.native_logs import without_native_logs


def keras_hub() -> ModuleType:
    """Import the package keras-hub.

    Raises:
        ImportError: It is not installed, or a package that it needs.
        ValueError: Keras is set to channels first, which parts of keras-hub would follow.
    """
    try:
        with without_native_logs():
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

# What only a DINOv3 has, and the defaults.
DINOV3_OPTIONS: dict[str, Any] = {
    "num_registers": 0,
    "rope_theta": 100.0,
    "activation": "gelu",
    "biases": ("query", "value", "proj", "mlp"),
}
BIASES = ("query", "key", "value", "proj", "mlp")  # as keras-hub and Hugging Face call them


def encoder_block(sizes: Mapping[str, Any], name: str, dtype: Any) -> keras.Layer:
    """Return an encoder block, a layer float (B, L, D) -> float (B, L, D).

    Args:
        sizes: family, width, num_heads, hidden_width, epsilon; for DINOv2 and DINOv3 also swiglu;
            for DINOv3 also patch_size, image_size and what `DINOV3_OPTIONS` lists.
        name: Name of the layer.
        dtype: Its dtype policy.
    """
    keras_hub()
    width, num_heads, hidden = (sizes[key] for key in ("width", "num_heads", "hidden_width"))
    if sizes["family"] == "dinov2":
        from keras_hub.src.models.dinov2.dinov2_layers import DINOV2Layer

        return DINOV2Layer(
            width, num_heads, hidden, use_swiglu_ffn=sizes["swiglu"], name=name, dtype=dtype
        )
    if sizes["family"] == "dinov3_vit":
        height, columns = (side // sizes["patch_size"] for side in sizes["image_size"])
        return _dinov3_block()(
            (height, columns),
            1 + sizes["num_registers"],
            sizes["rope_theta"],
            hidden_dim=width,
            num_heads=num_heads,
            intermediate_dim=hidden,
            hidden_activation=sizes["activation"],
            use_gated_mlp=sizes["swiglu"],
            layer_norm_eps=sizes["epsilon"],
            **{f"use_{part}_bias": part in sizes["biases"] for part in BIASES},
            name=name,
            dtype=dtype,
        )
    # DeiT's block computes the same, but returns a pair with a None, which no node of a graph can.
    return _vit_block()(
        num_heads, width, hidden, layer_norm_epsilon=sizes["epsilon"], name=name, dtype=dtype
    )


@keras.saving.register_keras_serializable("kft", "ViTEncoderBlock")
class _LaterViTBlock(keras.layers.Layer):
    """Placeholder in Keras's registry for the class below, until keras-hub is imported."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        keras_hub()
        return _vit_block().from_config(config)


@cache
def _vit_block() -> type[keras.Layer]:
    from keras_hub.src.models.vit import vit_layers

    # Weights in files are stored under this name too.
    @keras.saving.register_keras_serializable("kft")
    class ViTEncoderBlock(vit_layers.ViTEncoderBlock):
        """keras-hub's block, whose config names an argument that its constructor does not have."""

        def get_config(self) -> dict[str, Any]:
            config = super().get_config()
            return {key: value for key, value in config.items() if key != "key_dim"}

    return ViTEncoderBlock


@keras.saving.register_keras_serializable("kft", "DINOv3Block")
class _LaterDINOv3Block(keras.layers.Layer):
    """Placeholder in Keras's registry for the class below, until keras-hub is imported."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        keras_hub()
        return _dinov3_block().from_config(config)


@cache
def _dinov3_attention() -> type[keras.Layer]:
    from keras_hub.src.models.dinov3.dinov3_layers import DINOV3Attention

    class DINOv3Attention(DINOV3Attention):
        """keras-hub's attention; in float64 its softmax is too, which on JAX would be float32."""

        def call(
            self,
            inputs: Any,
            attention_mask: Any = None,
            position_embeddings: Any = None,
            num_prefix_tokens: int = 0,
            training: bool | None = None,
        ) -> Any:
            if keras.backend.standardize_dtype(inputs.dtype) != "float64":
                return super().call(
                    inputs, attention_mask, position_embeddings, num_prefix_tokens, training
                )
            shape = (*ops.shape(inputs)[:2], self.num_heads, self.head_dim)  # (B, L, H, d)
            layers = (self.query_dense, self.key_dense, self.value_dense)
            query, key, value = (ops.reshape(layer(inputs), shape) for layer in layers)
            query, key = self._apply_rotary(query, key, *position_embeddings, num_prefix_tokens)
            query, key, value = (ops.swapaxes(x, 1, 2) for x in (query, key, value))  # (B, H, L, d)
            scores = ops.matmul(query, ops.swapaxes(key, 2, 3)) * self.scale  # (B, H, L, L)
            values = ops.matmul(ops.softmax(scores, axis=-1), value)  # (B, H, L, d)
            return self.output_dense(ops.reshape(ops.swapaxes(values, 1, 2), ops.shape(inputs)))

    return DINOv3Attention


@cache
def _dinov3_block() -> type[keras.Layer]:
    from keras_hub.src.models.dinov3.dinov3_layers import DINOV3Layer

    @keras.saving.register_keras_serializable("kft")
    class DINOv3Block(DINOV3Layer):
        """keras-hub's block with the positions of its patches: float (B, L, D) -> float (B, L, D).

        keras-hub passes rotations to each call; here a block has one input, as any stage.

        Args:
            grid: (rows, columns) of patches.
            first: Number of tokens that come first, which are not rotated.
            rope_theta: Ratio between the largest and the smallest frequency.
            **kwargs: Arguments of keras-hub's block.
        """

        def __init__(
            self, grid: tuple[int, int], first: int, rope_theta: float, **kwargs: Any
        ) -> None:
            super().__init__(**kwargs)
            change_class(self.attention, _dinov3_attention())
            self.grid, self.first, self.rope_theta = (grid[0], grid[1]), first, rope_theta
            head_width = self.hidden_dim // self.num_heads
            self.rotations = patch_rotations(self.grid, head_width, rope_theta)

        def call(self, x: Any, training: bool | None = None) -> Any:
            cos, sin = (ops.convert_to_tensor(table, x.dtype) for table in self.rotations)
            return super().call(
                x,
                position_embeddings=(cos, sin),
                num_prefix_tokens=self.first,
                training=training,
            )

        def get_config(self) -> dict[str, Any]:
            own = {"grid": self.grid, "first": self.first, "rope_theta": self.rope_theta}
            return {**super().get_config(), **own}

    return DINOv3Block


# Convolutional networks ---------------------------------------------------------------------------


def conv_stages(
    family: str, sizes: Mapping[str, Any], image_size: tuple[int, int], dtype: str
) -> list[keras.Model]:
    """Return the stages of a convolutional network, functional models of keras-hub's own layers.

    Args:
        family: One of `FAMILIES`.
        sizes: Arguments of the constructor of keras-hub's backbone.
        image_size: (H, W) in pixels.
        dtype: Name of a Keras dtype policy.

    Returns:
        Models, each from a tensor (B, height, width, channels) to the next.
    """
    hub_class, shape, ends = FAMILIES[family]
    # keras-hub's EfficientNet does not pass a dtype to its layers.
    with _dtype_policy(dtype):
        hub = getattr(keras_hub().models, hub_class)(**sizes, **{shape: (*image_size, 3)})
        return _cut(hub, ends(hub))


def _cut(hub: keras.Model, ends: Iterable[tuple[str, keras.KerasTensor]]) -> list[keras.Model]:
    """Cut a functional model at the last tensors of its stages, [(name, last tensor)]."""
    start, stages = hub.input, []
    for name, end in ends:
        # Between inner tensors Keras clones the nodes and shares the layers.
        stage = keras.Model(start, end, name=name)
        _rename(stage)
        stages.append(stage)
        start = end
    return stages


def _rename(stage: keras.Model) -> None:
    """Rename operations whose names Keras made up, so that they are the same in every process.

    Names are unique in the whole network, since `kft.split` puts all layers into one graph.
    """
    made_up = [
        operation
        for operation in stage.operations
        if re.fullmatch(rf"{to_snake_case(type(operation).__name__)}(_\d+)?", operation.name)
        and not isinstance(operation, keras.layers.InputLayer)
    ]
    for i, operation in enumerate(made_up):
        # They have no weights; the paths of those would keep the old name.
        operation.name = f"{stage.name}_{to_snake_case(type(operation).__name__)}_{i}"


def _resnet_ends(hub: keras.Model) -> list[tuple[str, keras.KerasTensor]]:
    counts = enumerate(hub.stackwise_num_blocks)
    blocks = [f"stack{i}_block{k}_out" for i, count in counts for k in range(count)]
    ends = [("stem", "pool1_pool"), *((f"block_{i}", name) for i, name in enumerate(blocks))]
    if hub.use_pre_activation:
        ends.append(("final_norm", "post_relu"))
    return [(name, hub.get_layer(last).output) for name, last in ends]


def _efficientnet_ends(hub: keras.Model) -> list[tuple[str, keras.KerasTensor]]:
    last = {}  # of each block; layers come in the order of the graph
    for layer in hub.layers:
        if found := re.match(r"block\d+[a-z]", layer.name):
            last[found[0]] = layer.output
    blocks = [(f"block_{i}", output) for i, output in enumerate(last.values())]
    stem, top = (hub.get_layer(f"{part}_activation").output for part in ("stem", "top"))
    return [("stem", stem), *blocks, ("top", top)]


def _mobilenet_ends(hub: keras.Model) -> list[tuple[str, keras.KerasTensor]]:
    blocks = [layer for layer in hub.layers if re.fullmatch(r"block_\d+_\d+", layer.name)]
    outputs = [(f"block_{i}", layer.output) for i, layer in enumerate(blocks[:-1])]
    return [("stem", blocks[0].input), *outputs, ("top", blocks[-1].output)]


FAMILIES = {  # keras-hub's class, what it calls the shape of an image, where its stages end
    "resnet": ("ResNetBackbone", "image_shape", _resnet_ends),
    "efficientnet": ("EfficientNetBackbone", "input_shape", _efficientnet_ends),
    "mobilenet": ("MobileNetBackbone", "image_shape", _mobilenet_ends),
}


@contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

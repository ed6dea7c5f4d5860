"""A residual network of dense layers for rows of a table, as a functional Keras model.

Reference: Gorishniy et al. 2021, "Revisiting deep learning models for tabular data",
arXiv:2106.11959, section 3.2 (the model called ResNet there).

Differences from the reference: layer norm in place of batch norm, so that a frozen block has no
statistics that move; no dropout; the columns are scaled by the model itself.

Shapes: `B` rows in a batch, `F` features, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_instance, check_integer
from kft.backbones.base import Backbone
from kft.backbones.checkpoints import rounded
from kft.backbones.composite import Composite
from kft.backbones.quantized import dtype_of, quantize_as
from kft.backbones.tabular.columns import Column, RowEncoder, columns_of
from kft.data.dataset import Dataset
from kft.data.inputs import InputKind
from kft.keras_internals import set_untracked

MODEL_TYPE = "kft_dense"


@keras.saving.register_keras_serializable("kft")
class DenseBlock(Composite):
    """A residual block: float (B, D) -> x + dense_out(relu(dense_in(norm(x)))), (B, D).

    Args:
        width: D.
        hidden_width: Units inside of the block.
        **kwargs: Arguments of `Composite`.
    """

    def __init__(self, width: int, hidden_width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.hidden_width = width, hidden_width
        policy = self.dtype_policy
        self.norm = self.part(keras.layers.LayerNormalization(dtype=policy, name="norm"))
        self.dense_in = self.part(
            keras.layers.Dense(hidden_width, "relu", dtype=policy, name="dense_in")
        )
        self.dense_out = self.part(keras.layers.Dense(width, dtype=policy, name="dense_out"))

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.norm.build(x_shape)
        self.dense_in.build(x_shape)
        self.dense_out.build((*x_shape[:-1], self.hidden_width))

    def call(self, x: Any) -> Any:
        """Compute the block, see the class."""
        return ops.add(x, self.dense_out(self.dense_in(self.norm(x))))

    def compute_output_spec(self, x: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "width": self.width, "hidden_width": self.hidden_width}


@keras.saving.register_keras_serializable("kft")
class DenseBackbone(Backbone):
    """A network for rows of a table: {"columns": float (B, F)} -> float (B, D), after a norm.

    Args:
        columns: List of `Column`, or of their arguments as `get_config` has them.
        num_blocks: Number n of residual blocks.
        width: Size D of the output.
        hidden_width: Units inside of a block; None for 2 D.
        name: Name of the Keras model.
        dtype: Keras dtype or policy, such as "mixed_bfloat16"; the columns are scaled in float32.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        stages: Layers in order: input_scaling (each number minus its mean, divided by its standard
            deviation), embedding, block 0 ... block n-1, final_norm.
        columns: The columns that it takes.

    Raises:
        ValueError: There are no columns, or a size is below 1.

    Example:
        >>> backbone = DenseBackbone([Column("age", mean=40.0, deviation=10.0)], width=16)
        >>> tuple(backbone(backbone.encode([{"age": 31.0}])).shape)
        (1, 16)
    """

    lora_targets = ("dense_in", "dense_out")

    def __init__(
        self,
        columns: Sequence[Column | Mapping[str, Any]],
        num_blocks: int = 3,
        width: int = 64,
        hidden_width: int | None = None,
        name: str = "dense",
        dtype: Any = None,
        **kwargs: Any,
    ):
        if not columns:
            raise ValueError("columns is empty: name at least one column of the inputs.")
        check_integer("num_blocks", num_blocks)
        check_integer("width", width)
        hidden_width = check_integer("hidden_width", hidden_width or 2 * width)
        taken = [x if isinstance(x, Column) else Column(**x) for x in columns]
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        means, deviations = (
            np.repeat([getattr(x, key) for x in taken], [x.features for x in taken])
            for key in ("mean", "deviation")
        )
        scaling = keras.layers.Normalization(
            mean=means.tolist(),
            variance=np.square(deviations).tolist(),
            name="input_scaling",
            dtype="float32",
        )
        stages = [scaling, keras.layers.Dense(width, dtype=dtype, name="embedding")]
        for i in range(num_blocks):
            stages.append(DenseBlock(width, hidden_width, name=f"block_{i}", dtype=dtype))
        stages.append(keras.layers.LayerNormalization(name="final_norm", dtype=dtype))
        inputs = x = keras.Input((len(means),), dtype="float32", name="columns")
        for stage in stages:
            x = stage(x)
        super().__init__({"columns": inputs}, x, stages, name, **kwargs)
        encode = RowEncoder(tuple(taken))
        config = {
            "columns": encode.get_config(),
            "num_blocks": num_blocks,
            "width": width,
            "hidden_width": hidden_width,
            "dtype": dtype_config,
        }
        set_untracked(self, _config=config, encode=encode)
        quantize_as(self, asked)

    @classmethod
    def for_data(cls, data: Any, **options: Any) -> DenseBackbone:
        """Make a backbone for the columns of a data set, with random weights.

        Args:
            data: A `kft.data.Dataset` of rows of a table. Levels, means and standard deviations are
                those of its training part.
            **options: Arguments of the class.

        Returns:
            The backbone.

        Raises:
            TypeError: `data` is no data set.
            ValueError: The inputs are no rows of a table.
        """
        check_instance("data", data, Dataset, "a kft.data.Dataset of rows of a table")
        if data.input_kind is not InputKind.TABLE:
            raise ValueError(
                f"data must hold rows of a table, but the inputs of {data.name} are of the kind "
                f"{data.input_kind}: read it with kft.data.read_table and a list `inputs`."
            )
        return cls(columns_of(data.train.inputs), **options)

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.encode.columns

    def to_hugging_face(self, dtype: Any = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the content of config.json and {name: array}, which `kft.load` reads.

        Args:
            dtype: Numpy dtype that the arrays are rounded to; None keeps theirs.
        """
        arrays = {
            tensor_name(v.path): rounded(v.path, ops.convert_to_numpy(v.value), dtype)
            for v in self.weights
        }
        sizes = {key: value for key, value in self._config.items() if key != "dtype"}
        return {"model_type": MODEL_TYPE, "architectures": [type(self).__name__], **sizes}, arrays

    def get_config(self) -> dict[str, Any]:
        return {**self._config, **super().get_config()}


def tensor_name(path: str) -> str:
    """Return the name of a weight in a file.

    Example:
        >>> tensor_name("block_0/dense_in/kernel")
        'block_0.dense_in.kernel'
    """
    return path.replace("/", ".")

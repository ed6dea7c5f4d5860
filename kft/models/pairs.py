"""Pairs of sequences: two towers that share the layers of a backbone, and their symmetric features.

The features of a pair do not depend on the order of the two: |a - b|, a b and a + b of the pooled
outputs a and b, side by side. Hashemifar et al. 2018, "Predicting protein-protein interactions
through sequence-based deep learning", Bioinformatics 34:i802, take a b; Conneau et al. 2017,
arXiv:1705.02364, take |a - b| and a b.

Differences from the reference: all three features are used, on any backbone.

Shapes: `B` pairs in a batch, `L` tokens of the longer one of a pair, `D` width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_choice, check_instance
from kft.backbones import contract
from kft.backbones.base import Backbone
from kft.backbones.contract import ModuleNames
from kft.data.inputs import InputKind, encoder_info
from kft.data.sequences import checked_pairs
from kft.keras_internals import set_untracked
from kft.models.graphs import run_again
from kft.models.heads.base import Pooling
from kft.params.paths import check_model

SIDES = ("first", "second")
POOLINGS = ("mean", "max", "cls")


class PairEncoder:
    """Encoder of pairs of sequences, by the encoder of one.

    Args:
        encode: Encoder of sequences, see `kft.data.inputs.Encoder`.

    Example:
        >>> import kft
        >>> encode = PairEncoder(kft.load("kft_esm2_tiny").encode)
        >>> {name: array.shape for name, array in encode([("MKTAYI", "GSS")]).items()}
        {'token_ids_first': (1, 8), 'token_ids_second': (1, 8)}
    """

    input_kind = InputKind.PAIR
    check = None
    alphabet = None
    deterministic = True

    def __init__(self, encode: Callable[..., dict[str, np.ndarray]]):
        info = encoder_info(encode)
        self.encode, self.specials, self._changes = encode, info.specials, info.changes
        self.pad = info.pad and {
            f"{name}_{side}": value for name, value in info.pad.items() for side in SIDES
        }

    def changes(self, pairs: Sequence[Any]) -> Counter:
        """Count what encoding changes in the sequences of pairs."""
        both = [sequence for pair in pairs for sequence in pair]
        return Counter() if self._changes is None else self._changes(both)

    def __call__(
        self,
        inputs: Sequence[Any],
        max_length: int | None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the arrays of both sequences, (B, L) each, padded to one length.

        Args:
            inputs: List of B pairs of sequences.
            max_length: Number of residues to keep of each sequence; None keeps all.
            pad_lengths: As for the encoder of one.
            names: Names of the pairs in errors.
        """
        pairs = checked_pairs(inputs)
        names = names or [f"pairs[{i}]" for i in range(len(pairs))]
        sequences = [pair[side] for side in (0, 1) for pair in pairs]
        called = [f"the {side} of {name}" for side in SIDES for name in names]
        arrays = self.encode(sequences, max_length, pad_lengths, called)
        halves = zip(SIDES, (slice(len(pairs)), slice(len(pairs), None)), strict=True)
        return {f"{x}_{side}": array[half] for side, half in halves for x, array in arrays.items()}


@keras.saving.register_keras_serializable("kft")
class PairFeatures(keras.layers.Layer):
    """Symmetric features of two vectors: float (B, D), (B, D) -> (B, 3 D)."""

    def call(self, first: Any, second: Any) -> Any:
        """Return |a - b|, a b and a + b side by side."""
        parts = [ops.abs(first - second), first * second, first + second]
        return ops.concatenate(parts, axis=-1)

    def compute_output_spec(self, first: Any, second: Any) -> Any:
        """Return the shape and dtype of the output."""
        return keras.KerasTensor((first.shape[0], 3 * first.shape[-1]), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kft")
class PairBackbone(Backbone):
    """A backbone for pairs of sequences: both pass the same layers, and their order is not seen.

    It is a backbone as any other: `kft.Model` puts a head on it, all strategies and LoRA work, and
    its stages are those of the backbone of one sequence.

    Args:
        tower: A backbone of sequences, whose layers are shared, not copied.
        pooling: How its output becomes one vector: "mean" over residues, "max" or "cls".
        name: Name of the Keras model.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        tower: The backbone of one sequence.
        encode: Encoder of a list of pairs (first, second).
        width: Size of the output, 3 D.

    Raises:
        TypeError: `tower` is no Keras model with an encoder of sequences.
        ValueError: The pooling is unknown.

    Example:
        >>> import kft
        >>> backbone = PairBackbone(kft.load("kft_esm2_tiny"))
        >>> model = kft.Model(backbone, kft.heads.Classification(2))
        >>> kft.predict(model, [("MKTAYI", "GSS"), ("GSS", "MKTAYI")]).shape
        (2, 2)
    """

    def __init__(
        self, tower: keras.Model, pooling: str = "mean", name: str = "pairs", **kwargs: Any
    ):
        check_instance("tower", tower, keras.Model, "a backbone, such as from kft.load")
        check_model(tower, "tower")
        check_choice("pooling", pooling, POOLINGS)
        check_instance("name", name, str, "a string")
        encode = getattr(tower, "encode", None)
        if encode is None or encoder_info(encode).input_kind is not InputKind.SEQUENCE:
            raise TypeError(
                f"tower must be a backbone whose `encode` takes sequences, received {tower.name}."
            )
        inputs: dict[str, Any] = {}
        pooled = []
        for side in SIDES:
            own = {
                key: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=f"{key}_{side}")
                for key, x in tower.input.items()
            }
            inputs |= {x.name: x for x in own.values()}
            pooled.append(Pooling(pooling, name=f"pooling_{side}")(*_outputs(tower, own)))
        features = PairFeatures(name="pair_features", dtype=pooled[0].dtype)(*pooled)
        super().__init__(inputs, features, list(tower.stages), name, **kwargs)
        set_untracked(self, tower=tower, encode=PairEncoder(encode), _pooling=pooling)

    @property
    def lora_targets(self) -> Any:
        """The targets of the tower."""
        return contract.lora_targets(self.tower)

    @property
    def revision(self) -> str | None:
        """The commit that the weights of the tower were downloaded from."""
        return getattr(self.tower, "revision", None)

    @revision.setter
    def revision(self, value: str | None) -> None:
        self.tower.revision = value

    def fan_in(self, variable: keras.Variable) -> float | None:
        """Return how many numbers one output of a weight is summed over, see `Backbone`."""
        return contract.fan_in(self.tower, variable)

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers of the tower; it has no head for pairs."""
        return contract.module_names(self.tower, list(paths), None, head_path)

    def get_config(self) -> dict[str, Any]:
        tower = keras.saving.serialize_keras_object(self.tower)
        return {"tower": tower, "pooling": self._pooling, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        """Rebuild a backbone from its config, with its adapters and frozen layers."""
        tower = keras.saving.deserialize_keras_object(config["tower"], custom_objects)
        return super().from_config({**config, "tower": tower}, custom_objects)


def _outputs(tower: keras.Model, inputs: Mapping[str, Any]) -> list[Any]:
    """Call the layers of a tower once more; return its output and, if it has one, its mask."""
    mask = getattr(tower, "position_mask", None)
    graph = keras.Model(tower.input, [tower.output, *([] if mask is None else [mask])])
    tensors = {id(tower.input[name]): x for name, x in inputs.items()}
    run_again(graph, tensors)
    return [tensors[id(x)] for x in graph.outputs]

"""Masked autoencoding: a vision transformer is trained on images without labels.

Reference: He et al. 2021, "Masked autoencoders are scalable vision learners", arXiv:2111.06377,
section 3, and its code, `models_mae.py`, whose numbers `transformers` (`ViTMAEForPreTraining`) has
as well. Three quarters of the patches are hidden. The encoder is the backbone, which gets the
visible patches only, so that a step takes a fraction of the time; a small decoder, which is not
used afterwards, predicts the hidden ones from the output of the encoder.

Differences from the reference: the decoder gets the visible patches first and then the hidden
ones, with their positions, in place of all in the order of the image: attention does not depend on
the order, so the numbers are the same, and only hidden patches are predicted, which alone are in
the loss. The positions of the backbone are its own, learned ones. The decoder is smaller by default
(the reference has 8 blocks of width 512).

Shapes: `B` images in a batch, `H` and `W` their sides, `p` the side of a patch, `T` tokens that
come first (class, distillation), `P` patches, `V` visible and `M` hidden ones, `D` width of the
backbone, `E` of the decoder, `N` = 3 p^2 numbers of a patch.
"""

from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kft.arguments import check_integer
from kft.backbones import contract, randomised
from kft.backbones.batch_order import OrderedFit
from kft.backbones.copies import flags, marked, without_flags
from kft.keras_internals import set_direction, set_untracked
from kft.training.optimizers import OptimizerFactory, adamw
from kft.training.pretraining.masked_images import (
    MASK_RATIO,
    digest,
    hide_patches,
    masked_image_batches,
    normalised,
    patchify,
    unpatchify,
)
from kft.training.pretraining.training import Pretraining, check_settings, run

ADAMW = partial(adamw, beta_2=0.95, weight_decay=0.05)  # He et al., table 8
GREY = 0.5  # brightness of hidden patches in figures

# Layers -------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class VisibleTokens(keras.layers.Layer):
    """A layer that keeps the first tokens and the visible patches: (B, T + P, D) -> (B, T + V, D).

    Args:
        first: T.
    """

    def __init__(self, first: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.first = first

    def call(self, x: Any, visible: Any) -> Any:
        """Return the tokens, see the class."""
        patches = ops.take_along_axis(x[:, self.first :], ops.expand_dims(visible, -1), axis=1)
        return ops.concatenate([x[:, : self.first], patches], axis=1)

    def compute_output_spec(self, x: Any, visible: Any) -> Any:
        """Return shape and dtype of the output."""
        length = None if visible.shape[1] is None else self.first + visible.shape[1]
        return keras.KerasTensor((x.shape[0], length, x.shape[2]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "first": self.first}


@keras.saving.register_keras_serializable("kft")
class MaskTokens(keras.layers.Layer):
    """A layer that adds a mask token for each hidden patch after the others, and positions.

    (B, T + V, E), visible (B, V), hidden (B, M) -> (B, T + V + M, E). Positions are fixed, sines
    and cosines of the column and of the row; the tokens that come first have none.

    Args:
        first: T.
        grid: (rows, columns) of patches.
    """

    def __init__(self, first: int, grid: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.first, self.grid = first, (grid[0], grid[1])

    def build(
        self,
        x_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...],
        hidden_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""
        width: Any = x_shape[-1]
        # Zeros are the same on every backend; hidden patches differ in their positions.
        self.token = self.add_weight(shape=(1, 1, width), initializer="zeros", name="mask_token")
        self.positions = sine_cosine(self.grid, width)

    def call(self, x: Any, visible: Any, hidden: Any) -> Any:
        """Compute the tokens, see the class."""
        table = ops.cast(ops.convert_to_tensor(self.positions), x.dtype)  # (P, E)
        visible = ops.take(table, visible, axis=0)  # (B, V, E)
        hidden = ops.take(table, hidden, axis=0)  # (B, M, E)
        seen = ops.add(x[:, self.first :], visible)
        unseen = ops.add(ops.cast(self.token, x.dtype), hidden)
        return ops.concatenate([x[:, : self.first], seen, unseen], axis=1)

    def compute_output_spec(self, x: Any, visible: Any, hidden: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((x.shape[0], None, x.shape[2]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "first": self.first, "grid": self.grid}


@keras.saving.register_keras_serializable("kft")
class HiddenTokens(keras.layers.Layer):
    """A layer that keeps the last tokens, the hidden patches: (B, T + V + M, E) -> (B, M, E)."""

    def call(self, x: Any, hidden: Any) -> Any:
        """Return the tokens, see the class."""
        return x[:, ops.shape(x)[1] - ops.shape(hidden)[1] :]

    def compute_output_spec(self, x: Any, hidden: Any) -> Any:
        """Return shape and dtype of the output."""
        shape = (x.shape[0], hidden.shape[1], x.shape[2])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:  # Keras's own does not hold a dtype that is a policy
        """Return the arguments."""
        return super().get_config()


def sine_cosine(grid: tuple[int, int], width: int) -> np.ndarray:
    """Compute fixed positions of patches: half of the width for the column, half for the row.

    Args:
        grid: (rows, columns).
        width: E, a multiple of 4.

    Returns:
        float32 array (rows * columns, E): sines and cosines of the column, then of the row.

    Source: `get_2d_sincos_pos_embed` of the reference's code.

    Example:
        >>> sine_cosine((2, 3), 8).shape
        (6, 8)
    """
    frequencies = 10000.0 ** -(np.arange(width // 4) / (width / 4))
    rows, columns = np.meshgrid(*map(np.arange, grid), indexing="ij")
    angles = [np.outer(place.ravel(), frequencies) for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype("float32")


# The model ----------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class MaskedAutoencoder(OrderedFit):
    """A backbone that gets the visible patches, and a decoder; see `masked_autoencoder`.

    Args:
        backbone: As for `masked_autoencoder`.
        decoder_blocks: Number of blocks of the decoder.
        decoder_width: Width of the decoder.
        decoder_heads: Number of attention heads of the decoder.
        normalise: Whether to predict patches of mean 0 and variance 1, or pixels.
        name: Name of the model.

    Attributes:
        encoder: keras.Model of {"images", "visible"} -> float (B, T + V, D), the layers of the
            backbone; with all patches visible and in order its output is that of the backbone.
        encode: The `encode` of the backbone.
        patch_size: p.
        normalise: Whether it predicts patches of mean 0 and variance 1, or pixels.
    """

    def __init__(
        self,
        backbone: keras.Model,
        decoder_blocks: int = 2,
        decoder_width: int = 128,
        decoder_heads: int = 4,
        normalise: bool = True,
        name: str = "masked_autoencoder",
    ):
        check_backbone(backbone)
        embedding, *rest = backbone.stages
        images = keras.Input((*backbone.image_size, 3), name="images")
        visible, hidden = (
            keras.Input((None,), dtype="int32", name=name) for name in ("visible", "hidden")
        )
        first = len(embedding.tokens)
        keep = VisibleTokens(first, name="visible_tokens", dtype=embedding.dtype_policy)
        x = keep(embedding(images), visible)
        for stage in rest:
            x = stage(x)
        decoder = _decoder(backbone, decoder_blocks, decoder_width, decoder_heads)
        output = decoder({"features": x, "visible": visible, "hidden": hidden})
        super().__init__(
            {"images": images, "visible": visible, "hidden": hidden}, output, name=name
        )
        self.encode, self.patch_size = backbone.encode, embedding.patch_size
        self.normalise = normalise
        # The layers are those of this graph already.
        set_untracked(
            self,
            _features=x,
            _serialized=lambda: {
                "backbone": keras.saving.serialize_keras_object(backbone),
                "normalise": normalise,
                "name": self.name,
                "decoder_blocks": decoder_blocks,
                "decoder_width": decoder_width,
                "decoder_heads": decoder_heads,
            },
        )

    @cached_property
    def encoder(self) -> keras.Model:
        inputs = {name: self.input[name] for name in ("images", "visible")}
        return keras.Model(inputs, self._features, name="encoder")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, and which layers are frozen."""
        return {**self._serialized(), **flags(self)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return marked(cls(**{**without_flags(config), "backbone": backbone}), config)


def _decoder(backbone: keras.Model, num_blocks: int, width: int, num_heads: int) -> keras.Model:
    """{"features": (B, T + V, D), "visible", "hidden"} -> float32 (B, M, N)."""
    check_integer("decoder_blocks", num_blocks)
    check_integer("decoder_heads", num_heads)
    if check_integer("decoder_width", width) % 4 or width % num_heads:
        raise ValueError(
            f"decoder_width must be a multiple of 4 and of decoder_heads, received "
            f"decoder_width={width}, decoder_heads={num_heads}."
        )
    embedding = backbone.stages[0]
    options = {"dtype": embedding.dtype_policy}
    features = keras.Input((None, backbone.width), name="features", dtype=embedding.compute_dtype)
    visible, hidden = (
        keras.Input((None,), dtype="int32", name=name) for name in ("visible", "hidden")
    )
    x = keras.layers.Dense(width, name="narrow", **options)(features)
    tokens = MaskTokens(len(embedding.tokens), embedding.grid, name="mask_tokens", **options)
    x = tokens(x, visible, hidden)
    for i in range(num_blocks):
        name = f"decoder_block_{i}"
        x = backbone.decoder_block(width, num_heads, name, embedding.dtype_policy)(x)
    x = HiddenTokens(name="hidden_tokens", **options)(x, hidden)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="decoder_norm", **options)(x)
    x = keras.layers.Dense(3 * embedding.patch_size**2, name="pixels", dtype="float32")(x)
    inputs = {"features": features, "visible": visible, "hidden": hidden}
    return keras.Model(inputs, x, name="decoder")


def masked_autoencoder(
    backbone: keras.Model,
    *,
    decoder_blocks: int = 2,
    decoder_width: int = 128,
    decoder_heads: int = 4,
    normalise: bool = True,
    seed: int = 0,
) -> MaskedAutoencoder:
    """Make the model of masked autoencoding around a backbone, which shares its weights.

    Args:
        backbone: A `VisionTransformer` (ViT, DeiT, DINOv2), loaded or new; it is trained in place.
        decoder_blocks: Number of blocks of the decoder; a small one is enough (He et al., table 1).
        decoder_width: Width of the decoder, a multiple of 4 and of `decoder_heads`.
        decoder_heads: Number of attention heads of the decoder.
        normalise: Whether to predict patches of mean 0 and variance 1, or pixels.
        seed: Int from which the decoder's weights are drawn, the same on every backend.

    Returns:
        MaskedAutoencoder: {"images": float (B, H, W, 3), "visible": int32 (B, V), "hidden": int32
        (B, M)} of `masked_image_batches` -> float32 (B, M, N), the hidden patches. Compile it with
        the loss "mse".

    Raises:
        ValueError: A backbone without patches, or sizes that do not fit together.

    Example:
        >>> import kft
        >>> from kft.backbones.vision import VisionTransformer
        >>> backbone = VisionTransformer("vit", 1, 16, 2, patch_size=8, image_size=32)
        >>> model = masked_autoencoder(kft.backbones.randomised(backbone, 0), decoder_width=16)
        >>> pictures = list(np.zeros((4, 32, 32), "uint8"))
        >>> batches = masked_image_batches(pictures, model.encode, patch_size=model.patch_size)
        >>> model.compile("adam", "mse")
        >>> len(model.fit(batches, epochs=2, verbose=0).history["loss"])
        2
    """
    model = MaskedAutoencoder(backbone, decoder_blocks, decoder_width, decoder_heads, normalise)
    decoder = randomised(model.get_layer("decoder"), seed)
    pixels = decoder.get_layer("pixels")
    # It begins with the mean patch, whose error is 1, and not with noise, whose error is 2.
    pixels.kernel.assign(np.zeros(pixels.kernel.shape, dtype="float32"))
    return model


def check_backbone(backbone: keras.Model) -> None:
    """Raise an error for a backbone that has no patches to hide.

    Args:
        backbone: Any.

    Raises:
        ValueError: It has no patches, see `kft.backbones.contract.objectives`.
    """
    if "masked_autoencoding" not in contract.objectives(backbone):
        raise ValueError(
            f"Masked autoencoding needs patches: backbone must be a vision transformer (ViT, DeiT, "
            f"DINOv2; not DINOv3), received {type(backbone).__name__} {backbone.name!r}. Of a "
            f"kft.Model give model.backbone."
        )


@keras.saving.register_keras_serializable("kft")
class RelativeError(keras.metrics.Mean):
    """Squared error at hidden patches, relative to predicting each patch by its own mean.

    0 is perfect, 1 a uniform patch of the right brightness.

    Args:
        name: Name of the metric.
        dtype: As for keras.metrics.Metric.
    """

    def __init__(self, name: str = "relative_error", dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        set_direction(self, "down")  # less is better, for Keras's callbacks

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        flat = ops.mean(y_true, axis=-1, keepdims=True)  # (B, M, 1)
        self.total.assign(self.total + ops.sum(ops.square(y_true - y_pred)))
        self.count.assign(self.count + ops.sum(ops.square(y_true - flat)))

    def result(self) -> Any:
        return ops.where(self.count > 0, super().result(), float("nan"))


# Training -----------------------------------------------------------------------------------------


def pretrain_images(
    backbone: keras.Model,
    images: Iterable,
    valid: Iterable | None = None,
    *,
    epochs: int = 100,
    steps: int | None = None,
    batch_size: int = 64,
    mask_ratio: float = MASK_RATIO,
    learning_rate: float = 1e-3,
    warmup: float = 0.05,
    accumulate: int = 1,
    normalise: bool = True,
    decoder_blocks: int = 2,
    decoder_width: int = 128,
    decoder_heads: int = 4,
    optimizer: OptimizerFactory = ADAMW,
    seed: int = 0,
    out: Path | str | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
) -> Pretraining:
    """Train a backbone to fill in hidden patches, from random or from pre-trained weights.

    Args:
        backbone: A `VisionTransformer` (ViT, DeiT, DINOv2); it is trained in place.
        images: List of images of any kind, see `kft.backbones.vision.images`.
        valid: List of images that are scored after every epoch, always with the same masks.
        epochs: Number of epochs; another number is another schedule of the learning rate. He et al.
            train for 800 and more, and small data sets need many as well.
        steps: Optimizer steps of an epoch; None for one pass over the images.
        batch_size: Number of images per batch.
        mask_ratio: Fraction of the patches that are hidden.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which it rises; then it falls along a cosine to zero.
        accumulate: Batches whose gradients are averaged for one optimizer step.
        normalise: Whether to predict patches of mean 0 and variance 1, or pixels.
        decoder_blocks: Number of blocks of the decoder; a small one is enough (He et al., table 1).
        decoder_width: Width of the decoder, a multiple of 4 and of `decoder_heads`.
        decoder_heads: Number of attention heads of the decoder.
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer.
        seed: Int that determines the order of the images, masks and the decoder's first weights.
        out: Folder of `state.npz`, from which an interrupted training continues, or None.
        callbacks: Keras callbacks.
        verbose: As for Keras's `fit`.

    Returns:
        Pretraining; its model is the `MaskedAutoencoder`, for `reconstruct`.

    Raises:
        ValueError: A backbone without patches, no images, a ratio outside (0, 1), too few patches,
            or a setting out of range.
        FloatingPointError: The loss or a weight is NaN or infinity.

    Example:
        >>> import kft
        >>> from kft.backbones.vision import VisionTransformer
        >>> backbone = VisionTransformer("vit", 1, 16, 2, patch_size=8, image_size=32)
        >>> pictures = list(np.random.default_rng(0).integers(0, 255, (4, 32, 32), "uint8"))
        >>> done = pretrain_images(backbone, pictures, epochs=2, decoder_width=16, verbose=0)
        >>> [row["images"] for row in done.history]
        [4, 8]
    """
    check_backbone(backbone)
    check_settings(learning_rate, warmup, epochs=epochs, accumulate=accumulate)
    options = {
        "batch_size": batch_size,
        "mask_ratio": mask_ratio,
        "seed": seed,
        "normalise": normalise,
    }
    sized = {**options, "patch_size": backbone.stages[0].patch_size}
    steps = steps and steps * accumulate
    train = masked_image_batches(images, backbone.encode, steps=steps, **sized)
    if valid is not None:
        valid = masked_image_batches(valid, backbone.encode, fresh=False, **sized)
    decoder = {
        "decoder_blocks": decoder_blocks,
        "decoder_width": decoder_width,
        "decoder_heads": decoder_heads,
    }
    model = masked_autoencoder(backbone, normalise=normalise, seed=seed, **decoder)
    settings = {"images": digest(train.images), "backbone": backbone.get_config(), **decoder}
    return run(
        model,
        train,
        valid,
        {**settings, **options},
        ("images", train.one_pass * train.batch_size),
        loss="mse",
        metrics=[RelativeError()],
        epochs=epochs,
        learning_rate=learning_rate,
        warmup=warmup,
        accumulate=accumulate,
        optimizer=optimizer,
        out=out,
        callbacks=callbacks,
        verbose=verbose,
    )


# Reconstruction -----------------------------------------------------------------------------------


class Reconstruction(NamedTuple):
    """Images of a masked autoencoder: original, with hidden patches, and reconstructed.

    Attributes:
        original: float32 array (B, H, W, 3) in [0, 1].
        masked: The same with hidden patches in grey.
        reconstructed: The same with what the model has put in their place.
    """

    original: np.ndarray
    masked: np.ndarray
    reconstructed: np.ndarray


def reconstruct(
    autoencoder: MaskedAutoencoder,
    images: Iterable,
    seed: int = 0,
    mask_ratio: float = MASK_RATIO,
    batch_size: int = 64,
) -> Reconstruction:
    """Hide patches of images and fill them in.

    As in the paper's figures, the output of a model that predicts normalised patches is scaled
    with the mean and the deviation of the true patch, which it was not trained to predict: the
    figure shows how well it predicts the pattern, not brightness and contrast. Visible patches are
    shown as they are.

    Args:
        autoencoder: MaskedAutoencoder.
        images: List of images of any kind.
        seed: Int from which the masks are drawn.
        mask_ratio: Fraction of the patches that are hidden.
        batch_size: Images at a time.

    Returns:
        Reconstruction of original, masked (hidden patches grey) and reconstructed images, each
        float32 (B, H, W, 3) in [0, 1].

    Raises:
        ValueError: As `masked_image_batches`.

    Source: He et al. 2021, figure 2.

    Example:
        >>> from kft.backbones.vision import VisionTransformer
        >>> backbone = VisionTransformer("vit", 1, 16, 2, patch_size=8, image_size=32)
        >>> model = masked_autoencoder(backbone, decoder_width=16)
        >>> reconstruct(model, [np.zeros((20, 20), "uint8")]).reconstructed.shape
        (1, 32, 32, 3)
    """
    encode, p = autoencoder.encode, autoencoder.patch_size
    pixels = encode(images)["images"]
    patches = patchify(pixels, p)  # (B, P, N)
    rng = np.random.default_rng((seed, 2))
    visible, hidden = hide_patches(len(patches), patches.shape[1], mask_ratio, rng)
    inputs = {"images": pixels, "visible": visible, "hidden": hidden}
    predicted = autoencoder.predict(inputs, batch_size=batch_size, verbose=0)
    if autoencoder.normalise:
        _, mean, deviation = normalised(np.take_along_axis(patches, hidden[..., None], axis=1))
        predicted = predicted * deviation + mean
    filled, grey = patches.copy(), patchify(_coloured(pixels, encode), p)
    np.put_along_axis(filled, hidden[..., None], predicted, axis=1)
    np.put_along_axis(grey, hidden[..., None], np.float32(GREY), axis=1)
    original, reconstructed = (
        _coloured(x, encode) for x in (pixels, unpatchify(filled, p, encode.size))
    )
    return Reconstruction(original, unpatchify(grey, p, encode.size), reconstructed)


def _coloured(pixels: np.ndarray, encode: Any) -> np.ndarray:
    """Encoded images -> float32 in [0, 1]."""
    values = pixels * np.float32(encode.std) + np.float32(encode.mean)
    return np.clip(values / 255, 0, 1).astype("float32")

"""Masked autoencoding: a vision transformer learns from images alone, by what it cannot see.

Reference: He et al. 2021, "Masked autoencoders are scalable vision learners", arXiv:2111.06377,
section 3, and its code, `models_mae.py`, whose numbers `transformers` (`ViTMAEForPreTraining`) has
as well. Three quarters of the patches are hidden. The encoder is the backbone, which sees the
visible ones only, so that a step takes a fraction of the time; a small decoder, which is thrown
away afterwards, fills in the hidden ones from what the encoder says.

Differences from the reference: the decoder sees the visible patches first and then the hidden
ones, with their positions, in place of all in the order of the image: attention does not know an
order, so the numbers are the same, and the prediction is made for hidden patches only, which alone
count in the loss. The backbone's positions are its own, learned ones. The decoder is smaller unless
it is told otherwise (the reference has 8 blocks of width 512).

Shapes: `B` images in a batch, `H` and `W` their sides, `p` the side of a patch, `T` tokens that
come first (class, distillation), `P` patches, `V` visible and `M` hidden ones, `D` width of the
backbone, `E` of the decoder, `N` = 3 p^2 numbers of a patch.
"""

from functools import cached_property, partial
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kft.backbones import contract, randomised
from kft.backbones.batch_order import OrderedFit
from kft.backbones.copies import flags, marked, without_flags
from kft.keras_internals import set_direction
from kft.training.optimizers import adamw
from kft.training.pretraining.masked_images import (
    RATIO,
    digest,
    hide_patches,
    masked_image_batches,
    normalised,
    patchify,
    unpatchify,
)
from kft.training.pretraining.training import check_settings, run

ADAMW = partial(adamw, beta_2=0.95, weight_decay=0.05)  # He et al., table 8
GREY = 0.5  # what a hidden patch is drawn in

# Layers -------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class VisibleTokens(keras.layers.Layer):
    """Keeps the tokens that come first and the visible patches: (B, T + P, D) -> (B, T + V, D).

    Args:
        first: T.
    """

    def __init__(self, first, **kwargs):
        super().__init__(**kwargs)
        self.first = first

    def call(self, x, visible):
        patches = ops.take_along_axis(x[:, self.first :], ops.expand_dims(visible, -1), axis=1)
        return ops.concatenate([x[:, : self.first], patches], axis=1)

    def compute_output_spec(self, x, visible):
        length = None if visible.shape[1] is None else self.first + visible.shape[1]
        return keras.KerasTensor((x.shape[0], length, x.shape[2]), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "first": self.first}


@keras.saving.register_keras_serializable("kft")
class MaskTokens(keras.layers.Layer):
    """Puts a mask token for each hidden patch behind the others, and adds positions.

    (B, T + V, E), visible (B, V), hidden (B, M) -> (B, T + V + M, E). Positions are fixed, sines
    and cosines of the column and of the row; the tokens that come first have none.

    Args:
        first: T.
        grid: (rows, columns) of patches.
    """

    def __init__(self, first, grid, **kwargs):
        super().__init__(**kwargs)
        self.first, self.grid = first, tuple(grid)

    def build(self, x_shape, visible_shape, hidden_shape):
        width = x_shape[-1]
        # Zeros are the same on every backend; positions tell the hidden patches apart.
        self.token = self.add_weight(shape=(1, 1, width), initializer="zeros", name="mask_token")
        self.positions = sine_cosine(self.grid, width)

    def call(self, x, visible, hidden):
        table = ops.cast(ops.convert_to_tensor(self.positions), x.dtype)  # (P, E)
        visible = ops.take(table, visible, axis=0)  # (B, V, E)
        hidden = ops.take(table, hidden, axis=0)  # (B, M, E)
        seen = ops.add(x[:, self.first :], visible)
        unseen = ops.add(ops.cast(self.token, x.dtype), hidden)
        return ops.concatenate([x[:, : self.first], seen, unseen], axis=1)

    def compute_output_spec(self, x, visible, hidden):
        return keras.KerasTensor((x.shape[0], None, x.shape[2]), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "first": self.first, "grid": self.grid}


@keras.saving.register_keras_serializable("kft")
class HiddenTokens(keras.layers.Layer):
    """Keeps the last tokens, those of the hidden patches: (B, T + V + M, E) -> (B, M, E)."""

    def call(self, x, hidden):
        return x[:, ops.shape(x)[1] - ops.shape(hidden)[1] :]

    def compute_output_spec(self, x, hidden):
        shape = (x.shape[0], hidden.shape[1], x.shape[2])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):  # Keras's own cannot tell of a dtype that is a policy
        return super().get_config()


def sine_cosine(grid, width):
    """Fixed positions of patches: half of the width says the column, half the row.

    Args:
        grid: (rows, columns).
        width: E, a multiple of 4.

    Returns:
        float32 array (rows * columns, E): sines and cosines of the column, then of the row.

    Source: `get_2d_sincos_pos_embed` of the reference's code.
    """
    frequencies = 10000.0 ** -(np.arange(width // 4) / (width / 4))
    rows, columns = np.meshgrid(*map(np.arange, grid), indexing="ij")
    angles = [np.outer(place.ravel(), frequencies) for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype("float32")


# The model ----------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class MaskedAutoencoder(OrderedFit):
    """A backbone that sees visible patches, and a decoder; see `masked_autoencoder`.

    Attributes:
        encoder: keras.Model of {"images", "visible"} -> float (B, T + V, D), the backbone's own
            layers; with all patches visible and in order it answers what the backbone does.
        encode: that of the backbone.
        patch_size: p.
        normalise: whether it predicts patches of mean 0 and variance 1, or pixels.
    """

    def __init__(
        self, backbone, decoder_blocks=2, decoder_width=128, decoder_heads=4, normalise=True,
        name="masked_autoencoder",
    ):  # fmt: skip
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
        sizes = {"num_blocks": decoder_blocks, "width": decoder_width, "num_heads": decoder_heads}
        decoder = _decoder(backbone, **sizes)
        answer = decoder({"features": x, "visible": visible, "hidden": hidden})
        super().__init__(
            {"images": images, "visible": visible, "hidden": hidden}, answer, name=name
        )
        self.encode, self.patch_size = backbone.encode, embedding.patch_size
        self.normalise = normalise
        # By hand, not to be tracked: the layers are those of this graph already.
        vars(self)["_features"] = x
        vars(self)["_serialized"] = lambda: {
            "backbone": keras.saving.serialize_keras_object(backbone), "normalise": normalise,
            "name": self.name, **{f"decoder_{key[4:] if key[:4] == 'num_' else key}": value
                                  for key, value in sizes.items()},
        }  # fmt: skip

    @cached_property
    def encoder(self):
        inputs = {name: self.input[name] for name in ("images", "visible")}
        return keras.Model(inputs, self._features, name="encoder")

    def get_config(self):
        return {**self._serialized(), **flags(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return marked(cls(**{**without_flags(config), "backbone": backbone}), config)


def _decoder(backbone, num_blocks, width, num_heads):
    """{"features": (B, T + V, D), "visible", "hidden"} -> float32 (B, M, N)."""
    if num_blocks < 1 or width % 4 or width % num_heads:
        raise ValueError(
            f"A decoder needs decoder_blocks >= 1 and a decoder_width that is a multiple of 4 and "
            f"of decoder_heads, received decoder_blocks={num_blocks}, decoder_width={width}, "
            f"decoder_heads={num_heads}."
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
    backbone, *, decoder_blocks=2, decoder_width=128, decoder_heads=4, normalise=True, seed=0
):
    """Makes the model of masked autoencoding around a backbone, with which it shares its weights.

    Args:
        backbone: a `VisionTransformer` (ViT, DeiT, DINOv2), loaded or made; it learns in place.
        decoder_blocks, decoder_width, decoder_heads: of the decoder; a light one is enough (He et
            al., table 1).
        normalise: whether it is to predict patches of mean 0 and variance 1, or pixels.
        seed: int from which the decoder's weights are drawn, the same on every backend.

    Returns:
        MaskedAutoencoder: {"images": float (B, H, W, 3), "visible": int32 (B, V), "hidden": int32
        (B, M)} of `masked_image_batches` -> float32 (B, M, N), the hidden patches. Compile it with
        the loss "mse".

    Raises:
        ValueError: a backbone without patches, or sizes that do not fit together.

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


def check_backbone(backbone):
    """Refuses what has no patches to hide.

    Raises:
        ValueError: it is no `VisionTransformer`.
    """
    if "masked_autoencoding" not in contract.objectives(backbone):
        raise ValueError(
            f"Masked autoencoding needs patches: backbone must be a vision transformer (ViT, DeiT, "
            f"DINOv2), received {type(backbone).__name__}. Of a kft.Model give model.backbone."
        )


@keras.saving.register_keras_serializable("kft")
class RelativeError(keras.metrics.Mean):
    """Squared error at hidden patches, relative to predicting each patch by its own mean.

    0 is perfect, 1 a uniform patch of the right brightness.
    """

    def __init__(self, name="relative_error", dtype=None):
        super().__init__(name=name, dtype=dtype)
        set_direction(self, "down")  # less is better, for Keras's callbacks

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        flat = ops.mean(y_true, axis=-1, keepdims=True)  # (B, M, 1)
        self.total.assign(self.total + ops.sum(ops.square(y_true - y_pred)))
        self.count.assign(self.count + ops.sum(ops.square(y_true - flat)))

    def result(self):
        return ops.where(self.count > 0, super().result(), float("nan"))


# Training -----------------------------------------------------------------------------------------


def pretrain_images(
    backbone, images, valid=None, *, epochs=100, steps=None, batch_size=64, ratio=RATIO, rate=1e-3,
    warmup=0.05, accumulate=1, normalise=True, decoder_blocks=2, decoder_width=128, decoder_heads=4,
    make=ADAMW, seed=0, out=None, callbacks=(), verbose="auto",
):  # fmt: skip
    """Trains a backbone to fill in hidden patches: from random weights, or further on one's own.

    Args:
        backbone: a `VisionTransformer` (ViT, DeiT, DINOv2); it is trained in place.
        images: list of images of any kind, see `kft.backbones.vision.images`.
        valid: list of images that are scored after every epoch, always with the same masks.
        batch_size, ratio, seed: as for `masked_image_batches`.
        normalise, decoder_blocks, decoder_width, decoder_heads: as for `masked_autoencoder`.
        epochs, steps, rate, warmup, accumulate, make, out, callbacks, verbose: as for `pretrain`;
            He et al. train for 800 epochs and more, small data sets need many as well.

    Returns:
        Pretraining; its model is the `MaskedAutoencoder`, for `reconstruct`.

    Raises:
        ValueError: a backbone without patches, no images, a ratio outside (0, 1), too few patches,
            or a share or count that is none.
        FloatingPointError: the loss is no number any more.

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
    check_settings(rate, warmup, epochs=epochs, accumulate=accumulate)
    options = {"batch_size": batch_size, "ratio": ratio, "seed": seed, "normalise": normalise}
    sized = {**options, "patch_size": backbone.stages[0].patch_size}
    steps = steps and steps * accumulate
    train = masked_image_batches(images, backbone.encode, steps=steps, **sized)
    if valid is not None:
        valid = masked_image_batches(valid, backbone.encode, fresh=False, **sized)
    decoder = {"decoder_blocks": decoder_blocks, "decoder_width": decoder_width,
               "decoder_heads": decoder_heads}  # fmt: skip
    model = masked_autoencoder(backbone, normalise=normalise, seed=seed, **decoder)
    about = {"images": digest(train.images), "backbone": backbone.get_config(), **decoder}
    seen = "images", train.one_pass * train.batch_size
    return run(
        model, train, valid, {**about, **options}, seen, loss="mse", metrics=[RelativeError()],
        epochs=epochs, rate=rate, warmup=warmup, accumulate=accumulate, make=make, out=out,
        callbacks=callbacks, verbose=verbose,
    )  # fmt: skip


# What it sees -------------------------------------------------------------------------------------


class Reconstruction(NamedTuple):
    """Images as a masked autoencoder had them, as it saw them and as it completed them.

    Attributes:
        original, masked, reconstructed: float32 arrays (B, H, W, 3) in [0, 1].
    """

    original: np.ndarray
    masked: np.ndarray
    reconstructed: np.ndarray


def reconstruct(autoencoder, images, seed=0, ratio=RATIO, batch_size=64):
    """Hides patches of images and fills them in.

    As in the paper's figures, a model that predicts normalised patches is lent the mean and the
    deviation of the true patch to undo that, which it was never asked for: what is shown is how
    well it knows the pattern, not the brightness and the contrast. Visible patches are shown as
    they were.

    Args:
        autoencoder: MaskedAutoencoder.
        images: list of images of any kind.
        seed: int from which the masks are drawn.
        ratio: the share of the patches that is hidden.
        batch_size: images at a time.

    Returns:
        Reconstruction of original, masked (hidden patches grey) and reconstructed images, each
        float32 (B, H, W, 3) in [0, 1].

    Raises:
        ValueError: as `masked_image_batches`.

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
    visible, hidden = hide_patches(*patches.shape[:2], ratio, rng)
    inputs = {"images": pixels, "visible": visible, "hidden": hidden}
    answers = autoencoder.predict(inputs, batch_size=batch_size, verbose=0)
    if autoencoder.normalise:
        _, mean, deviation = normalised(np.take_along_axis(patches, hidden[..., None], axis=1))
        answers = answers * deviation + mean
    filled, grey = patches.copy(), patchify(_coloured(pixels, encode), p)
    np.put_along_axis(filled, hidden[..., None], answers, axis=1)
    np.put_along_axis(grey, hidden[..., None], np.float32(GREY), axis=1)
    original, reconstructed = (
        _coloured(x, encode) for x in (pixels, unpatchify(filled, p, encode.size))
    )
    return Reconstruction(original, unpatchify(grey, p, encode.size), reconstructed)


def _coloured(pixels, encode):
    """What `encode` made of images -> float32 in [0, 1]."""
    values = pixels * np.float32(encode.std) + np.float32(encode.mean)
    return np.clip(values / 255, 0, 1).astype("float32")

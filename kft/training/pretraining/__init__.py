"""Pre-training without labels: masked language modelling and masked autoencoding.

`pretrain` and `pretrain_images` train a backbone in place; `training` holds their common part.
"""

from kft.training.pretraining.masked_autoencoding import (
    MaskedAutoencoder,
    Reconstruction,
    RelativeError,
    masked_autoencoder,
    pretrain_images,
    reconstruct,
)
from kft.training.pretraining.masked_images import (
    MaskedImageBatches,
    hide_patches,
    masked_image_batches,
    normalised,
    patchify,
    unpatchify,
)
from kft.training.pretraining.masked_language import (
    ADAMW,
    AS_ANOTHER,
    AS_MASK,
    CHOSEN,
    STANDARD,
    MaskedAccuracy,
    MaskedBatches,
    MaskedCrossEntropy,
    Perplexity,
    encoded,
    hide,
    language_model,
    masked_batches,
    pretrain,
)
from kft.training.pretraining.training import Pretraining
from kft.training.pretraining.vocabulary import Vocabulary, vocabulary_of

__all__ = [
    "ADAMW",
    "AS_ANOTHER",
    "AS_MASK",
    "CHOSEN",
    "STANDARD",
    "MaskedAccuracy",
    "MaskedAutoencoder",
    "MaskedBatches",
    "MaskedCrossEntropy",
    "MaskedImageBatches",
    "Perplexity",
    "Pretraining",
    "Reconstruction",
    "RelativeError",
    "Vocabulary",
    "encoded",
    "hide",
    "hide_patches",
    "language_model",
    "masked_autoencoder",
    "masked_batches",
    "masked_image_batches",
    "normalised",
    "patchify",
    "pretrain",
    "pretrain_images",
    "reconstruct",
    "unpatchify",
    "vocabulary_of",
]

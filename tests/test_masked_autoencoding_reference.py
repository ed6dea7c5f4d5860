"""Masked autoencoding beside transformers: predictions, loss, and the curve of a training."""

import keras
import numpy as np
import pytest
import torch
from models import masked_batches as batches_of
from models import waves as pictures
from parity import assert_parity, assert_rounds_alike

from kft.training import pretraining

pytest.importorskip("keras_hub")

from kft.backbones.vision import names as vision_names
from kft.backbones.vision import weights as vision_weights


def reference(normalise=True, blocks=2):
    import transformers
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    config = transformers.ViTMAEConfig(
        hidden_size=16, num_hidden_layers=blocks, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, decoder_hidden_size=24, decoder_num_hidden_layers=blocks,
        decoder_num_attention_heads=2, decoder_intermediate_size=96, norm_pix_loss=normalise,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "decoder_pos_embed" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    # As its own `initialize_weights` does, which is not run where no file is loaded.
    half = build_2d_sinusoidal_position_embedding(4, 4, 24, cls_token=True).split(12, dim=1)
    model.decoder.decoder_pos_embed.data = torch.cat(half[::-1], dim=1)[None]
    return model


def from_reference(model):
    """Our autoencoder with the reference's weights."""
    config = {**model.config.to_dict(), "model_type": "vit"}
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    processor = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    backbone = vision_weights.from_hugging_face(
        config, {k: v for k, v in tensors.items() if k.startswith("vit.")}, "it", None, processor
    )
    assert backbone.load_report.missing == ()
    ours = pretraining.masked_autoencoder(
        backbone, decoder_blocks=model.config.decoder_num_hidden_layers, decoder_width=24,
        decoder_heads=2, normalise=model.config.norm_pix_loss,
    )  # fmt: skip
    part = {"narrow": "decoder_embed", "decoder_norm": "decoder_norm", "pixels": "decoder_pred"}
    for variable in ours.get_layer("decoder").weights:
        *_, layer, weight = variable.path.split("/")
        block = next((x for x in variable.path.split("/") if x.startswith("decoder_block")), None)
        if weight == "mask_token":
            variable.assign(tensors["decoder.mask_token"])
            continue
        name = part.get(layer)
        if block:
            inside = variable.path.split(f"{block}/")[1].rpartition("/")[0]
            name = f"decoder_layers.{block[-1]}.{vision_names.VIT_BLOCK[inside]}"
        suffix = "bias" if weight in ("bias", "beta") else "weight"
        value = tensors[f"decoder.{name}.{suffix}"]
        value = value.T if weight == "kernel" else value
        variable.assign(value.reshape(variable.shape))
    return ours


def as_noise(visible):
    """What the reference sorts to hide the same patches."""
    noise = np.ones((len(visible), 16)) + np.arange(16) / 100
    np.put_along_axis(noise, visible, visible / 100, axis=1)
    return torch.tensor(noise)


@pytest.mark.parametrize("normalise", [True, pytest.param(False, marks=pytest.mark.once)])
@pytest.mark.usefixtures("optimised")
def test_predictions_and_loss_are_the_references(normalise, as_written):
    theirs = reference(normalise)
    ours = from_reference(theirs)
    inputs, targets = batches_of(pictures(4), ours, normalise=normalise)[0]
    images = torch.tensor(inputs["images"].transpose(0, 3, 1, 2))
    logits = []
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            expected = theirs.to(dtype)(images.to(dtype), noise=as_noise(inputs["visible"]))
        logits.append(
            np.take_along_axis(expected.logits.numpy(), inputs["hidden"][..., None], axis=1)
        )
    found = ours.predict_on_batch(inputs)
    assert np.abs(logits[1]).max() > 0.5
    assert_parity(found, *logits, "pixels")
    assert ((found - targets) ** 2).mean() == pytest.approx(float(expected.loss), rel=1e-5)


@pytest.mark.usefixtures("optimised")
def test_loss_curve_is_the_references(as_written):
    """Ten steps of SGD beside transformers with plain torch, from the same weights and masks."""
    theirs = reference(blocks=1)
    theirs.vit.embeddings.position_embeddings.requires_grad_(True)  # ours learn
    ours = from_reference(theirs)
    batches = batches_of(pictures(16), ours)
    ours.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    learning = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9)
    one, two = [], []
    for step in range(10):
        inputs, targets = batches.batch(step)
        one.append(float(ours.train_on_batch(inputs, targets)))
        images = torch.tensor(inputs["images"].transpose(0, 3, 1, 2))
        loss = theirs(images, noise=as_noise(inputs["visible"])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        two.append(float(loss.detach()))
    assert two[0] - two[-1] > 0.1, "nothing moved that could differ"
    assert_rounds_alike(one, two, what="the losses")

"""The original implementations, small and random, for tests to compare with; needs torch."""

import argparse
import functools
import sys
import types
import unittest.mock

import keras
import numpy as np
import torch
from esm.data import Alphabet
from esm.model.esm2 import ESM2 as FairESM2
from keras import ops
from transformers import EsmcConfig, EsmcForMaskedLM, EsmConfig, EsmForMaskedLM

from kft.backbones import esm2
from kft.backbones.esm2 import weights as esm2_weights
from kft.backbones.esmc import weights as esmc_weights

LENGTHS = (1, 2, 31, 58, 120, 300)
SHORT = (1, 2, 31, 40, 58, 100)
PARTS = ("hidden states", "logits", "contacts")
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"

SHAPES = {  # name: blocks, width, heads
    "two blocks": (2, 64, 4),
    "20 heads of 16": (2, 320, 20),
    "six deep": (6, 48, 6),
}


def esm_config(num_blocks, width, num_heads, **changes):
    """The configuration of a published ESM-2, but for its size."""
    options = {
        "vocab_size": 33,
        "mask_token_id": 32,
        "pad_token_id": 1,
        "hidden_size": width,
        "num_hidden_layers": num_blocks,
        "num_attention_heads": num_heads,
        "intermediate_size": 4 * width,
        "position_embedding_type": "rotary",
        "token_dropout": True,
        "emb_layer_norm_before": False,
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "eager",  # the only one that hands out attention, for contacts
    }
    return EsmConfig(**(options | changes))


def hugging_face(num_blocks, width, num_heads, scale=0.1, seed=0, **changes):
    """transformers' EsmForMaskedLM with weights large enough to matter."""
    torch.manual_seed(seed)
    model = EsmForMaskedLM(esm_config(num_blocks, width, num_heads, **changes)).eval()
    return _perturbed(model, scale)


def esmc_config(num_blocks, width, num_heads, **changes):
    """The configuration of a published ESM-C, but for its size."""
    options = {
        "hidden_size": width,
        "num_hidden_layers": num_blocks,
        "num_attention_heads": num_heads,
        "intermediate_size": 3 * width,
        "attn_implementation": "eager",
    }
    return EsmcConfig(**(options | changes))


def esmc(num_blocks, width, num_heads, scale=0.1, seed=0, **changes):
    """transformers' EsmcForMaskedLM with weights large enough to matter."""
    torch.manual_seed(seed)
    model = EsmcForMaskedLM(esmc_config(num_blocks, width, num_heads, **changes)).eval()
    return _perturbed(model, scale)


def fair(num_blocks, width, num_heads, scale=0.1, seed=0):
    """fair-esm's ESM2 with weights large enough to matter."""
    torch.manual_seed(seed)
    return _perturbed(FairESM2(num_blocks, width, num_heads).eval(), scale)


def _perturbed(model, scale):
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * scale
            # The scales of norms and the biases start from 1 and 0, all else from nothing.
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model


# Of a small SAM whose second block attends to the whole image; windows need filling.
SAM_SIZES = {
    "blocks": 2, "width": 32, "heads": 2, "size": 64, "patch": 8, "window": 3, "prompts": 32,
}  # fmt: skip


def hugging_face_sam(scale=0.15, seed=0, epsilon=1e-6):
    """transformers' SamModel with weights large enough to matter."""
    from transformers import SamConfig, SamModel

    n = SAM_SIZES
    square = {"image_size": n["size"], "patch_size": n["patch"]}
    torch.manual_seed(seed)
    config = SamConfig(
        vision_config={
            "hidden_size": n["width"], "num_hidden_layers": n["blocks"], "mlp_dim": 48, **square,
            "num_attention_heads": n["heads"], "window_size": n["window"], "num_pos_feats": 16,
            "global_attn_indexes": [1], "output_channels": n["prompts"],
        },
        prompt_encoder_config={
            "hidden_size": n["prompts"], "mask_input_channels": 8, **square,
        },
        mask_decoder_config={
            "hidden_size": n["prompts"], "mlp_dim": 48, "num_attention_heads": 8,
            "iou_head_hidden_dim": 24, "layer_norm_eps": epsilon,
        },
    )  # fmt: skip
    return _perturbed(SamModel(config).eval(), scale)


def original_sam(scale=0.15, seed=0):
    """The Sam of the package segment-anything, of the same sizes.

    It imports two modules of torchvision for parts that are not used here.
    """
    names = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms",
             "torchvision.transforms.functional")  # fmt: skip
    stubs = {name: types.ModuleType(name) for name in names}
    for name in ("batched_nms", "box_area"):
        setattr(stubs[names[2]], name, None)
    for name in ("resize", "to_pil_image"):
        setattr(stubs[names[4]], name, None)
    with unittest.mock.patch.dict(sys.modules, stubs):
        from segment_anything import modeling

    n, grid = SAM_SIZES, SAM_SIZES["size"] // SAM_SIZES["patch"]
    torch.manual_seed(seed)
    encoder = modeling.ImageEncoderViT(
        n["size"], n["patch"], embed_dim=n["width"], depth=n["blocks"], num_heads=n["heads"],
        mlp_ratio=1.5, out_chans=n["prompts"], use_rel_pos=True, window_size=n["window"],
        global_attn_indexes=(1,), norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    prompts = modeling.PromptEncoder(n["prompts"], (grid, grid), (n["size"], n["size"]), 8)
    transformer = modeling.TwoWayTransformer(2, n["prompts"], 8, 48)
    decoder = modeling.MaskDecoder(
        transformer_dim=n["prompts"], transformer=transformer, iou_head_hidden_dim=24
    )
    return _perturbed(modeling.Sam(encoder, prompts, decoder).eval(), scale)


def telling(model, token_ids):
    """Makes contacts differ by what they depend on: else all are 0.5 and a sigmoid's last bits."""
    contacts = outputs(model, token_ids)[2][counted("contacts", token_ids)].astype("float64")
    head = model.contact_head if isinstance(model, FairESM2) else model.esm.contact_head
    with torch.no_grad():
        head.regression.weight.mul_(2 / np.log(contacts / (1 - contacts)).std())
    return model


def save_fair(model, path, contacts=True):
    """Writes what the publisher's files hold, the contact head in the sibling file."""
    settings = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    state = {}
    for name, value in model.state_dict().items():
        if not name.startswith("contact_head"):
            prefix = "encoder." if name.startswith("lm_head") else "encoder.sentence_encoder."
            state[prefix + name] = value
    torch.save({"cfg": {"model": settings}, "model": state}, path)
    if contacts:
        regression = {k: v for k, v in model.state_dict().items() if k.startswith("contact_head")}
        torch.save({"model": regression}, path.with_name(f"{path.stem}-contact-regression.pt"))


def outputs(model, token_ids):
    """Hidden states, logits and, of ESM-2, contacts of a reference, as numpy arrays."""
    ids = torch.tensor(np.ascontiguousarray(token_ids)).long()
    with torch.no_grad():
        if isinstance(model, FairESM2):
            last = model.num_layers
            found = model(ids, repr_layers=[last], return_contacts=True)
            found = found["representations"][last], found["logits"], found["contacts"]
        elif isinstance(model, EsmcForMaskedLM):
            mask = (ids != 1).long()
            hidden = model.esmc(ids, attention_mask=mask).last_hidden_state
            found = hidden, model(ids, attention_mask=mask).logits
        else:
            mask = (ids != 1).long()
            hidden = model.esm(ids, attention_mask=mask).last_hidden_state
            logits = model(ids, attention_mask=mask).logits
            found = hidden, logits, model.predict_contacts(ids, mask)
    return [x.numpy() for x in found]


def proteins(lengths, seed=0):
    """Random proteins of the given lengths over all residue letters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(RESIDUES), n)) for n in lengths]


def alphabet():
    """fair-esm's alphabet of ESM-2."""
    return Alphabet.from_architecture("ESM-1b")


def ours(backbone, inputs):
    """What `outputs` gives, of a backbone of ours."""
    models = [backbone, backbone.masked_lm]
    if hasattr(backbone, "contacts"):
        models.append(backbone.contacts)
    if keras.backend.backend() == "jax":  # one program in place of one for each operation
        return [np.asarray(model.predict_on_batch(inputs)) for model in models]
    return [ops.convert_to_numpy(model(inputs)) for model in models]


def from_reference(model):
    """Our backbone with the weights of a reference."""
    if isinstance(model, EsmcForMaskedLM):
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        return esmc_weights.from_hugging_face(model.config.to_dict(), state, "the reference")
    if isinstance(model, EsmForMaskedLM):
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        return esm2_weights.from_hugging_face(model.config.to_dict(), state, "the reference")
    settings = {
        "encoder_layers": model.num_layers,
        "encoder_embed_dim": model.embed_dim,
        "encoder_attention_heads": model.attention_heads,
        "token_dropout": True,
    }
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    return esm2_weights.from_fair({"cfg": {"model": settings}, "model": state}, None, "reference")


def mixed_batch(lengths=LENGTHS):
    """Very different lengths in one batch, several <mask>, all 33 tokens."""
    sequences = proteins(lengths)
    sequences[2] = f"<mask>{sequences[2][:9]}<mask><mask>{sequences[2][9:]}"
    sequences[4] = sequences[4].replace("K", "<mask>")
    token_ids = esm2.encode(sequences)["token_ids"]
    token_ids[5, 7:40] = np.arange(33)
    return token_ids


def counted(part, token_ids):
    """Where an output means something: not at padding."""
    there = token_ids != esm2.PAD
    if part == "contacts":
        inside = there[:, 2:]
        return inside[:, :, None] & inside[:, None, :]
    return there

"""Whatever `add_lora` accepts can be written and read again, by kft and by PEFT: the same numbers.

Over all backbones, targets, settings of biases, heads and kinds of adapters: with --long 600
cases of their product, what is refused included, else as few accepted cases as hold all pairs of
these.
"""

import itertools
import random
import warnings

import keras
import numpy as np
import peft
import pytest
import references
import torch
import transformers
from contracts import check_adapter_file
from keras import ops
from models import BACKBONES, perturb, strings
from parity import assert_rounds_alike

import kft
from kft.backbones.esm2 import weights as esm2_weights
from kft.backbones.esmc import weights as esmc_weights
from kft.backbones.vision import weights as vision_weights
from kft.lora import kinds
from kft.lora.owned import head_paths

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]
PROTEINS = {  # transformers' models, their configuration, and the reader of kft
    "esm2": ("Esm", references.esm_config(1, 16, 2, num_labels=3), esm2_weights),
    "esmc": ("Esmc", references.esmc_config(1, 16, 2, num_labels=3), esmc_weights),
}
IMAGE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16,
         "image_size": 32, "num_labels": 3}  # fmt: skip
VISION = {
    "vit": ("ViT", {"intermediate_size": 24}),
    "deit": ("DeiT", {"intermediate_size": 24}),
    "dinov2": ("Dinov2", {"mlp_ratio": 2}),
    "dinov2 with gates": ("Dinov2", {"mlp_ratio": 2, "use_swiglu_ffn": True}),
    "dinov3": ("DINOv3ViT", {"intermediate_size": 24, "num_register_tokens": 2}),
    "dinov3 with gates": ("DINOv3ViT", {"intermediate_size": 24, "use_gated_mlp": True}),
}
CONVOLUTIONAL = ["resnet", "resnet_v2", "efficientnet", "mobilenet"]
ONES = {"kernel_initializer": "ones"}
POOLED = {
    "mean": lambda: kft.heads.Regression(2, mean=[1.0, 2.0], **ONES),
    "cls": lambda: kft.heads.Classification(3, pooling="cls", **ONES),
    "labels by cls": lambda: kft.heads.MultiLabel(3, pooling="cls", **ONES),
    "max": lambda: kft.heads.MultiLabel(2, pooling="max", **ONES),
    "attention": lambda: kft.heads.Classification(3, pooling="attention", **ONES),
}
RESIDUES = {
    "residue classes": lambda: kft.heads.ResidueClassification(3, **ONES),
    "residue numbers": lambda: kft.heads.ResidueRegression(**ONES),
    "as transformers": lambda: kft.heads.EsmClassification(3, **ONES),
    "tokens as transformers": lambda: kft.heads.EsmTokenClassification(3, **ONES),
}
HEADS = {None: None, **POOLED, **RESIDUES}
TARGETS = ("default", "all-linear", "everything", "first", "last")
BIASES = ("none", "lora_only", "all")
FORMS = ("lora", "rslora", "dora", "ranks")


# What there is ------------------------------------------------------------------------------------


SAME_HEADS = {
    "language model": "ForMaskedLM",
    "as transformers": "ForSequenceClassification",
    "tokens as transformers": "ForTokenClassification",
}


def reference(backbone, head):
    """The model of transformers for the backbone and, if it has it, the head; else None."""
    torch.manual_seed(0)
    if backbone in PROTEINS:
        name, config, _ = PROTEINS[backbone]
        plain = backbone == "esm2" and head not in SAME_HEADS
        options = {"add_pooling_layer": False} if plain else {}
        model = getattr(transformers, f"{name}{SAME_HEADS.get(head, 'Model')}")(config, **options)
    elif backbone in VISION:
        name, sizes = VISION[backbone]
        config = getattr(transformers, f"{name}Config")(**IMAGE, **sizes)
        classifies = head in ("cls", "labels by cls") and name in ("ViT", "DeiT")
        if classifies:
            model = getattr(transformers, f"{name}ForImageClassification")(config)
        else:
            options = {"add_pooling_layer": False} if name in ("ViT", "DeiT") else {}
            model = getattr(transformers, f"{name}Model")(config, **options)
    else:
        return None
    return references._perturbed(model.eval(), 0.2)


def counterpart(backbone, head, theirs):
    """The same in kft: a backbone, its language model, or a model with the head."""
    if theirs is None:
        keras.utils.set_random_seed(0)
        ours = BACKBONES[backbone]()
    else:
        state = {name: value.numpy() for name, value in theirs.state_dict().items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of heads that the file has not
            if backbone in PROTEINS:
                reader = PROTEINS[backbone][2]
                ours = reader.from_hugging_face(theirs.config.to_dict(), state, "it")
            else:
                ours = vision_weights.from_hugging_face(
                    theirs.config.to_dict(), state, "it", image_size=32
                )
    if head == "language model":
        return ours.masked_lm
    return kft.Model(ours, HEADS[head]()) if head else ours


def inputs_of(backbone):
    if backbone in PROTEINS:
        return kft.backbones.esm2.encode(strings((3, 9)))
    size = BACKBONES[backbone]().image_size if backbone in CONVOLUTIONAL else (32, 32)
    return {"images": np.random.default_rng(0).standard_normal((2, *size, 3)).astype("float32")}


def targets_of(model, kind):
    """None for those of the backbone; or paths of layers that can be adapted."""
    if kind in ("default", "all-linear"):
        return None if kind == "default" else kind
    head = head_paths(model)
    found = [p for p, x in kft.params.layers(model).items()
             if p not in head and kinds.why_not(x) is None]  # fmt: skip
    return {"everything": found, "first": found[:1], "last": found[-1:]}[kind]


def every_case():
    """(backbone, head, targets, bias, form), whether `add_lora` accepts it or not."""
    heads = {name: [*HEADS, "language model"] for name in PROTEINS}
    for backbone in [*PROTEINS, *VISION, *CONVOLUTIONAL]:
        chosen = heads.get(backbone, [None, *POOLED])
        if backbone in CONVOLUTIONAL:
            chosen = [head for head in chosen if head not in ("cls", "labels by cls")]
        for head in chosen:
            yield from itertools.product([backbone], [head], TARGETS, BIASES, FORMS)


def refused(case):
    """Whether `add_lora` has to say no: a layer that cannot be adapted, or nothing to adapt."""
    backbone, head, targets, bias, _ = case
    if backbone in CONVOLUTIONAL:
        return targets == "all-linear" or bias == "all"  # no Dense; BatchNormalization
    return (backbone, head, bias) == ("esm2", "language model", "all")  # a bias without a layer


def pairwise(cases):
    """Few of the cases in which every pair of settings that some case has comes together."""
    wanted = {pair for case in cases for pair in pairs(case)}
    left, chosen = list(cases), []
    while wanted:
        best = max(left, key=lambda case: len(pairs(case) & wanted))
        chosen.append(best)
        wanted -= pairs(best)
    return chosen


def pairs(case):
    return set(itertools.combinations(enumerate(case), 2))


EVERY = list(every_case())
# All 4,529 would take more than an hour.
MANY = random.Random(0).sample(EVERY, 600)
SOME = pairwise([case for case in EVERY if not refused(case)])
# Every second one is left to the long tests.
SOME = [pytest.param(case, marks=[pytest.mark.long] * (i % 2)) for i, case in enumerate(SOME)]


# The contract -------------------------------------------------------------------------------------


def answers(model, inputs):
    return ops.convert_to_numpy(model.predict_on_batch(inputs))


def theirs_of(adapted, inputs):
    """Hidden states or logits of a model of PEFT."""
    with torch.no_grad():
        if "images" in inputs:
            images = torch.tensor(inputs["images"].transpose(0, 3, 1, 2))
            found = adapted(pixel_values=images)
        else:
            tokens = torch.tensor(np.ascontiguousarray(inputs["token_ids"])).long()
            found = adapted(input_ids=tokens, attention_mask=(tokens != 1).long())
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def ours_of(model, inputs, theirs, head):
    """What is to be the same: the probabilities of their logits, or the backbone's output."""
    if theirs.shape[-1] == 3 and head:
        act = "sigmoid" if head == "labels by cls" else "softmax"
        return answers(model, inputs), ops.convert_to_numpy(keras.activations.get(act)(theirs))
    plain = model if head in (None, "language model") else keras.Model(
        model.input, model.backbone.output
    )  # fmt: skip
    return answers(plain, inputs), theirs


def check(case, folder):
    backbone, head, targets, bias, form = case
    theirs = reference(backbone, head)
    model = counterpart(backbone, head, theirs)
    inputs = inputs_of(backbone)
    options = {"rslora": form == "rslora", "dora": form == "dora"}
    targets = targets_of(model, targets)
    if refused(case):
        with pytest.raises(ValueError, match="cannot adapt|no Dense"):
            kft.add_lora(model, 2, targets=targets, bias=bias, **options)
        return
    paths = kft.add_lora(model, 2, targets=targets, bias=bias, **options)
    if form == "ranks":
        kft.lora.remove(model)
        kft.add_lora(model, 2, targets=targets, bias=bias, ranks={paths[-1]: 3},
                     alphas={paths[0]: 5})  # fmt: skip
    perturb(model, 0.1, learning=True)
    expected = answers(model, inputs)
    again = counterpart(backbone, head, theirs)
    check_adapter_file(model, again, inputs, folder)
    assert [path for path in kft.params.layers(model) if path in paths] == paths
    if theirs is None:
        return
    with warnings.catch_warnings():
        # PEFT warns of keys that are missing or too many.
        warnings.filterwarnings("error", category=UserWarning)
        adapted = peft.PeftModel.from_pretrained(theirs, folder).eval()
    found, wanted = ours_of(model, inputs, theirs_of(adapted, inputs), head)
    there = inputs["token_ids"] != 1 if "token_ids" in inputs and found.ndim == 3 else slice(None)
    np.testing.assert_allclose(found[there], wanted[there], atol=1e-4, rtol=1e-4)
    # And what PEFT writes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks the hub for the base
        adapted.save_pretrained(folder / "theirs")
    kft.load_adapter(again, folder / "theirs", name="theirs")
    if not (folder / "kft_head.safetensors").exists():
        assert_rounds_alike(answers(again, inputs), expected)


@pytest.mark.parametrize("case", SOME, ids=lambda case: ", ".join(map(str, case)))
def test_pairs(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", MANY, ids=lambda case: ", ".join(map(str, case)))
def test_many(case, tmp_path):
    check(case, tmp_path)

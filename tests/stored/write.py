"""Writes the files beside it: what kft saved at commit e020327, in November 2026, on torch.

They are never written again: `tests/test_stored.py` reads with later code what older code wrote.
This program runs on that commit alone, and stands here to tell what is in the files. Names and
arguments in it are those of then. The archives of Keras are packed anew, to be small.

Command, at that commit: KERAS_BACKEND=torch python tests/stored/write.py
"""

import csv
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
from kft.backbones.vision_published import MOBILENET
from kft.learning_rates import WarmupCosine, adamw, muon
from kft.model import Learner, flat

import kft
from kft import heads, pretraining
from kft.backbones.esm2 import ESM2
from kft.backbones.vision import ConvNet, VisionTransformer
from kft.lora.adapting import adapted

STORED = Path(__file__).parent
EXPECTED = {}
TINY_MOBILENET = {
    **MOBILENET, "input_num_filters": 8,
    "stackwise_num_blocks": [1], "stackwise_expansion": [[8]], "stackwise_num_filters": [[8]],
    "stackwise_kernel_size": [[3]], "stackwise_num_strides": [[2]], "stackwise_se_ratio": [[0.5]],
    "stackwise_activation": [["hard_swish"]], "stackwise_padding": [[1]], "last_layer_filter": 8,
}  # fmt: skip


def esm2(blocks=2):
    return kft.backbones.randomised(ESM2(blocks, 8, 2, 16), 0)


def vit(family="vit"):
    backbone = VisionTransformer(family, 1, 8, 2, 16, 4, 8, classes=("cat", "dog"))
    return kft.backbones.randomised(backbone, 0)


def conv():
    return kft.backbones.randomised(ConvNet("mobilenet", TINY_MOBILENET, 16), 0)


def perturbed(model):
    """No weight is to be what a new model has; round numbers make small files."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype == "float32":
            noise = np.abs(rng.normal(0, 0.2, variable.shape))
            sign = 1 if "variance" in variable.path else rng.choice([-1, 1], variable.shape)
            value = keras.ops.convert_to_numpy(variable) + sign * noise
            variable.assign(np.round(64 * value) / 64)
    return model


def sequences(count, seed=0, length=12):
    return ["".join(np.random.default_rng((seed, i)).choice(list("ACDEFGHIKLMNPQRSTVWY"), length))
            for i in range(count)]  # fmt: skip


def tokens():
    return ESM2.encode(["MKTAYIAKQR", "GSSW"])


def images(backbone):
    return backbone.encode(list(np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), "uint8")))


def keep(path, **arrays):
    for name, value in arrays.items():
        tensor = keras.ops.is_tensor(value)
        EXPECTED[f"{path}/{name}"] = (
            keras.ops.convert_to_numpy(value) if tensor else np.asarray(value)
        )


def answers(path, model, inputs):
    found = model(inputs, training=False)
    keep(path, **(found if isinstance(found, dict) else {"answer": found}))


def save(name, model, inputs):
    """The model, its inputs, what it answers, and how many of its weights learn."""
    path = STORED / f"{name}.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    keep(f"{name}/inputs", **inputs)
    answers(f"{name}/answers", model, inputs)
    table = kft.parameters(model)
    keep(name, parameters=[table.trainable, table.total])


def save_compiled(name, model, inputs, targets, weights=None):
    """Also what `evaluate` says, and the sums of the optimizer's state after one step."""
    model.train_on_batch(inputs, targets, weights)
    save(name, model, inputs)
    scores = model.evaluate(inputs, targets, len(targets), 0, weights, return_dict=True)
    given = {"targets": targets} | ({} if weights is None else {"weights": weights})
    state = [np.abs(keras.ops.convert_to_numpy(v)).sum() for v in model.optimizer.variables]
    keep(name, **given, optimizer=state)
    keep(f"{name}/scores", **scores)


# Heads, and models that are compiled ----------------------------------------------------------


def write_heads():
    made = {
        "pooled_by_cls": heads.Classification(3, "cls", dropout=0.1),
        "residue_classification": heads.ResidueClassification(3),
        "residue_regression": heads.ResidueRegression(2, [1.0, -1.0], [2.0, 0.5]),
        "esm_classification": heads.EsmClassification(
            3, 0.1, kernel_initializer=heads.Drawn(5), seed=3
        ),
        "esm_token_classification": heads.EsmTokenClassification(3, dropout=0.1),
    }
    for name, head in made.items():
        save(name, perturbed(kft.Model(esm2(), head)), tokens())
    model = perturbed(kft.Model(esm2(1), heads.Regression()))
    save("one_block", model, tokens())
    perturbed(model).save_weights(STORED / "one_block.weights.h5")
    answers("weights/answers", model, tokens())

    model = perturbed(kft.Model(esm2(1), heads.Classification(3)))
    rate = WarmupCosine(0.01, 10, 2)
    loss = model.head.make_loss([1.0, 2.0, 0.5], 0.1)
    optimizer = muon(rate, model.trainable_variables, dtype="bfloat16")
    model.compile(optimizer, loss, metrics=model.head.make_metrics())
    save_compiled("classification", model, tokens(), np.array([2, 0]))

    model = perturbed(kft.Model(esm2(1), heads.MultiLabel(2, "max")))
    loss = model.head.make_loss([3.0, 1.0], 0.1)
    model.compile("adam", loss, metrics=model.head.make_metrics())
    save_compiled("multilabel", model, tokens(), np.array([[1, 0], [1, 1]]))

    model = perturbed(kft.Model(esm2(1), heads.Regression(2, [1.0, -1.0], [2.0, 0.5], "attention")))
    optimizer = adamw(WarmupCosine(0.01, 10), model.trainable_variables)
    model.compile(optimizer, model.head.make_loss(), metrics=model.head.make_metrics())
    save_compiled("regression", model, tokens(), np.array([[0.0, 1.0], [2.0, 0.5]]))

    model = perturbed(kft.Model(esm2(), heads.Regression()))
    kft.freeze(model, ["embedding", "block_0", "block_1/query"])
    save("frozen", model, tokens())


def write_backbones():
    backbone = perturbed(esm2())
    save("esm2", backbone, tokens())
    save("esm2_one_block", perturbed(esm2(1)), tokens())
    answers("esm2/masked_lm", backbone.masked_lm, tokens())
    answers("esm2/contacts", backbone.contacts, tokens())
    save("contacts", backbone.contacts, tokens())
    outputs = {"logits": backbone.masked_lm.output, "contacts": backbone.contacts.output}
    save("layers_of_esm2", Learner(backbone.input, outputs), tokens())
    table = backbone.stages[0].tokens
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    save("token_table", keras.Model({"token_ids": token_ids}, table(token_ids)), tokens())

    model = perturbed(esm2(1)).masked_lm
    batches = pretraining.masked_batches(sequences(4), ESM2.encode, tokens=64, crop=16)
    metrics = [pretraining.Perplexity(), pretraining.MaskedAccuracy()]
    model.compile("adam", pretraining.MaskedCrossEntropy(), metrics=metrics)
    save_compiled("masked_lm", model, *batches[0])

    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.Embedding(9, 4, mask_zero=True, name="table")(ids)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(keras.layers.Dense(4, name="hidden")(x))
    model = keras.Model({"ids": ids}, keras.layers.Dense(1, name="out")(x), name="plain")
    inputs = {"ids": np.array([[1, 2, 3, 0], [4, 8, 0, 0]], "int32")}
    kft.freeze(model, "table")
    frozen, trainable = kft.split(perturbed(model))
    save("beyond_frontier", trainable, frozen(inputs))
    kft.unfreeze(model)
    kft.add_lora(model, 2, targets=["table", "hidden"], bias="all")
    save("lora_plain", with_adapters(model), inputs)


def write_images():
    backbone = perturbed(vit())
    model = perturbed(kft.Model(backbone, heads.Classification(3)))
    save("vit", model, images(backbone))
    outputs = {"answer": model.output, "logits": backbone.classifier.output}
    save("layers_of_vit", Learner(model.input, outputs), images(backbone))
    kft.add_lora(model, 2)
    save("lora_vit", with_adapters(model), images(backbone))
    save("image_classifier", perturbed(vit("dinov2").classifier), images(backbone))

    model = perturbed(kft.Model(conv(), heads.Regression()))
    save("mobilenet", model, images(model.backbone))
    kft.add_lora(model, 2)
    kft.unfreeze(model, "stem")
    with_adapters(model)
    answers("lora_merged/unmerged", model, images(model.backbone))
    kft.merge_lora(model)
    save("lora_merged", model, images(model.backbone))

    model = perturbed(pretraining.masked_autoencoder(vit(), decoder_blocks=1, decoder_width=8,
                                                     decoder_heads=2))  # fmt: skip
    pictures = list(np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), "uint8"))
    (inputs, targets, *_) = pretraining.masked_image_batches(
        pictures, model.encode, 2, patch_size=4, ratio=0.5
    )[0]
    save("layers_of_autoencoder", flat(model), inputs)
    model.compile("sgd", "mse", metrics=[pretraining.RelativeError()])
    save_compiled("autoencoder", model, inputs, targets)


# Adapters -------------------------------------------------------------------------------------


def with_adapters(model, name="default"):
    """Adapters begin without effect, and with the base's head: they get values, the head others."""
    rng = np.random.default_rng(7)
    found = [layer.adapters[name] for _, layer in adapted(model) if name in layer.adapters]
    variables = [v for adapter in found for v in adapter.variables.values()]
    for variable in variables + (model.head.trainable_variables if hasattr(model, "head") else []):
        value = keras.ops.convert_to_numpy(variable)
        variable.assign(np.round(64 * (value + rng.normal(0, 0.2, value.shape))) / 64)
    return model


def write_adapters():
    model = perturbed(kft.Model(esm2(), heads.Classification(3, "attention")))
    answers("lora/base", model, tokens())
    kft.add_lora(model, 2, 4, 0.1, ["block_0", "query"], name="first", dora=True, bias="lora_only")
    with_adapters(model, "first")
    targets = ["embedding", "value"]
    kft.add_lora(
        model, 2, 4, targets=targets, name="second", rslora=True, bias="all",
        ranks={"block_1/value": 3},
    )  # fmt: skip
    with_adapters(model, "second")
    answers("lora/second", model, tokens())
    kft.lora.use(model, "first")
    answers("lora/first", model, tokens())
    save("lora", model, tokens())

    model = kft.Model(keras.saving.load_model(STORED / "esm2.keras"), heads.Classification(3))
    kft.add_lora(model, 2, targets="all-linear", dora=True, bias="lora_only")
    kft.save_adapter(with_adapters(model), STORED / "adapter")
    answers("adapter/answers", model, tokens())


# Folders of comparisons and pre-training --------------------------------------------------------


def write_comparison():
    rng, rows = np.random.default_rng(0), []
    for split, count in (("train", 24), ("valid", 12), ("test", 24)):
        for i in range(count):
            drawn = rng.choice(list("AGLKE" + "KE"[i % 2]), 10)
            rows.append(("".join(drawn), ("basic", "acidic")[i % 2], split))
    with open(STORED / "peptides.csv", "w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("sequence", "y", "split"), *rows])
    data = kft.data.read_csv(STORED / "peptides.csv", split="split")
    backbone = keras.saving.load_model(STORED / "esm2_one_block.keras")
    kft.compare(
        backbone, data, ["head_only", "lora"], 2, epochs=6, batch_size=4, resamples=100,
        out=STORED / "comparison",
    )  # fmt: skip
    (STORED / "comparison" / "peptides.png").unlink()


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def pretrain(out, *callbacks):
    backbone = keras.saving.load_model(STORED / "esm2_one_block.keras")
    return pretraining.pretrain(
        backbone, sequences(16), sequences(4, 1), epochs=2, tokens=64, crop=16, rate=1e-3, out=out,
        callbacks=callbacks, verbose=0,
    )  # fmt: skip


def write_pretraining():
    done = pretrain(None)
    answers("pretraining/answers", done.model, tokens())
    keep("pretraining", loss=[row["loss"] for row in done.history],
         val_loss=[row["val_loss"] for row in done.history],
         sequences=sequences(16), valid=sequences(4, 1))  # fmt: skip
    (STORED / "pretraining").mkdir()
    try:
        pretrain(STORED / "pretraining", Interrupt())
    except KeyboardInterrupt:
        with np.load(STORED / "pretraining" / "state.npz") as kept:
            (first,) = json.loads(str(kept["about"]))["logs"]
    keep("pretraining", seconds=first["seconds"])


if __name__ == "__main__":
    for write in (write_heads, write_backbones, write_images, write_adapters, write_comparison,
                  write_pretraining):  # fmt: skip
        keras.utils.set_random_seed(0)
        write()
    np.savez_compressed(STORED / "expected.npz", **EXPECTED)

"""Hostile checkpoints, adapters, caches and command lines, see `hostile.py`."""

import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras
import models
import numpy as np
from hostile_cases import Case, file, folder, strange_paths
from typer.testing import CliRunner

import kft
from kft.cli import app

# Checkpoints --------------------------------------------------------------------------------------

NESTED = "[" * 100_000 + "]" * 100_000


def damaged_safetensors(weights: bytes) -> dict:
    size = struct.unpack("<Q", weights[:8])[0]
    head = json.loads(weights[8 : 8 + size])

    def with_header(text):
        raw = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(raw)) + raw + weights[8 + size :]

    first = next(key for key in head if key != "__metadata__")
    return {
        "truncated": weights[:-7],
        "longer": weights + b"1234",
        "half": weights[: len(weights) // 2],
        "empty": b" ",
        "header cut": weights[: 8 + size // 2],
        "length of 2**60": struct.pack("<Q", 2**60) + weights[8:],
        "length 0": struct.pack("<Q", 0) + weights[8:],
        "header nested": with_header(NESTED),
        "header a list": with_header("[]"),
        "header a string": with_header('"x"'),
        "header not JSON": with_header("{" * 10),
        "header not UTF-8": with_header(b"\xff" * 40),
        "tensor a list": with_header(json.dumps({**head, first: []})),
        "no shape": with_header(json.dumps({**head, first: {"dtype": "F32"}})),
        "negative shape": with_header(json.dumps({**head, first: {**head[first], "shape": [-1]}})),
        "huge shape": with_header(json.dumps({**head, first: {**head[first], "shape": [2**62]}})),
        "unknown type": with_header(json.dumps({**head, first: {**head[first], "dtype": "X"}})),
        "offsets swapped": with_header(
            json.dumps({**head, first: {**head[first], "data_offsets": [9, 1]}})
        ),
        "offsets far away": with_header(
            json.dumps({**head, first: {**head[first], "data_offsets": [0, 2**60]}})
        ),
        "git LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "web page": b"<!doctype html>",
        "random bytes": random.Random(3).randbytes(5000),
    }


def json_files(load: Callable, config: dict, weights: bytes) -> Iterator[Case]:
    """Damaged config.json, and indices of shards."""
    for what, text in {
        "empty": "",
        "not JSON": "{",
        "a list": "[]",
        "a number": "3",
        "null": "null",
        "nested lists": NESTED,
        "nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "40 levels": '{"a":' * 40 + "1" + "}" * 40,
        "20 MB": json.dumps({**config, "x": "y" * 20_000_000}),
        "not UTF-8": b"\xff\xfe\x00",
        "a number of a million digits": '{"model_type": "esm", "x": ' + "9" * 1_000_000 + "}",
        "model_type a list": json.dumps({**config, "model_type": ["esm"]}),
        "model_type an object": json.dumps({**config, "model_type": {}}),
        "layer_norm_eps a list": json.dumps({**config, "layer_norm_eps": [1]}),
        "token_dropout a string": json.dumps({**config, "token_dropout": "yes"}),
    }.items():
        yield Case(f"config.json: {what}", partial(load, text, weights))
    for what, text in {
        "a list": "[]",
        "nested": NESTED,
        "map a list": '{"weight_map": []}',
        "map of numbers": '{"weight_map": {"a": 3}}',
        "map to another folder": '{"weight_map": {"a": "../x.safetensors"}}',
        "map to nothing": '{"weight_map": {"a": ""}}',
        "map to an absent file": '{"weight_map": {"a": "b.safetensors"}}',
        "empty map": '{"weight_map": {}}',
    }.items():
        yield Case(f"index: {what}", partial(
            load, config, text.encode(), "model.safetensors.index.json"))  # fmt: skip


def checkpoints() -> Iterator[Case]:
    kept = {}
    for name, made in {"ESM-2": models.esm2(2), "ESM-C": models.esmc(2)}.items():
        place = folder()
        kft.backbones.save(made, place)
        kept[name] = (
            json.loads((place / "config.json").read_text()),
            (place / "model.safetensors").read_bytes(),
        )

    def load(config, data=b"", name="model.safetensors", **options):
        place = folder()
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        (place / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        if data:
            (place / name).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kft.load(place, **options)
        return True

    for name, (config, weights) in kept.items():
        yield Case(f"{name}: as it is", partial(load, config, weights), refused=False)
        for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"):
            for value in (0, -1, 10**6, 10**30, 1.5, "8", None, [], {}, True, [8], float("nan")):
                changed = {**config, key: value}
                for random_weights in (False, True) if value in (10**6, None) else (False,):
                    yield Case(f"{name}: {key}={value!r:.20}", partial(
                        load, changed, b"" if random_weights else weights,
                        weights=not random_weights), named=key)  # fmt: skip
        for key in ("model_type", "vocab_size", "num_hidden_layers", "pad_token_id"):
            less = {k: v for k, v in config.items() if k != key}
            yield Case(f"{name}: without {key}", partial(load, less, weights),
                       None if key in ("pad_token_id", "vocab_size") else True)  # fmt: skip
        damaged = damaged_safetensors(weights)
        for what, content in damaged.items():
            yield Case(f"{name}, safetensors: {what}", partial(load, config, content),
                       named="model.safetensors")  # fmt: skip
    yield from json_files(load, *kept["ESM-2"])
    yield from pickles(load, kept["ESM-2"][0])
    yield from vision(load)
    yield from sam(load)
    for what, path in strange_paths().items():
        yield Case(f"load: {what}", partial(kft.load, path))


def pickles(load: Callable, config: dict) -> Iterator[Case]:
    """Torch files."""

    def torch_file(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("model/data.pkl", content)
            archive.writestr("model/byteorder", "little")
        return stream.getvalue()

    class Code:
        def __reduce__(self):
            return os.system, ("false",)

    contents = {
        "code": pickle.dumps(Code()),
        "a list": pickle.dumps([1, 2]),
        "a number": pickle.dumps(3),
        "numbers by name": pickle.dumps({"a": 3}),
        "keys of several types": pickle.dumps({"a": 3, 4: 5}),
        "3 MB of nested tuples": b"\x80\x02)" + b"\x85" * 3_000_000 + b".",
        "3 MB of nested lists": b"\x80\x02]" + b"]a" * 1_500_000 + b".",
        "doubled tuples": b"\x80\x02)" + b"2\x86" * 200 + b".",
        "no end": b"\x80\x02}",
        "nothing": b"",
        "closes what is not open": b"\x80\x02t.",
        "pops nothing": b"\x80\x020.",
        "random bytes": random.Random(4).randbytes(2000),
        "extension": b"\x80\x02\x82\x01.",
        "persistent id of nothing": b"\x80\x02NQ.",
        "a number of 10**6 digits": b"I" + b"9" * 10**6 + b"\n.",
        "a text of 2**31 bytes": b"\x80\x04X" + struct.pack("<I", 2**31) + b"abc.",
    }
    for what, content in contents.items():
        yield Case(f"torch file: {what}", partial(
            load, config, torch_file(content), "pytorch_model.bin"),
            named="pytorch_model.bin")  # fmt: skip
        yield Case(f"bare pickle: {what}", partial(
            load, config, content or b" ", "pytorch_model.bin"),
            named="pytorch_model.bin")  # fmt: skip


def vision(load: Callable) -> Iterator[Case]:
    """Configurations of vision transformers, with random weights."""
    config = {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 16, "patch_size": 8, "num_channels": 3,
        "hidden_act": "gelu", "qkv_bias": True,
    }  # fmt: skip
    yield Case("ViT: as it is", partial(load, config, weights=False), refused=False)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "image_size", "patch_size"):  # fmt: skip
        for value in (0, -1, 10**6, "8", None, [], {"height": "a"}, True):
            yield Case(f"ViT: {key}={value!r}", partial(
                load, {**config, key: value}, weights=False), named=key)  # fmt: skip


def sam(load: Callable) -> Iterator[Case]:
    """Damaged folders of a SAM."""
    place = folder()
    kft.backbones.save(models.sam(), place)
    config = json.loads((place / "config.json").read_text())
    weights = (place / "model.safetensors").read_bytes()
    yield Case("SAM: as it is", partial(load, config, weights), refused=False)
    for part in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        for value in (None, [], 3, "x", {}):
            yield Case(f"SAM: {part}={value!r}", partial(load, {**config, part: value}, weights))
        for key in config[part]:
            if key == "layer_norm_eps":
                continue
            for value in (0, -1, 10**6, 1.5, "8", None, {}, True):
                changed = {**config, part: {**config[part], key: value}}
                same = value is True and config[part][key] == 1
                same = same or (key, value) == ("mlp_dim", None)  # the ratio to hidden_size
                yield Case(f"SAM: {part}.{key}={value!r}", partial(load, changed, weights),
                           None if same else True, named=key)  # fmt: skip
    for what, content in damaged_safetensors(weights).items():
        yield Case(f"SAM, safetensors: {what}", partial(load, config, content),
                   named="model.safetensors")  # fmt: skip


# Adapters -----------------------------------------------------------------------------------------


def damaged_adapters(tensors: bytes) -> dict:
    size = struct.unpack("<Q", tensors[:8])[0]
    head = json.loads(tensors[8 : 8 + size])

    def about(**entries):
        changed = {**head, "__metadata__": {**head["__metadata__"], **entries}}
        raw = json.dumps(changed).encode()
        return struct.pack("<Q", len(raw)) + raw + tensors[8 + size :]

    return {
        "absent": None,
        "empty": b"",
        "truncated": tensors[:-5],
        "half": tensors[: len(tensors) // 2],
        "random bytes": random.Random(5).randbytes(3000),
        "digests a list": about(kft_files="[]"),
        "digests nested": about(kft_files=NESTED),
        "digests of other files": about(kft_files='{"x": "y"}'),
        "digests of numbers": about(kft_files='{"adapter_config.json": 3}'),
        "range a string": about(kft_value_range="abc"),
        "range nested": about(kft_value_range=NESTED),
        "another base": about(kft_base="0" * 64),
    }


def adapters() -> Iterator[Case]:
    def new():
        return kft.Model(models.esm2(), kft.heads.Regression())

    place = folder()
    model = new()
    kft.add_lora(model, 2)
    kft.save_adapter(model, place)
    base = new()
    config = json.loads((place / "adapter_config.json").read_text())
    content = {path.name: path.read_bytes() for path in place.iterdir()}

    def load(changes=None, **files):
        there = folder()
        for name, data in {**content, **(changes or {})}.items():
            if data is not None:
                (there / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kft.load_adapter(base, there)
        kft.lora.remove(base)
        return True

    yield Case("adapter: as it is", load, refused=False)
    values = (0, -1, 10**9, 1.5, "2", [], {}, True, float("nan"), float("inf"), -0.5)
    for key in ("r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern",
                "alpha_pattern", "use_rslora", "bias", "modules_to_save", "peft_type"):  # fmt: skip
        for value in values:
            right = (key in ("lora_alpha",) and value in (10**9, 1.5)) or (
                key.endswith("pattern") and value == {}) or (
                key == "lora_dropout" and value == 0)  # fmt: skip
            changed = {"adapter_config.json": json.dumps({**config, key: value})}
            # The digest of the configuration refuses every change.
            yield Case(f"adapter: {key}={value!r}", partial(load, changed), None if right else True)
    for what, text in {
        "empty": "", "a list": "[]", "nested": NESTED, "20 MB": '{"x": "' + "y" * 20_000_000 + '"}',
        "not UTF-8": b"\xff\xfe", "null": "null", "absent": None,
    }.items():  # fmt: skip
        yield Case(f"adapter_config.json: {what}", partial(load, {"adapter_config.json": text}),
                   named="adapter_config.json")  # fmt: skip
    for what, data in damaged_adapters(content["adapter_model.safetensors"]).items():
        yield Case(f"adapter_model: {what}", partial(load, {"adapter_model.safetensors": data}))
    for what, path in strange_paths().items():
        yield Case(f"load_adapter: {what}", partial(kft.load_adapter, base, path))


# Caches -------------------------------------------------------------------------------------------


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "random": lambda path: path.write_bytes(random.Random(6).randbytes(500)),
    "a list": lambda path: path.write_bytes(b"[]"),
    "nested": lambda path: path.write_bytes(NESTED.encode()),
    "removed": lambda path: path.unlink(),
}


def caches() -> Iterator[Case]:
    records = ["MKTAYI", "GSSGSSG", "MKV"], [0.0, 1.0, 0.5]

    def trained(cache, damage=None):
        model = kft.Model(models.esm2(), kft.heads.Regression())
        model.backbone.trainable = False
        model.compile("sgd", "mean_squared_error")
        losses = []
        for run in range(2):
            if run and damage:
                for path in sorted(Path(cache).rglob("*")):
                    if path.is_file():
                        damage(path)
            losses.append(
                kft.fit_frontier(model, records, epochs=1, cache=cache, verbose=0).history["loss"]
            )
        return np.isfinite(losses).all()

    for what, damage in DAMAGES.items():
        for end in (".json", ".npy"):

            def only(path, damage=damage, end=end):
                if path.suffix == end:
                    damage(path)

            yield Case(f"features: {end} {what}", lambda f=only: trained(folder(), f), None)
    for what, damage in DAMAGES.items():

        def resumed(damage=damage):
            path = folder() / "run.npz"
            for run in range(2):
                model = kft.Model(models.esm2(), kft.heads.Regression())
                model.compile("sgd", "mean_squared_error")
                if run:
                    damage(path)
                train = kft.batches(records, model.encode)
                model.fit(train, epochs=1, verbose=0, callbacks=[kft.callbacks.Resume(path, train)])
            return True

        yield Case(f"Resume: file {what}", resumed, None)
    saved = folder() / "model.keras"
    kft.Model(models.esm2(), kft.heads.Regression()).save(saved)
    for what, damage in DAMAGES.items():

        def opened(damage=damage):
            path = file("model.keras", saved.read_bytes())
            damage(path)
            kft.load_model(path)

        yield Case(f".keras: {what}", opened, named="model.keras")
    for what, value in {"a file": __file__, "number": 3}.items():
        yield Case(f"cache={what}", lambda value=value: trained(value))
    keras.backend.clear_session()


# Command lines ----------------------------------------------------------------------------------


def command_lines() -> Iterator[Case]:
    """`kft VERB ...` in this process: an error is one line on stderr and status 1 or 2."""
    saved = folder() / "model.keras"
    kft.Model(models.esm2(), kft.heads.Regression()).save(saved)
    good = file("x.fasta", ">=cmd\nMKTAYI\n>\x1b[31mred\nGSS\n")

    def run(*words, check=lambda ran: True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ran = CliRunner().invoke(app, [str(word) for word in words])
        text = ran.output + (ran.stderr if ran.stderr_bytes else "")
        if ran.exit_code == 0:
            return check(ran)
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        if "\x1b[31m" in text or "Traceback" in text or not text.strip():
            raise RuntimeError(f"not one plain message: {text[:100]!r}")
        raise ValueError(f"kft: {text}")  # as the user sees it

    out = folder() / "out.csv"

    def harmless(ran):
        lines = out.read_text().splitlines()
        return lines[1].startswith("'=cmd") and len(lines) == 3

    yield Case("kft predict", partial(run, "predict", saved, good, out, check=harmless), False)
    yield Case("kft embed", partial(run, "embed", good, folder() / "e.npz", "--backbone",
                                    "kft_esm2_tiny"), False)  # fmt: skip
    yield Case("kft params", partial(run, "params", "kft_esm2_tiny"), False)
    yield Case("kft data", partial(run, "data", check=lambda ran: "amp" in ran.output), False)
    bad = file("bad.fasta", ">\x1b[31mred\nMK1T\n")
    lines: list[tuple] = [
        ("nothing",), ("--nothing",), ("embed",), ("predict",), ("params",),
        ("data", "nothing"), ("data", "\x1b[31mred"), ("data", ""), ("data", "amp", "more"),
        ("params", "nothing"), ("params", ""), ("params", "\x1b[31mred"),
        ("params", "kft_esm2_tiny", "--revision", "main"), ("params", folder()),
        ("embed", good, out), ("embed", good, out, "--backbone", "nothing"),
        ("embed", good, "x.txt", "--backbone", "kft_esm2_tiny"),
        ("embed", good, out, "--backbone", "kft_esm2_tiny", "--batch-size", "0"),
        ("embed", good, out, "--backbone", "kft_esm2_tiny", "--batch-size", "x"),
        ("embed", good, out, "--backbone", "kft_esm2_tiny", "--max-length", "0"),
        ("embed", good, out, "--backbone", "kft_esm2_tiny", "--pooling", "x"),
        ("embed", bad, out, "--backbone", "kft_esm2_tiny"),
        ("embed", "absent", out, "--backbone", "kft_esm2_tiny"),
        ("embed", good, "/proc/x.csv", "--backbone", "kft_esm2_tiny"),
        ("predict", "absent.keras", good, out), ("predict", good, good, out),
        ("predict", saved, "absent", out), ("predict", saved, bad, out),
        ("predict", saved, good, "x.txt"), ("predict", saved, good, out, "--batch-size", "-1"),
        ("predict", folder(), good, out), ("predict", saved, folder(), out),
    ]  # fmt: skip
    for line in lines:
        shown = " ".join(str(word) for word in line)
        yield Case(f"kft {shown!r:.70}", partial(run, *line))
    for name, path in strange_paths().items():
        if isinstance(path, str) and "\0" in path:
            continue  # no command line has one
        yield Case(f"kft predict of: {name}", partial(run, "predict", saved, path, out))

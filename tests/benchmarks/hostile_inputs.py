"""The inputs of `hostile.py`: files, arguments and command lines that are wrong, or nearly.

Each is a `Case`. One that is to be refused has an error of kft that names the argument or file;
one that is to be read returns True where the answer is right.
"""

import gzip
import json
import os
import random
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: What is wrong with it.
        call: Gives it to kft.
        refused: Whether it is to be an error, else the right answer is True; None where both are
            right, if the error is kft's own.
        named: What the message of the error has to contain.
    """

    name: str
    call: Callable[[], object]
    refused: bool | None = True
    named: str = ""


def folder() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def file(name: str, content: bytes | str) -> Path:
    """A new file with this content."""
    path = folder() / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# FASTA --------------------------------------------------------------------------------------------

GOOD = b">a one\nMKTAYIAK\n>b\nGSSGSSG\n"


def fasta() -> Iterator[Case]:
    import models

    import kft

    model = kft.Model(models.esm2(), kft.heads.Regression())

    def read(content, name="x.fasta", rows=None):
        path = file(name, content)
        predicted = kft.predict(model, path)
        return rows is None or predicted.shape == (rows, 1)

    wrong = {
        "empty": b"",
        "blank lines": b"\n\n \n",
        "comment alone": b"; nothing\n",
        "no header": b"MKTAYI\n",
        "empty header": b">\nMKT\n",
        "header of spaces": b">   \nMKT\n",
        "no sequence": b">a\n",
        "no sequence in the middle": b">a\n>b\nMKT\n",
        "no sequence at the end": b">a\nMKT\n>b\n",
        "digits": b">a\nMK1T\n",
        "a letter of none": b">a\nMKJT\n",
        "stop in the middle": b">a\nMK*T\n",
        "question mark": b">a\nMK?T\n",
        "NUL bytes": b">a\nMK\0T\n",
        "NUL in the header": b">a\0b\nMKT\n",
        "not UTF-8": b">a\nM\xff\xfeT\n",
        "UTF-16": ">a\nMKT\n".encode("utf-16"),
        "UTF-32": ">a\nMKT\n".encode("utf-32"),
        "only stops": b">a\n***\n",
        "accents": ">a\nMKÉT\n".encode(),
        "full width letters": ">a\nＭＫＴ\n".encode(),
        "CSV": b"sequence,y\nMKT,1\n",
        "JSON": b'{"a": "MKT"}',
        "FASTQ": b"@a\nMKT\n+\nIII\n",
        "GenBank": b"LOCUS       X\nORIGIN\n",
        "PDB": b"HEADER    X\nATOM      1\n",
        "web page": b"<!doctype html><html></html>",
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
        "random bytes": random.Random(0).randbytes(3000),
        "truncated gzip": gzip.compress(GOOD)[:-9],
        "damaged gzip": gzip.compress(GOOD)[:12] + b"damage" + gzip.compress(GOOD)[18:],
        "gzip start alone": b"\x1f\x8b",
        "gzip of nothing": gzip.compress(b""),
        "gzip of gzip": gzip.compress(gzip.compress(GOOD)),
        "escape code as residue": b">a\nMK\x1b[31mT\n",
        "a million residues": b">a\n" + b"MKTAYIAKQR" * 100_000 + b"\n",
    }
    for name, content in wrong.items():
        yield Case(f"FASTA: {name}", partial(read, content))
        packed = content if content[:2] == b"\x1f\x8b" else gzip.compress(content)
        if packed != content:
            yield Case(f"FASTA, gzipped: {name}", partial(read, packed, "x.fasta.gz"))
    right = {
        "Windows line ends": (GOOD.replace(b"\n", b"\r\n"), 2),
        "old Mac line ends": (GOOD.replace(b"\n", b"\r"), 2),
        "byte order mark": (b"\xef\xbb\xbf" + GOOD, 2),
        "lower case": (GOOD.lower().replace(b">", b">"), 2),
        "blank lines": (GOOD.replace(b"\n", b"\n\n"), 2),
        "spaces": (b">a\nMKT AYI\n", 1),
        "stop at the end": (b">a\nMKT*\n", 1),
        "gaps": (b">a\nM-K.T\n", 1),
        "masks": (b">a\nMK<mask>T\n", 1),
        "one residue": (b">a\nM\n", 1),
        "no last line end": (GOOD[:-1], 2),
        "the same name twice": (b">a\nMKT\n>a\nMKV\n", 2),
        "formula as a name": (b">=1+1\nMKT\n", 1),
        "escape code in a name": (b">\x1b[31mred\nMKT\n", 1),
        "long header": (b">" + b"x" * 1_000_000 + b"\nMKT\n", 1),
        "unusual residues": (b">a\nMBXZUO\n", 1),
        "gzipped": (gzip.compress(GOOD), 2),
        "two gzip members": (gzip.compress(GOOD) + gzip.compress(b">c\nMKT\n"), 3),
    }
    for name, (content, rows) in right.items():
        yield Case(f"FASTA: {name}", partial(read, content, rows=rows), refused=False)
    for name, path in strange_paths().items():
        yield Case(f"FASTA: {name}", partial(kft.predict, model, path))
        yield Case(f"read_fasta: {name}", lambda path=path: list(kft.data.read_fasta(path)))


def strange_paths() -> dict[str, object]:
    """Paths that lead to no file."""
    place = folder()
    os.mkfifo(place / "pipe.csv")
    (place / "dangling.csv").symlink_to(place / "gone")
    (place / "loop.csv").symlink_to(place / "loop.csv")
    return {
        "absent": place / "absent",
        "folder": place,
        "pipe": place / "pipe.csv",
        "link to nothing": place / "dangling.csv",
        "link to itself": place / "loop.csv",
        "device": "/dev/zero",
        "NUL in the path": "a\0b",
        "empty path": "",
        "very long path": "x" * 5000,
        "None": None,
        "number": 3.5,
    }


# CSV ----------------------------------------------------------------------------------------------


def table(rows: int = 30, y: Callable[[int], object] = lambda i: i / 10, header="sequence,y"):
    """The text of a table with different sequences."""
    names = [f"M{'ACDEFGHIKL'[i % 10]}{'KLMNPQRSTV'[i // 10 % 10]}AYIAK" for i in range(rows)]
    return header + "\n" + "".join(f"{name},{y(i)}\n" for i, name in enumerate(names))


def csv() -> Iterator[Case]:
    import models

    import kft

    good = table()
    encode = models.esm2().encode

    def read(content, check=lambda data: True, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(kft.data.read_csv(file("x.csv", content), **options))

    def encoded(data):
        """A letter that is no residue is found when sequences are encoded, before training."""
        kft.batches(data.train, encode, batch_size=4)
        return True

    def once(old, new):
        return good.replace(old, new, 1)

    wrong = {
        "empty": "",
        "header alone": "sequence,y\n",
        "no header": good.partition("\n")[2],
        "other columns": table(header="protein,value"),
        "the same column twice": table(header="sequence,sequence"),
        "more cells": once("0.0\n", "0.0,5\n"),
        "fewer cells": once(",0.0", ""),
        "unclosed quote": once("M", '"M'),
        "quote in a cell": once("MA", 'M"A'),
        "missing number": once(",0.0\n", ",\n"),
        "NA": once("0.0", "NA"),
        "infinite": once("0.0", "inf"),
        "overflow": once("0.0", "1e999"),
        "comma as thousands": once("0.0", '"1,500"'),
        "percent": once("0.0", "15%"),
        "unit": once("0.0", "12 nM"),
        "bound": once("0.0", "<5"),
        "word among numbers": once("0.0", "high"),
        "date": once("0.0", "2020-01-01"),
        "missing sequence": once("MAKAYIAK", ""),
        "digit in a sequence": once("MAKAYIAK", "MAK1YIAK"),
        "sequence of stops": once("MAKAYIAK", "***"),
        "NUL": once("MAKAYIAK", "MAK\0YIAK"),
        "two records": table(2),
        "words of one kind each": table(y=lambda i: f"word{i}"),
        "one class": table(y=lambda i: "yes"),
        "UTF-16": good.encode("utf-16"),
        "Latin-1": once("0.0", "é").encode("latin-1"),
        "random bytes": random.Random(1).randbytes(3000),
        "truncated gzip": gzip.compress(good.encode())[:-9],
        "web page": "<!doctype html><html><body>404</body></html>",
        "Excel": b"PK\x03\x04" + bytes(200),
    }
    for name, content in wrong.items():
        yield Case(f"CSV: {name}", partial(read, content, encoded))
        if isinstance(content, str):
            yield Case(
                f"CSV with semicolons: {name}",
                partial(read, content.replace(",", ";"), encoded),
                refused=None if "comma" in name else True,
            )
    long = "MKTAYIAKQR" * 20_000
    numbers = " ".join(["0.25"] * 40_000)

    def classes(count):
        return lambda data: len(data.classes) == count

    right = {
        "plain": (good, lambda data: len(data.train) == 24, {}),
        "Windows line ends": (good.replace("\n", "\r\n"), lambda data: len(data.train) == 24, {}),
        "byte order mark": (b"\xef\xbb\xbf" + good.encode(), lambda data: True, {}),
        "tabs": (good.replace(",", "\t"), lambda data: True, {}),
        "blank lines": (good.replace("\n", "\n\n"), lambda data: True, {}),
        "1, 1.0 and 01": (table(y=lambda i: ["1", "1.0", "01", "0"][i % 4]), classes(2),
                          {"task": "classification"}),
        "true and TRUE": (table(y=lambda i: ["true", "TRUE", "no"][i % 3]), classes(2), {}),
        "a cell of 200,000 characters": (once("MAKAYIAK", long), lambda data: True, {}),
        "gzipped": (gzip.compress(good.encode()), lambda data: True, {}),
        "negative numbers": (table(y=lambda i: -i), lambda data: data.train.targets.min() < 0, {}),
        "a formula as a class": (table(y=lambda i: ["=1+1", "@x"][i % 2]), classes(2), {}),
        "an escape code as a class": (table(y=lambda i: ["\x1b[31mred", "b"][i % 2]),
                                      lambda data: "\x1b" not in str(data), {}),
        "a column with an escape code": (table(header="sequence,\x1b[31my"), lambda data: True,
                                         {"target": "\x1b[31my"}),
    }  # fmt: skip
    for name, (content, check, options) in right.items():
        yield Case(f"CSV: {name}", partial(read, content, check, **options), refused=False)
    yield Case(
        "CSV: a cell of numbers beyond the usual limit",
        partial(read, once("MAKAYIAK,0.0", f"MAKAYIAK,{numbers}")),
    )
    options = {
        "inputs": ("nothing", None, 3, ["sequence"]),
        "target": ("nothing", None, 3, [], ["y", "y"], ["nothing"]),
        "split": ("nothing", 3, "cluster2"),
        "groups": ("nothing", 3),
        "task": ("nothing", 3, "regress", True),
        "fractions": ((0.5, 0.5), (1, 1, 1), (0.8, 0.2, 0), (-1, 1, 1), None, "abc", 0.5),
        "seed": (-1, 1.5, "3", None, 2**40),
        "sep": ("", ",,", 3, "\n", '"'),
        "missing": (3, [3], {"a": 1}),
        "dropna": ("no", 1, None),
        "decimal": (";", 3, ""),
    }
    for option, values in options.items():
        for value in values:
            yield Case(f"read_csv({option}={value!r})", partial(read, good, **{option: value}),
                       named=option)  # fmt: skip
    for name, path in strange_paths().items():
        yield Case(f"read_csv: {name}", partial(kft.data.read_csv, path), named="path")


# Images -------------------------------------------------------------------------------------------


def images() -> Iterator[Case]:
    import io

    from PIL import Image

    import kft

    def saved(picture, kind, **options):
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        return stream.getvalue()

    def picture(i=0, size=(12, 12), mode="RGB"):
        values = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
        return Image.fromarray(values).convert(mode)

    def classes(extra: dict[str, bytes], make=None, count=8):
        root = folder()
        for name in "ab":
            (root / name).mkdir()
            for i in range(count):
                Image.Image.save(picture(i + 100 * (name == "b")), root / name / f"{i}.png")
        for name, content in extra.items():
            (root / "a" / name).write_bytes(content)
        if make is not None:
            make(root / "a")
        return root

    def read(extra=None, make=None, check=lambda data: True, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(kft.data.read_images(classes(extra or {}, make), **options))

    png, jpeg = saved(picture(), "PNG"), saved(picture(), "JPEG")
    tiff = saved(picture(), "TIFF", save_all=True, append_images=[picture(1), picture(2)])
    gif = saved(picture(), "GIF", save_all=True, append_images=[picture(1), picture(2)])
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge = png[:16] + header + png[29:]
    wide = saved(Image.new("1", (12_000, 9_000)), "PNG")
    wrong = {
        "empty": b"",
        "text": b"not an image",
        "web page": b"<html></html>",
        "zip": b"PK\x03\x04" + bytes(100),
        "random bytes": random.Random(2).randbytes(2000),
        "start of a PNG": png[:8],
        "truncated PNG": png[: len(png) // 2],
        "damaged PNG": png[:60] + bytes(50) + png[110:],
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "start of a JPEG": jpeg[:4],
        "truncated GIF": gif[:40],
        "truncated TIFF": tiff[:100],
        "PNG that claims 3.6 gigapixels": huge,
        "108 megapixels": wide,
        "TIFF of three pages": tiff,
        "GIF of three frames": gif,
        "floats of unknown range": saved(picture(mode="F"), "TIFF"),
        "integers of unknown range": saved(picture(mode="I"), "TIFF"),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.4\n",
        "NPY": b"\x93NUMPY\x01\x00" + bytes(60),
        "git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    }
    for name, content in wrong.items():
        for end in ("png", "tif", "jpg"):
            yield Case(f"image, .{end}: {name}", partial(read, {f"x.{end}": content}),
                       named=f"x.{end}")  # fmt: skip
    for name, make in {
        "pipe": lambda a: os.mkfifo(a / "x.png"),
        "link to nothing": lambda a: (a / "x.png").symlink_to(a / "gone"),
        "link to itself": lambda a: (a / "x.png").symlink_to(a / "x.png"),
    }.items():
        yield Case(f"image: {name}", partial(read, make=make), named=r"x\.png")
    for name, extra in {
        "palette": {"x.png": saved(picture(mode="P"), "PNG")},
        "grey": {"x.png": saved(picture(mode="L"), "PNG")},
        "opacity": {"x.png": saved(picture(mode="RGBA"), "PNG")},
        "CMYK": {"x.jpg": saved(picture(mode="CMYK"), "JPEG")},
        "one pixel": {"x.png": saved(picture(size=(1, 1)), "PNG")},
        "16 bits": {"x.png": saved(Image.fromarray(np.full((9, 9), 900, "uint16")), "PNG")},
        "wrong ending": {"x.jpg": png},
        "hidden file": {".hidden": b"x"},
        "escape code in the name": {"\x1b[31m.png": png},
    }.items():
        yield Case(f"image: {name}", partial(read, extra), refused=False)
    for kind in ("tif", "gif"):
        root = folder()
        for name in "ab":
            (root / name).mkdir()
            for i in range(8):
                pages = [picture(50 * i + 1000 * (name == "b") + k) for k in range(3)]
                pages[0].save(root / name / f"{i}.{kind}", save_all=True, append_images=pages[1:])
        for frames in (0, 2):
            yield Case(
                f"frames={frames} of .{kind}",
                lambda root=root, frames=frames: (
                    kft.data.read_images(root, frames=frames).train.inputs[0].number == frames
                ),
                refused=False,
            )
        for frames in (3, -1, 1.5, "all", True):
            yield Case(f"frames={frames!r} of .{kind}",
                       partial(kft.data.read_images, root, frames=frames))  # fmt: skip
    options = {
        "seed": (-1, "3", None, 1.5),
        "split": ("nothing", "cluster", 3),
        "task": ("residue_regression", 3),
        "value_range": ((1,), (5, 2), "ab", (0, 1e9), 3),
        "percentiles": ((99, 1), (1,), "ab"),
        "fractions": ((1, 1, 1), None, (0.5, 0.5)),
    }
    for option, values in options.items():
        for value in values:
            deep = {"x.png": saved(Image.fromarray(np.full((9, 9), 900, "uint16")), "PNG")}
            yield Case(f"read_images({option}={value!r})", partial(read, deep, **{option: value}),
                       named=option)  # fmt: skip
    for name, path in strange_paths().items():
        yield Case(f"read_images: {name}", partial(kft.data.read_images, path))


# Checkpoints --------------------------------------------------------------------------------------

NESTED = "[" * 100_000 + "]" * 100_000


def checkpoints() -> Iterator[Case]:
    import models

    import kft

    kept = {}
    for name, made in {"ESM-2": models.esm2(2), "ESM-C": models.esmc(2)}.items():
        place = folder()
        kft.backbones.save(made, place)
        kept[name] = (
            json.loads((place / "config.json").read_text()),
            (place / "model.safetensors").read_bytes(),
        )

    def load(config, weights=b"", name="model.safetensors", **options):
        place = folder()
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        (place / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        if weights:
            (place / name).write_bytes(weights)
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
        size = struct.unpack("<Q", weights[:8])[0]
        head = json.loads(weights[8 : 8 + size])

        def with_header(text, weights=weights, size=size):
            raw = text if isinstance(text, bytes) else text.encode()
            return struct.pack("<Q", len(raw)) + raw + weights[8 + size :]

        first = next(key for key in head if key != "__metadata__")
        damaged = {
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
            "negative shape": with_header(
                json.dumps({**head, first: {**head[first], "shape": [-1]}})
            ),
            "huge shape": with_header(
                json.dumps({**head, first: {**head[first], "shape": [2**62]}})
            ),
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
        for what, content in damaged.items():
            yield Case(f"{name}, safetensors: {what}", partial(load, config, content),
                       named="model.safetensors")  # fmt: skip
    config, weights = kept["ESM-2"]
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
    yield from pickles(load, config)
    yield from vision(load)
    for what, path in strange_paths().items():
        yield Case(f"load: {what}", partial(kft.load, path))


def pickles(load: Callable, config: dict) -> Iterator[Case]:
    """Torch files."""
    import io
    import pickle
    import zipfile

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


# Adapters -----------------------------------------------------------------------------------------


def adapters() -> Iterator[Case]:
    import models

    import kft

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
    tensors = content["adapter_model.safetensors"]
    size = struct.unpack("<Q", tensors[:8])[0]
    head = json.loads(tensors[8 : 8 + size])

    def about(**entries):
        changed = {**head, "__metadata__": {**head["__metadata__"], **entries}}
        raw = json.dumps(changed).encode()
        return struct.pack("<Q", len(raw)) + raw + tensors[8 + size :]

    for what, data in {
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
    }.items():
        yield Case(f"adapter_model: {what}", partial(load, {"adapter_model.safetensors": data}))
    for what, path in strange_paths().items():
        yield Case(f"load_adapter: {what}", partial(kft.load_adapter, base, path))


# Caches -------------------------------------------------------------------------------------------


def caches() -> Iterator[Case]:
    import keras
    import models

    import kft

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

    kinds = {
        "emptied": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
        "random": lambda path: path.write_bytes(random.Random(6).randbytes(500)),
        "a list": lambda path: path.write_bytes(b"[]"),
        "nested": lambda path: path.write_bytes(NESTED.encode()),
        "removed": lambda path: path.unlink(),
    }
    for what, damage in kinds.items():
        for end in (".json", ".npy"):

            def only(path, damage=damage, end=end):
                if path.suffix == end:
                    damage(path)

            yield Case(f"features: {end} {what}", lambda f=only: trained(folder(), f), None)
    for what, damage in kinds.items():

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
    for what, damage in kinds.items():

        def opened(damage=damage):
            from kft.models import load_saved

            path = file("model.keras", saved.read_bytes())
            damage(path)
            load_saved(path)

        yield Case(f".keras: {what}", opened, named="model.keras")
    for what, value in {"a file": __file__, "number": 3}.items():
        yield Case(f"cache={what}", lambda value=value: trained(value))
    keras.backend.clear_session()


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "FASTA": fasta,
    "CSV": csv,
    "images": images,
    "checkpoints": checkpoints,
    "adapters": adapters,
    "caches": caches,
}

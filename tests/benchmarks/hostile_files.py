"""Hostile FASTA files, tables and images, see `hostile.py`."""

import gzip
import io
import os
import random
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import models
import numpy as np
from hostile_cases import Case, file, folder, strange_paths
from PIL import Image

import kft

# FASTA --------------------------------------------------------------------------------------------

GOOD = b">a one\nMKTAYIAK\n>b\nGSSGSSG\n"


def wrong_fasta() -> dict:
    return {
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


def right_fasta() -> dict:
    return {
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


def fasta() -> Iterator[Case]:
    model = kft.Model(models.esm2(), kft.heads.Regression())

    def read(content, name="x.fasta", rows=None):
        path = file(name, content)
        predicted = kft.predict(model, path)
        return rows is None or predicted.shape == (rows, 1)

    wrong = wrong_fasta()
    for name, content in wrong.items():
        yield Case(f"FASTA: {name}", partial(read, content))
        packed = content if content[:2] == b"\x1f\x8b" else gzip.compress(content)
        if packed != content:
            yield Case(f"FASTA, gzipped: {name}", partial(read, packed, "x.fasta.gz"))
    right = right_fasta()
    for name, (content, rows) in right.items():
        yield Case(f"FASTA: {name}", partial(read, content, rows=rows), refused=False)
    for name, path in strange_paths().items():
        yield Case(f"FASTA: {name}", partial(kft.predict, model, path))
        yield Case(f"read_fasta: {name}", lambda path=path: list(kft.data.read_fasta(path)))


# CSV ----------------------------------------------------------------------------------------------


def table(rows: int = 30, y: Callable[[int], object] = lambda i: i / 10, header="sequence,y"):
    """The text of a table with different sequences."""
    names = [f"M{'ACDEFGHIKL'[i % 10]}{'KLMNPQRSTV'[i // 10 % 10]}AYIAK" for i in range(rows)]
    return header + "\n" + "".join(f"{name},{y(i)}\n" for i, name in enumerate(names))


def wrong_tables(good, once) -> dict:
    return {
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


def right_tables(good, once, long, classes) -> dict:
    return {
        "plain": (good, lambda data: len(data.train) == 24, {}),
        "Windows line ends": (good.replace("\n", "\r\n"), lambda data: len(data.train) == 24, {}),
        "byte order mark": (b"\xef\xbb\xbf" + good.encode(), lambda data: True, {}),
        "tabs": (good.replace(",", "\t"), lambda data: True, {}),
        "a list of one column": (good, lambda data: list(data.train.inputs[0]) == ["sequence"],
                                 {"inputs": ["sequence"]}),
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


def table_options() -> dict:
    return {
        "inputs": ("nothing", None, 3, ["nothing"], []),
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


def csv() -> Iterator[Case]:
    good = table()
    encode = models.esm2().encode

    def read(content, check=lambda data: True, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(kft.data.read_csv(file("x.csv", content), **options))

    def encoded(data):
        """A letter that is no residue is found when sequences are encoded, before training."""
        for part in data.splits.values():
            kft.batches(part, encode, batch_size=4)
        return True

    def once(old, new):
        return good.replace(old, new, 1)

    wrong = wrong_tables(good, once)
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

    right = right_tables(good, once, long, classes)
    for name, (content, check, options) in right.items():
        yield Case(f"CSV: {name}", partial(read, content, check, **options), refused=False)
    yield Case(
        "CSV: a cell of numbers beyond the usual limit",
        partial(read, once("MAKAYIAK,0.0", f"MAKAYIAK,{numbers}")),
    )
    options = table_options()
    for option, values in options.items():
        for value in values:
            yield Case(f"read_csv({option}={value!r})", partial(read, good, **{option: value}),
                       named=option)  # fmt: skip
    for name, path in strange_paths().items():
        yield Case(f"read_csv: {name}", partial(kft.data.read_csv, path), named="path")


# Images -------------------------------------------------------------------------------------------


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


def image_options() -> dict:
    return {
        "seed": (-1, "3", None, 1.5),
        "split": ("nothing", "cluster", 3),
        "task": ("residue_regression", 3),
        "value_range": ((1,), (5, 2), "ab", (0, 1e9), 3),
        "percentiles": ((99, 1), (1,), "ab"),
        "fractions": ((1, 1, 1), None, (0.5, 0.5)),
    }


def wrong_images() -> dict:
    png, jpeg = saved(picture(), "PNG"), saved(picture(), "JPEG")
    tiff = saved(picture(), "TIFF", save_all=True, append_images=[picture(1), picture(2)])
    gif = saved(picture(), "GIF", save_all=True, append_images=[picture(1), picture(2)])
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge = png[:16] + header + png[29:]
    wide = saved(Image.new("1", (12_000, 9_000)), "PNG")
    return {
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


def stacks() -> Iterator[Case]:
    """One frame of files of several."""
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


def images() -> Iterator[Case]:
    def read(extra=None, make=None, check=lambda data: True, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(kft.data.read_images(classes(extra or {}, make), **options))

    wrong = wrong_images()
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
        "wrong ending": {"x.jpg": saved(picture(), "PNG")},
        "hidden file": {".hidden": b"x"},
        "escape code in the name": {"\x1b[31m.png": saved(picture(), "PNG")},
    }.items():
        yield Case(f"image: {name}", partial(read, extra), refused=False)
    yield from stacks()
    options = image_options()
    for option, values in options.items():
        for value in values:
            deep = {"x.png": saved(Image.fromarray(np.full((9, 9), 900, "uint16")), "PNG")}
            yield Case(f"read_images({option}={value!r})", partial(read, deep, **{option: value}),
                       named=option)  # fmt: skip
    for name, path in strange_paths().items():
        yield Case(f"read_images: {name}", partial(kft.data.read_images, path))

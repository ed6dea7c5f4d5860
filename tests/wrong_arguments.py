"""Each argument of each public function of kft, with wrong values."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import models
import numpy as np
import pandas as pd
from hostile_cases import Case, folder

import kft

INTEGERS = (0, -1, 1.5, "3", None, True, [1], float("nan"))
SEEDS = (-1, 1.5, "3", None, True, [1], 2**40)
NUMBERS = (0, -1, "3", True, [1], float("nan"), float("inf"))
FLAGS = ("yes", 1, None, [])
COPIES = ("yes", 1, None, [], pd.DataFrame({"a": [1]}))
NO_MODEL = (None, "esm2", 5, [], object())
# Name of a function, function, positional arguments, others, {argument: wrong values}.
Row = tuple[str, Callable, tuple, dict, dict]


def without(values: tuple, *some: object) -> tuple:
    """The values but for some, such as None where it is allowed."""
    return tuple(x for x in values if not any(x is y for y in some))


def of_zero_shot(backbone) -> list[Row]:
    """Similarity search and scores of mutants."""
    return [
        ("search", kft.search, (), {
            "backbone": backbone, "queries": ["MKT"], "database": ["MKT", "GSS"], "k": 1}, {
            "backbone": NO_MODEL,
            "queries": (None, 5, [], [None], [""], ["MK1"], "MKT", "nothing.fasta"),
            "database": (None, 5, [], [None], [""], ["MK1"], "MKT", "nothing.fasta"),
            "k": (*without(INTEGERS, None), 3), "batch_size": INTEGERS, "column": (5, []),
            "skip_invalid": FLAGS}),
        ("build_index", kft.build_index, (), {"backbone": backbone, "database": ["MKT", "GSS"]}, {
            "backbone": NO_MODEL,
            "database": (None, 5, [], [None], [""], ["MK1"], "MKT", "nothing.fasta"),
            "out": (5, "", [], __file__), "pooling": ("nothing", None, 5, ["mean"]),
            "layer": (99, "x", 1.5, True, [1]), "transform": ("nothing", 5, []),
            "exact": without(FLAGS, None), "batch_size": INTEGERS,
            "max_length": without(INTEGERS, None), "column": (5, []), "skip_invalid": FLAGS}),
        ("load_index", kft.load_index, (), {}, {
            "folder": (None, 5, "", [], "nothing", __file__)}),
        ("score_mutations", kft.score_mutations, (), {
            "backbone": backbone, "wild_type": "MKTAY", "mutations": ["K2R"]}, {
            "backbone": NO_MODEL, "wild_type": (None, 5, "", [], "MK1AY", b"MKTAY"),
            "mutations": (None, 5, [], "K2R", [None], [5], [""], ["K3R"], ["K2X"], [["K2R"]], {}),
            "method": ("nothing", None, 5, []), "offset": (1.5, "3", None, True, [1]),
            "window": without(INTEGERS, None), "column": (5, "nothing", []),
            "skip_invalid": FLAGS, "tokens": without(INTEGERS, None),
            "overlapping": ("yes", 1, None, True)}),
        ("scan", kft.scan, (), {"backbone": backbone, "sequence": "MKTAY"}, {
            "backbone": NO_MODEL, "sequence": (None, 5, "", [], "MK1AY", b"MKTAY", "XX"),
            "method": ("nothing", None, 5, []), "offset": (1.5, "3", None, True, [1]),
            "window": without(INTEGERS, None), "tokens": without(INTEGERS, None)}),
    ]  # fmt: skip


def of_models(backbone, model, records, table, adapter) -> list[Row]:
    """Loading, predicting and choosing layers."""
    torsions = kft.Model(backbone, kft.heads.Torsions())
    return [
        ("load", kft.load, (), {"name": "kft_esm2_tiny"}, {
            "name": (None, 5, "", [], "esm2_t6", b"esm2"), "weights": FLAGS, "remat": FLAGS,
            "seed": SEEDS, "image_size": (0, -1, "3", (1,), 1.5),
            "revision": (5, "main", [], "v1"), "dtype": ("nothing", 5), "data": (5, [], table)}),
        ("load", kft.load, (), {"name": "dense", "weights": False}, {
            "data": (None, 5, [], table, "table.csv")}),
        ("predict", kft.predict, (model,), {"inputs": ["MKT"]}, {
            "inputs": (None, 5, [], [None], [5], [""], ["MK1"], "MKT", [["MKT"]]),
            "batch_size": INTEGERS, "max_length": without(INTEGERS, None),
            "out": ("x.txt", 5, "", "x"), "encode": (5, "encode"), "as_frame": FLAGS,
            "column": (5, []), "skip_invalid": FLAGS,
            "window": without(INTEGERS, None)}),
        ("predict", kft.predict, (model, table), {}, {"column": ("nothing",)}),
        ("embed", kft.embed, (backbone,), {"inputs": ["MKT"]}, {
            "inputs": (None, 5, [], [None], [""], ["MK1"]), "batch_size": INTEGERS,
            "max_length": without(INTEGERS, None), "pooling": ("nothing", None, 5, ["mean"]),
            "out": ("x.txt", 5, ""), "per_residue": FLAGS, "layers": (5, [], [99], ["x"], [0, 0]),
            "column": (5, []), "skip_invalid": FLAGS,
            "shard": (5, "", "0/4", "5/4", "x", [1, 4]), "window": without(INTEGERS, None)}),
        ("merge_embeddings", kft.merge_embeddings, (), {"folder": "nothing"}, {
            "folder": (None, 5, "", "nothing"), "out": (5, "", "x.txt")}),
        ("fold", kft.fold, (), {"models": torsions, "sequence": "MKTAY", "starts": 1}, {
            "models": (*NO_MODEL, model), "sequence": (None, 5, "", [], "MK1AY", b"MKTAY", "MK TA"),
            "starts": INTEGERS, "iterations": INTEGERS, "seed": SEEDS, "name": (None, 5, [])}),
        ("load_model", kft.load_model, (), {"path": adapter}, {
            "path": (None, 5, "", "nothing", __file__), "backbone": (5, "nothing", [])}),
        ("load_embeddings", kft.load_embeddings, (), {}, {
            "path": (None, 5, "", "nothing", "nothing.npz", __file__)}),
        ("explore", kft.explore, (), {"data": table, "target": "y"}, {
            "data": (None, 5, [], "nothing", ""), "target": (5, "nothing", "", ["y"]),
            "groups": (5, "nothing", ["y"]), "split": (5, "nothing", ["y"]), "task": (5, "nothing"),
            "sep": (5, "", ",,"), "decimal": (5, "x")}),
        ("batches", kft.batches, (), {"records": records, "encode": model.encode}, {
            "records": (None, 5, [], "MKT", (["MKT"], [1, 2]), (["MKT"], None, 3),
                        (["MKT"], ["high"]), (["MKT"], [np.nan]), (["MKT"], [1e38]),
                        (["MKT"], [1e300]), (["MKT"], [10**12]), (["MKT"], [None]),
                        (["MKT"], [[1, 2], [3]]), (["MKT"], [1j])),
            "encode": (5, "encode", []), "batch_size": INTEGERS,
            "seed": without(SEEDS, None), "max_length": without(INTEGERS, None)}),
        ("Model", kft.Model, (), {"backbone": backbone, "head": kft.heads.Regression()}, {
            "backbone": NO_MODEL, "head": NO_MODEL, "name": (5, None, []),
            "pooling": ("nothing", 5, ["mean"]), "remat": FLAGS}),
        ("replace_head", kft.replace_head, (), {"model": model, "head": kft.heads.Regression()}, {
            "model": NO_MODEL, "head": NO_MODEL, "features": ("head", 5),
            "pooling": ("nothing", 5, ["mean"])}),
        ("remat", kft.remat, (), {"model": model}, {"model": NO_MODEL, "enabled": FLAGS}),
        ("freeze", kft.freeze, (), {"model": model}, {
            "model": NO_MODEL, "pattern": (5, "nothing", [5], "", [])}),
        ("unfreeze", kft.unfreeze, (), {"model": model}, {
            "model": NO_MODEL, "pattern": (5, "nothing", [5], "", [])}),
        ("train_only", kft.train_only, (), {"model": model, "pattern": "head"}, {
            "model": NO_MODEL, "pattern": (None, 5, "nothing", [5], "", [])}),
        ("parameters", kft.parameters, (), {}, {"model": NO_MODEL}),
        ("fingerprint", kft.fingerprint, (), {"model": model}, {
            "model": NO_MODEL, "pattern": (5, "nothing"), "trainable": ("yes", 5)}),
    ]  # fmt: skip


def of_adapters(model, new, adapted) -> list[Row]:
    """Adapters."""
    return [
        ("add_lora", kft.add_lora, (new,), {}, {
            "rank": (*INTEGERS, 10**9), "alpha": (*NUMBERS, None), "seed": SEEDS,
            "dropout": (1, -0.1, "3", None, float("nan"), 2), "rslora": FLAGS, "dora": FLAGS,
            "targets": (5, "nothing", [], [5], "head"), "name": (5, None, "", "a b", []),
            "bias": ("nothing", None, True), "ranks": (5, {"nothing": 2}, {"query": 0}),
            "alphas": (5, {"nothing": 2}, {"query": -1})}),
        ("add_lora", kft.add_lora, (), {}, {"model": NO_MODEL}),
        ("merge_lora", kft.merge_lora, (), {}, {"model": (*NO_MODEL, model)}),
        ("unmerge_lora", kft.unmerge_lora, (), {}, {"model": (*NO_MODEL, model)}),
        ("save_adapter", kft.save_adapter, (adapted,), {"folder": folder()}, {
            "folder": (None, 5, "", "a\0b", __file__), "name": ("nothing", 5)}),
        ("load_adapter", kft.load_adapter, (new,), {"folder": folder()}, {
            "folder": (None, 5, "", "nothing"), "name": (5, None), "check_base": FLAGS}),
    ]  # fmt: skip


def of_training(backbone, model, compiled, new, data, train, records) -> list[Row]:
    """Training and comparing."""
    return [
        ("split", kft.split, (), {}, {"model": (*NO_MODEL, backbone)}),
        ("fit_frontier", kft.fit_frontier, (), {"model": compiled, "data": records, "verbose": 0}, {
            "model": (*NO_MODEL, model), "data": (None, 5, [], "MKT"), "epochs": INTEGERS,
            "batch_size": INTEGERS, "seed": without(SEEDS, None),
            "max_length": without(INTEGERS, None), "callbacks": (None, 5, [None], [5], ["x"]),
            "encode": (5, "encode"), "initial_epoch": (-1, "3", None),
            "memory_limit": ("3", None, -1)}),
        ("find_learning_rate", kft.find_learning_rate, (new,), {"batches": train}, {
            "batches": (None, 5, []), "smallest": NUMBERS, "largest": (*NUMBERS, 1e-9),
            "steps": (*INTEGERS, 5), "optimizer": (5, "adam", None)}),
        ("fit", kft.fit, (new,), {"data": records, "epochs": 1, "verbose": 0}, {
            "data": (None, 5, [], "MKT", ["MKT"], (["MKT"], ["high"]), (["MKT"], [None]),
                     (["MKT"], [1e38]), (["MKT"], [np.nan])),
            "strategy": ("nothing", 5, [], kft.strategies.Strategy),
            "epochs": without(INTEGERS, None), "learning_rate": NUMBERS, "batch_size": INTEGERS,
            "max_length": without(INTEGERS, None), "seed": SEEDS,
            "class_weight": ("nothing", 5, [1.0]), "label_smoothing": ("x", 2, -1),
            "keep_best": FLAGS, "encode": (5, "encode"), "frontier": ("nothing", None, 1, []),
            "callbacks": (None, 5, [None], [5], ["x"], [type]), "optimizer": (5, "adam", None),
            "memory_limit": ("3", None, -1), "cache": (5,), "resume": (5,),
            "prompting": (5, "x")}),
        ("fit", kft.fit, (), {"data": records, "verbose": 0}, {"model": NO_MODEL}),
        ("fit_contacts", kft.fit_contacts, (), {"backbone": backbone, "chains": data.train}, {
            "backbone": NO_MODEL, "chains": (None, 5, [], data.train, ["MKTAY"]), "C": NUMBERS}),
        ("finetune", kft.finetune, (), {"settings": kft.finetuning.Settings("amp"), "out": "run"}, {
            "settings": (None, 5, "amp"), "out": (None, 5), "overwrite": FLAGS,
            "baselines": FLAGS, "log": (5, "print")}),
        ("report", kft.report, (), {"subject": data}, {
            "subject": (None, 5, [], "nothing"), "path": (5, "nothing.txt"), "question": (5,),
            "title": (5,), "command": (5,)}),
        ("evaluate", kft.evaluate, (), {"model": model, "data": data}, {
            "model": NO_MODEL, "data": (None, 5, "nothing", []),
            "batch_size": INTEGERS, "max_length": without(INTEGERS, None),
            "encode": (5, "encode"), "copies": (*FLAGS, pd.DataFrame({"test": [99]})),
            "by": (5, "nothing", ["a"], [["a"]])}),
        ("estimate", kft.estimate, (), {"model": model, "batch_size": 1, "length": 5}, {
            "model": NO_MODEL, "batch_size": INTEGERS, "length": INTEGERS}),
        ("compare", kft.compare, (), {"backbone": backbone, "data": data,
                                      "strategies": ["head_only"]}, {
            "backbone": NO_MODEL, "data": (None, 5, "nothing"),
            "strategies": (5, "lora", [], [5], ["nothing"]),
            "seeds": (0, -1, 1.5, "3", None, [], [1, 1], [-1], True),
            "epochs": without(INTEGERS, None), "batch_size": INTEGERS, "controls": FLAGS,
            "overwrite": FLAGS, "save_models": FLAGS, "confidence": (0, 1, 2, "3", None),
            "resamples": INTEGERS, "max_length": without(INTEGERS, None),
            "copies": (*FLAGS, pd.DataFrame({"test": [99]})),
            "folds": (*without(INTEGERS, None), 1, 2), "repeats": INTEGERS}),
    ]  # fmt: skip


def of_mutants_and_pairs(backbone) -> list[Row]:
    """Few labels, and pairs of proteins."""
    part = kft.data.Split([f"MKTAY{x}" for x in "ACDEFGHI"], np.arange(8.0))
    about = {"source": "", "licence": "", "citation": "", "checksum": "", "wild_type": "MKTAYI"}
    data = kft.data.Dataset("toy", "regression", part, None, part, **about)
    table = pd.DataFrame({"a": ["MKT", "GSS"], "b": ["GSS", "AAA"], "y": [0.5, 1.0]})
    return [
        ("crossover", kft.crossover, (), {"backbone": backbone, "data": data, "sizes": [4],
                                          "verbose": False}, {
            "backbone": NO_MODEL, "data": (None, 5, "nothing"),
            "sizes": (5, [], [0], [99], ["x"], "8", [True]),
            "strategies": (5, "lora", [], [5], ["nothing"]), "seeds": INTEGERS,
            "wild_type": (5, "", [], "MK1AYI", b"MKTAYI"), "method": ("nothing", None, 5, []),
            "batch_size": INTEGERS, "max_length": without(INTEGERS, None),
            "confidence": (0, 1, 2, "3", None), "resamples": INTEGERS, "verbose": ("yes", 5)}),
        ("PairBackbone", kft.PairBackbone, (), {"tower": backbone}, {
            "tower": NO_MODEL, "pooling": ("nothing", None, 5, ["mean"]), "name": (5, None, [])}),
        ("read_pairs", kft.data.read_pairs, (table,), {"inputs": ["a", "b"], "split": None}, {
            "inputs": (None, 5, [], "a", ["a"], ["a", "a"], ["a", "nothing"], [5, 6]),
            "target": (None, 5, "nothing", []), "split": (5, "nothing", "cluster"),
            "task": (5, "nothing", "residue_regression"), "seed": SEEDS, "dropna": FLAGS,
            "weights": (5, "nothing")}),
        ("pair_split", kft.data.pair_split, (), {"pairs": [("MKT", "GSS")]}, {
            "pairs": (None, 5, "MKT", ["MKT"], [("MKT",)], [("MKT", 5)]),
            "scheme": (None, 5, "C4", []), "seed": SEEDS, "near_copies": FLAGS}),
    ]  # fmt: skip


def of_tables(data) -> list[Row]:
    """Tables of plain columns."""
    table = pd.DataFrame({"age": [31.0, 40.0] * 10, "sex": ["f", "m"] * 10, "y": range(20)})
    return [
        ("read_table", kft.data.read_table, (table,), {"inputs": ["age", "sex"]}, {
            "inputs": (None, 5, [], [5], ["nothing"], ["age", "age"], ["y"]),
            "categories": (None, 5, "sex", [5], ["nothing"], ["y"]),
            "weights": (5, "nothing", "age", ["y"]), "split": ("age", "cluster", 5)}),
        ("read_table", kft.data.read_table, (table,), {"inputs": "sex"}, {
            "categories": (["sex"],)}),
        ("prepare", kft.prepare, (), {"data": data}, {
            "data": (None, 5, [], "nothing", table), "findings": (5, "nothing", [], {}),
            "steps": (5, "nothing", [5], [None], {"why": 5}, kft.preparation.Impute(),
                      [kft.preparation.Impute], {5: kft.preparation.DropDuplicates()})}),
    ]  # fmt: skip


def of_others(model) -> list[Row]:
    """Names, heads and encoders."""
    return [
        ("data.load", kft.data.load, (), {}, {"name": (None, 5, "nothing", "", [])}),
        ("strategies.get", kft.strategies.get, (), {}, {"name": (None, 5, "nothing", "", [])}),
        ("Regression", kft.heads.Regression, (), {}, {
            "targets": INTEGERS, "pooling": ("nothing", 5), "dropout": ("x", 2, -1, None),
            "mean": ("x", [1, 2]), "std": (0, -1, "x", [1, 2])}),
        ("Classification", kft.heads.Classification, (), {"classes": 3}, {
            "classes": (*INTEGERS, 1, 10**9), "pooling": ("nothing", 5), "dropout": ("x", 2)}),
        ("encode", model.encode, (), {"sequences": ["MKT"]}, {
            "sequences": (None, 5, "MKT", [], [None], [5], [""], ["M1"]),
            "max_length": without(INTEGERS, None)}),
        *of_segmentation(models.sam(), np.zeros((8, 8), "uint8")),
    ]  # fmt: skip


def of_segmentation(sam, image) -> list[Row]:
    """Prompts of a SAM."""
    given = {"sam": sam, "image": image}
    wrong = {"sam": (None, 5, "sam"), "image": (None, 5, "nothing.png", np.zeros((0, 3)))}
    return [
        ("segment", kft.segment, (), {**given, "points": [[1, 1]]}, {
            **wrong, "points": (5, "x", [[9, 9]], [1, 2], [["a", "b"]], []), "labels": (5, [[7]]),
            "boxes": (5, "x", [[5, 5, 1, 1]], [[1, 2]]), "masks": (5, "x", np.zeros((1, 2, 2))),
            "window": (3, "x", 1.5), "times": (1, "x"), "mirrored": (2, "x"),
            "clip_to_boxes": (2, "x")}),
        ("segment_everything", kft.segment_everything, (), given, {
            **wrong, "settings": (5, "x"), "window": (3, "x", 1.5), "mirrored": (2, "x")}),
    ]  # fmt: skip


def arguments() -> Iterator[Case]:
    """Each argument of each public function, one wrong value at a time."""
    backbone = models.esm2()
    records = ["MKTAYI", "GSSGSSG", "MKV", "MKTA"], [0.0, 1.0, 0.5, 0.2]

    def new():
        return kft.Model(models.esm2(), kft.heads.Regression())

    parts = [kft.data.Split(*records) for _ in range(3)]
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "regression", *parts, **about)
    table = pd.DataFrame({"sequence": records[0], "y": records[1]})
    model = new()
    compiled = new()
    compiled.backbone.trainable = False
    compiled.compile("sgd", "mean_squared_error")
    train = kft.batches(records, model.encode)

    def adapted():
        made = new()
        kft.add_lora(made, 2)
        return made

    def call(function: Callable, given: dict, positional: tuple, option: str, value: object):
        values = [make() if callable(make) and make in (new, adapted) else make
                  for make in positional]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*values, **{**given, option: value})

    tables = [
        *of_models(backbone, model, records, table, kft.save_adapter(adapted(), folder())),
        *of_zero_shot(backbone),
        *of_adapters(model, new, adapted),
        *of_training(backbone, model, compiled, new, data, train, records),
        *of_mutants_and_pairs(backbone),
        *of_tables(data),
        *of_others(model),
    ]
    for name, function, positional, given, wrong in tables:
        for option, values in wrong.items():
            for value in values:
                yield Case(
                    f"{name}({option}={value!r:.40})",
                    partial(call, function, given, positional, option, value),
                    named=NAMES.get((name, option), option),
                )


# Arguments that are tried elsewhere, or that take anything.
ELSEWHERE = {
    ("batches", "names"), ("fit", "loss"), ("fit", "metrics"), ("fit", "verbose"),
    ("finetune", "command"),
    ("fit_frontier", "verbose"), ("fit_frontier", "cache"), ("fit_frontier", "validation_data"),
    ("evaluate", "split"), ("evaluate", "resamples"), ("compare", "head"), ("compare", "out"),
    ("compare", "verbose"), ("crossover", "head"), ("embed", "backbone"), ("predict", "model"),
    ("find_learning_rate", "model"), ("save_adapter", "model"), ("load_adapter", "model"),
    ("Model", "trainable"), ("Model", "dtype"),
}  # fmt: skip

# What messages call an argument where it is not its name: of an input, its position; of a pattern,
# the pattern.
NAMES = {
    ("predict", "inputs"): "inputs|record|sequences",
    ("embed", "inputs"): "inputs|record|sequences",
    ("batches", "records"): "records|inputs|targets",
    ("compare", "strategies"): "strateg",
    ("crossover", "strategies"): "strateg",
    ("crossover", "data"): "data",
    ("PairBackbone", "tower"): "tower|backbone",
    ("fit", "data"): "data|records|inputs|targets",
    ("fit_frontier", "data"): "data|records|inputs|targets",
    ("load", "name"): "name|model|file",
    ("load_model", "path"): "path|file",
    ("explore", "data"): "data|path",
    ("report", "subject"): "subject|run",
    ("data.load", "name"): "name|data set",
    ("strategies.get", "name"): "name|strategy",
    ("Regression", "targets"): "targets|outputs",
    ("add_lora", "ranks"): "ranks?",
    ("add_lora", "alphas"): "alphas?",
    ("merge_lora", "model"): "model|adapters",
    ("unmerge_lora", "model"): "model|adapters",
    ("load_adapter", "folder"): "folder|adapter_config",
    ("save_adapter", "name"): "name|adapter",
    ("split", "model"): "model|trainable|frozen",
    ("replace_head", "features"): "features",
}

"""Comparisons: same splits, honest rows, nothing lost by a failure or an interruption."""

import dataclasses
import io

import keras
import numpy as np
import pytest
from models import esm2
from parity import assert_rounds_alike
from rich.console import Console

import kft
from kft.backbones.esm2.model import ESM2
from kft.comparison import expecting, progress, runs, scoring, study
from kft.comparison.results import NULL
from kft.data import Dataset, Split
from kft.files import only_writer
from kft.training import lengths

pytestmark = pytest.mark.usefixtures("as_written")


def peptides(count, seed):
    """Peptides of one length whose class is whether they hold more K than E."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("AGKELS"), size=(count, 12))
    score = (letters == "K").sum(axis=1) - (letters == "E").sum(axis=1)
    letters[:, 0] = np.where(score == 0, "K", letters[:, 0])
    score = (letters == "K").sum(axis=1) - (letters == "E").sum(axis=1)
    return Split(["".join(row) for row in letters], (score > 0).astype(int))


@pytest.fixture(scope="module")
def data():
    parts = [peptides(count, seed) for seed, count in enumerate((48, 24, 60))]
    about = {"source": "drawn", "licence": "none", "citation": "", "checksum": ""}
    return Dataset("charge", "classification", *parts, classes=("E", "K"), **about)


@pytest.fixture(scope="module")
def backbone():
    return esm2()


@dataclasses.dataclass(frozen=True)
class Broken(kft.strategies.Strategy):
    epochs: int = 1

    def phases(self, model):
        raise RuntimeError("this strategy is\n  broken")


STRATEGIES = {"linear_probe": "linear_probe", "broken": Broken(), "head_only": "head_only"}


@pytest.fixture(scope="module")
def compared(backbone, data, tmp_path_factory):
    """A comparison of two strategies and a broken one, its folder, and the backbone's weights."""
    out = tmp_path_factory.mktemp("compared")
    before = kft.fingerprint(backbone, None)
    found = kft.compare(backbone, data, STRATEGIES, 2, epochs=1, out=out, resamples=200)
    return found, out, before


@pytest.mark.once  # trains by kft.fit alone
def test_rows(compared):
    found, _, _ = compared
    kinds = {row.name: row.kind for row in found.rows}
    assert kinds == {
        "majority class": "baseline", "composition": "baseline", "3-mers": "baseline",
        "linear_probe": "strategy", "broken": "strategy", "head_only": "strategy",
        "from_scratch": "control", "linear_probe, shuffled labels": "control",
    }  # fmt: skip
    for row in found.rows:
        if row.name != "broken":
            assert list(row.scores) == ["AUROC", "accuracy", "MCC"]
            assert len(row.scores["AUROC"].seeds) == (1 if row.kind == "baseline" else 2)
            assert row.error is None and row.seconds > 0
        if row.kind == "strategy" and row.name != "broken":
            assert row.memory > 50e6
    by_name = {row.name: row for row in found.rows}
    assert by_name["linear_probe"].trainable == 16 * 2 + 2
    assert by_name["from_scratch"].trainable == by_name["from_scratch"].parameters
    one, other = by_name["from_scratch"].predictions
    assert np.abs(one - other).max() > 1e-3  # each seed begins from weights of its own


@pytest.mark.once
def test_a_strategy_that_fails_stands_in_its_row(compared):
    found, _, _ = compared
    broken = next(row for row in found.rows if row.name == "broken")
    assert broken.error == "seed 0: RuntimeError: this strategy is broken"
    assert broken.scores == {}
    assert "Failed: broken (seed 0: RuntimeError: this strategy is broken)" in found.recommendation
    assert "failed" in str(found)
    assert found.to_frame().loc["broken", "seeds"] == 0


@pytest.mark.once
def test_the_backbone_stays_as_it_is(compared, backbone):
    assert kft.fingerprint(backbone, None) == compared[2]
    assert all(layer.trainable for layer in backbone.layers)


@pytest.mark.once
def test_a_copy_of_an_adapted_backbone_has_no_marks_by_hand():
    """from_scratch removes its adapters, and warned that it overrides marks."""
    backbone = esm2()
    kft.add_lora(backbone, 2)
    made = runs.new_model(backbone, kft.heads.Regression())
    assert not any(kft.params.user_marks(made).values())
    kft.fit(made, (["MKTAYI", "GSS"], [0.0, 1.0]), "from_scratch", 1, verbose=0)


@pytest.mark.once
def test_a_run_is_that_of_fit(compared, backbone, data):
    copy = ESM2.from_config(backbone.get_config())
    copy.set_weights(backbone.get_weights())
    model = kft.Model(copy, kft.heads.for_data(data))
    kft.fit(model, data, "head_only", epochs=1, seed=1, verbose=0)
    row = next(row for row in compared[0].rows if row.name == "head_only")
    assert_rounds_alike(row.predictions[1], kft.predict(model, data.test.inputs))


@pytest.mark.once
def test_what_is_written_and_said(compared):
    found, out, _ = compared
    assert {path.suffix for path in out.iterdir() if path.is_file()} == {
        ".png", ".txt", ".csv", ".json",
    }  # fmt: skip
    assert (out / "charge.png").read_bytes().startswith(b"\x89PNG")
    caption = (out / "charge.txt").read_text()
    assert "n = 60" in caption and "What stands out" in caption and "broken" in caption
    said = str(found)
    assert NULL in said and "Recommended: " in said and "shuffled labels" in said
    frame = found.to_frame()
    assert frame["recommended"].sum() == 1
    assert frame.loc[found.best.name, "p corrected"] == 1.0


@pytest.mark.once
def test_goes_on_where_it_stopped(compared, backbone, data, tmp_path, capsys):
    """Interrupted in the second run, then gone on with: the same table."""
    plan = {"head_only": "head_only", "linear_probe": "linear_probe"}
    options = {"seeds": 2, "epochs": 1, "out": tmp_path, "resamples": 200, "controls": False}
    whole = kft.compare(backbone, data, plan, **{**options, "out": tmp_path / "whole"})
    trained = []
    original = runs.fit

    def fit(model, data, strategy, **rest):
        trained.append((type(strategy).__name__, rest["seed"]))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(model, data, strategy, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "fit", fit)
        with pytest.raises(KeyboardInterrupt):
            kft.compare(backbone, data, plan, **options)
        assert len(list((tmp_path / "runs").glob("*.npz"))) == 2
        (tmp_path / "runs" / "half.part").write_bytes(b"half")
        capsys.readouterr()
        found = kft.compare(backbone, data, plan, **options)
    assert "2 of 4 trainings are in" in capsys.readouterr().out
    assert trained[3:] == [("HeadOnly", 1), ("LinearProbe", 1)]
    columns = [c for c in whole.to_frame() if c not in ("seconds", "peak memory", "recommended")]
    costly = whole.to_frame()[columns].astype(str)
    assert costly.equals(found.to_frame()[columns].astype(str))


@pytest.mark.once
def test_a_damaged_run_is_trained_again(compared, backbone, data):
    found, out, _ = compared
    kept = sorted((out / "runs").glob("*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    again = kft.compare(
        backbone, data, STRATEGIES, 2, epochs=1, out=out, resamples=200, verbose=False
    )
    for one, other in zip(found.rows, again.rows, strict=True):
        for name in one.scores:
            np.testing.assert_allclose(one.scores[name].seeds, other.scores[name].seeds, rtol=1e-9)


@pytest.mark.once
@pytest.mark.once
def test_a_line_on_a_terminal_shows_epoch_and_batch(monkeypatch):
    written, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    log = progress.Log()
    log.console = Console(file=written, force_terminal=True, width=60)
    line = progress.ProgressLine(log, "lora seed 1")
    for epoch in range(2):
        for batch in range(3):
            now[0] += 0.4  # two lines a second at most
            line.on_train_batch_end(batch)
        line.on_epoch_end(epoch)
    log.done("lora seed 1: done")
    shown = [x.strip() for x in written.getvalue().split("\r")]
    assert shown == [
        "lora seed 1", "lora seed 1  epoch 1, batch 2", "lora seed 1  epoch 2, batch 1",
        "lora seed 1  epoch 2, batch 3", "lora seed 1: done",
    ]  # fmt: skip


def test_progress_is_a_line_for_each_training(backbone, data, tmp_path, capsys):
    options = {"controls": False, "max_length": 5, "out": tmp_path, "resamples": 50}
    kft.compare(backbone, data, ["linear_probe"], 2, verbose="progress", **options)
    cut, *lines = capsys.readouterr().out.splitlines()
    assert "only the first 5 residues are used" in cut
    assert [line[:26] for line in lines] == [f"[ {i}/2] linear_probe seed {i - 1}" for i in (1, 2)]
    assert all(" s" in line for line in lines)
    assert list(tmp_path.glob("*.png"))  # what is not printed is written


@pytest.mark.once
def test_a_seed_that_fails_does_not_lose_the_others(backbone, data, tmp_path, monkeypatch):
    original = runs.fit

    def fit(model, data, strategy, **rest):
        if rest["seed"] == 1:
            raise FloatingPointError("diverged")
        return original(model, data, strategy, **rest)

    monkeypatch.setattr(runs, "fit", fit)
    found = kft.compare(
        backbone, data, ["linear_probe"], 3, controls=False, out=tmp_path, verbose=False
    )
    row = found.rows[-1]
    assert len(row.predictions) == 2
    assert row.error == "seed 1: FloatingPointError: diverged"


@pytest.mark.once
def test_a_full_disk_is_said_and_loses_nothing(backbone, data, tmp_path, monkeypatch, capsys):
    def put(self, found, settings):
        raise OSError("No space left on device")

    monkeypatch.setattr(runs.Store, "put", put)
    found = kft.compare(backbone, data, ["linear_probe"], 1, controls=False, out=tmp_path)
    assert "could not be kept (OSError: No space left" in capsys.readouterr().out
    assert found.rows[-1].scores and found.rows[-1].error is None


@pytest.mark.once
def test_what_is_cut_is_said_once(backbone, data, tmp_path, capsys):
    """Warnings are errors here: none may come from the trainings."""
    options = {"controls": False, "out": tmp_path, "resamples": 20, "max_length": 10}
    kft.compare(backbone, data, ["linear_probe"], 1, **options)
    printed = " ".join(capsys.readouterr().out.split())
    said = "Of 48 of 48 train, 24 of 24 valid, 60 of 60 test inputs only the first 10 residues"
    assert printed.count(said) == printed.count("are used") == 1


@pytest.mark.once
def test_no_estimate_is_no_reason_to_stop(backbone, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "measured_step", lambda *rest: 1 / 0)
    found = kft.compare(backbone, data, ["linear_probe"], 1, controls=False, out=tmp_path)
    assert "No estimate of time and memory: ZeroDivisionError" in capsys.readouterr().out
    assert found.rows[-1].scores


@pytest.mark.once
def test_a_plain_backbone_keeps_its_encoder(backbone):
    inputs = keras.Input((3,))
    plain = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    plain.encode = lambda inputs: np.zeros((len(inputs), 3))
    assert runs.new_model(plain, kft.heads.Regression()).encode is plain.encode


@pytest.mark.once
def test_models_are_saved_and_used_again(backbone, data, tmp_path, monkeypatch):
    options = {"seeds": 1, "controls": False, "resamples": 20, "verbose": False, "out": tmp_path}
    kft.compare(backbone, data, ["linear_probe"], **options)
    assert not (tmp_path / "models").exists()
    found = kft.compare(backbone, data, ["linear_probe"], save_models=True, **options)
    row = next(row for row in found.rows if row.name == "linear_probe")
    model = kft.load_model(tmp_path / "models" / "linear_probe.keras")
    assert model.classes == ("E", "K")
    assert_rounds_alike(kft.predict(model, data.test.inputs), row.predictions[0])
    monkeypatch.setattr(study, "train", None)  # all is kept
    kft.compare(backbone, data, ["linear_probe"], save_models=True, **options)
    with pytest.raises(ValueError, match="save_models needs a folder"):
        kft.compare(backbone, data, ["linear_probe"], save_models=True)


@pytest.mark.once
def test_a_model_that_cannot_be_saved_loses_nothing(backbone, data, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("no space left")

    monkeypatch.setattr(kft.Model, "save", full)
    with pytest.warns(UserWarning, match="could not be written .*no space left"):
        found = kft.compare(
            backbone, data, ["linear_probe"], 1, controls=False, resamples=20, verbose=False,
            out=tmp_path, save_models=True,
        )  # fmt: skip
    assert next(row for row in found.rows if row.name == "linear_probe").scores
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.once
def test_controls_are_known_by_their_kind():
    methods = study.methods_of({"scratch": "from_scratch", "lora": "lora"}, 2, True)
    assert [(m.name, m.kind) for m in methods] == [
        ("scratch", "control"), ("lora", "strategy"), ("lora, shuffled labels", "control"),
    ]  # fmt: skip
    assert {m.strategy.epochs for m in methods} == {2}


@pytest.mark.once
def test_diverged_is_a_failure(backbone, data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "predict", lambda model, inputs, *rest: np.full((60, 2), np.nan))
    found = kft.compare(
        backbone, data, ["linear_probe"], 1, controls=False, out=tmp_path, verbose=False
    )
    assert "diverged" in next(row.error for row in found.rows if row.error)


@pytest.fixture(scope="module")
def residues():
    """Chains whose residues are of three classes, by their letter; the first one does not count."""
    rng = np.random.default_rng(0)

    def chains(count):
        rows = ["".join(rng.choice(list("AKE"), size=rng.integers(6, 12))) for _ in range(count)]
        targets = [np.array(["AKE".index(x) for x in row]) for row in rows]
        masks = [np.arange(len(row)) > 0 for row in rows]
        return Split(rows, targets, masks=masks)

    about = {"source": "drawn", "licence": "none", "citation": "", "checksum": ""}
    parts = [chains(n) for n in (12, 6, 12)]
    return Dataset("letters", "residue_classification", *parts, classes=("a", "b", "c"), **about)


@pytest.mark.once
def test_residues(backbone, residues, tmp_path):
    found = kft.compare(
        backbone, residues, ["linear_probe"], 1, epochs=1, out=tmp_path, resamples=50, verbose=False
    )
    scores = {row.name: row.scores["accuracy"].value for row in found.rows}
    assert scores["residue"] == 1.0
    assert scores["linear_probe"] > scores["linear_probe, shuffled labels"]
    assert len(found.rows[3].predictions[0]) == 12


# What it costs, and where it is kept --------------------------------------------------------------


@pytest.mark.once
def test_what_max_length_cuts_is_scored_for_nobody(residues):
    """A baseline is right about the first residues only, and is asked for no others."""
    (cut, *_), (whole, *_) = (
        scoring.baseline_rows(residues, resamples=20, max_length=n) for n in (4, None)
    )
    answers = cut.predictions[0]
    assert [len(row) for row in answers] == [4] * len(residues.test)
    right = [row[1:].argmax(axis=1) == target[1:4]
             for row, target in zip(answers, residues.test.targets, strict=True)]  # fmt: skip
    assert cut.scores["accuracy"].value == pytest.approx(np.mean(right))
    assert cut.scores["accuracy"].value != whole.scores["accuracy"].value


@pytest.mark.once
def test_what_is_expected(backbone, data):
    step = expecting.Step(
        seconds=0.31, forward=0.1, head=0.01, once=0.0, setup=2.0, cut=0.5, memory=0,
        batch=10, train=1000, valid=100, test=100, longest=20, solving=0.05, rows=10,
    )  # fmt: skip
    deep = esm2(4)

    def expected(name, **options):
        strategy = kft.strategies.get(name, **options)
        model = strategy.prepare(runs.new_model(deep, kft.heads.for_data(data)))
        before = [(w.path, w.frozen) for w in kft.params.weights(model)]
        found = expecting.expected_seconds(step, model, strategy.phases(model))
        assert [(w.path, w.frozen) for w in kft.params.weights(model)] == before
        assert found.compiling == found.again == 0
        return found.seconds

    # In batches: 100 to train on, 10 to validate on and 10 to test on. Each phase is cut twice.
    # Frozen features of two batches are computed twice, and the head is solved for.
    assert expected("linear_probe") == pytest.approx(3 + 0.1 * 122 + 0.05 * 100)
    assert expected("linear_probe", rows=500) == pytest.approx(3 + 0.1 * 122 + 0.05 * 50)
    each = 0.11 * 110 + 0.2 * 100
    assert expected("full", epochs=2) == pytest.approx(3 + 0.1 * 10 + 2 * each)
    # An adapter needs the gradients of all activations, and of few weights.
    lora = expected("lora", epochs=2) - 4
    assert 2 * (each - 0.1 * 100) < lora < 2 * (each - 0.07 * 100)
    head, last = expected("head_only", epochs=10), expected("last_blocks", blocks=1, epochs=10)
    assert head < last < expected("full", epochs=10) / 2
    assert last < expected("lora", epochs=10) < expected("full", epochs=10)


@pytest.mark.once
def test_compilation_is_expected_for_each_program_and_once_for_all_seeds(backbone, data):
    step = expecting.Step(
        *[0.0] * 6, memory=0, batch=1, train=1, valid=1, test=1,
        compiling=(9.0, 2.0, 1.0), again=0.25, programs=(3, 2, 4, 5),
    )  # fmt: skip

    def expected(name):
        head = kft.heads.for_data(data)
        return expecting.expected_of(kft.strategies.get(name), step, backbone, head)

    # The frozen part for 4 and the test split for 5; the step for 3, and validation for 2.
    assert expected("linear_probe").compiling == pytest.approx(2 * 4 + 2 * 5)
    assert expected("head_only").compiling == pytest.approx(2 * 4 + 2 * 5 + 1 * 3)
    full = expected("full")
    assert full.compiling == pytest.approx(9 * 3 + 2 * 2 + 2 * 5)
    assert full.again == pytest.approx(full.compiling / 4)
    assert full.of(3) == pytest.approx(1.5 * full.compiling)
    assert full.compiled().of(3) == pytest.approx(0.75 * full.compiling)
    assert full.of(0) == 0


@pytest.mark.once
def test_the_announcement_counts_the_controls(backbone, data, monkeypatch, capsys):
    """The most expensive control is named, and what the comparison takes without those added."""
    costs = {"linear_probe": 100.0, "from_scratch": 4000.0}
    monkeypatch.setattr(study, "measured_step", lambda *rest: expecting.Step(*[1.0] * 11))

    def expected(strategy, *rest):
        return expecting.Expected(costs[kft.strategies.name_of(strategy)])

    monkeypatch.setattr(study, "expected_of", expected)

    def said(names, controls=True, seeds=2):
        task = study._Study(backbone, data, kft.heads.for_data, 8, None, True, None)
        monkeypatch.setattr(task, "_kept", lambda method, seed: None)
        task.store, task.overwrite = None, False
        task.expect(study.methods_of(names, None, controls), range(seeds))
        return " ".join(capsys.readouterr().out.split())

    text = said(["linear_probe"])
    assert "All trainings together should take about 2.3 h" in text
    assert "most expensive control, from_scratch, takes 2.2 h of it" in text
    assert "with controls=False it should take 3 min in all" in text
    asked_for = said(["linear_probe", "from_scratch"])
    assert "with controls=False it should take 2.3 h in all" in asked_for
    assert "control" not in said(["linear_probe"], controls=False).split("should take about")[1]


def test_peak_memory_is_seen():
    with runs.PeakMemory() as small:
        pass
    with runs.PeakMemory() as large:
        block = np.ones(30_000_000)  # 240 MB
        block[::7].sum()
        del block
    assert large.peak - small.peak > 150e6


@pytest.mark.once
def test_runs_are_told_apart(backbone, data, tmp_path):
    about = {
        "data": runs.digest_of_data(data),
        "backbone": runs.digest_of_model(backbone),
    }
    store = runs.Store(tmp_path, about)
    run = runs.Run(np.ones((3, 2)), 1, 2, 3.0, 4)
    store.put(run, {"strategy": "a", "seed": 0})
    assert store.get({"strategy": "a", "seed": 1}) is None
    kept = store.get({"strategy": "a", "seed": 0})
    np.testing.assert_array_equal(kept.predictions, run.predictions)
    assert (kept.trainable, kept.parameters, kept.seconds, kept.memory) == (1, 2, 3.0, 4)
    other = dataclasses.replace(data, valid=data.valid.take(range(20)))
    assert runs.digest_of_data(other) != about["data"]
    assert runs.digest_of_model(esm2(seed=1)) != about["backbone"]


@pytest.mark.once
def test_shuffled_labels(data):
    other = runs.shuffled(data, 0)
    assert (other.train.targets != data.train.targets).any()
    np.testing.assert_array_equal(np.sort(other.train.targets), np.sort(data.train.targets))
    assert other.test is data.test
    np.testing.assert_array_equal(runs.shuffled(data, 0).train.targets, other.train.targets)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategies": ["lorra"]}, "Did you mean 'lora'"),
        ({"strategies": []}, "strategies is empty"),
        ({"strategies": "lora"}, "must be a list or a dict"),
        ({"strategies": ["lora", "lora"]}, "'lora' twice"),
        ({"seeds": 0}, "seeds must be"),
        ({"seeds": [1, 1]}, "seeds must be"),
        ({"seeds": "3"}, "received '3'"),
        ({"confidence": 95}, "between 0 and 1, received 95"),
        ({"resamples": 0}, "resamples must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"strategies": {"3-mers": "lora"}}, "the name of a baseline"),
    ],
)
def test_bad_arguments(backbone, data, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "measured_step", None)  # not needed, and seconds
    with pytest.raises(ValueError, match=message):
        kft.compare(backbone, data, **{"out": tmp_path, "verbose": False, **options})


@pytest.mark.once
def test_a_test_split_of_one_class(backbone, data, tmp_path):
    ones = data.test.take(np.flatnonzero(data.test.targets == 1))
    with pytest.raises(ValueError, match="one target only"):
        kft.compare(backbone, dataclasses.replace(data, test=ones), out=tmp_path)


@pytest.mark.once
def test_no_test_split_and_a_file_as_folder(backbone, data, tmp_path):
    with pytest.raises(ValueError, match="no test split"):
        kft.compare(backbone, dataclasses.replace(data, test=None))
    (tmp_path / "runs").write_text("")
    with pytest.raises(ValueError, match="cannot keep the trainings"):
        kft.compare(backbone, data, ["linear_probe"], out=tmp_path)


@pytest.mark.once
def test_a_second_process_in_the_folder_is_refused(backbone, data, tmp_path):
    with only_writer(tmp_path), pytest.raises(BlockingIOError, match="another process is writing"):
        kft.compare(backbone, data, ["linear_probe"], out=tmp_path, verbose=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_names_tell_strategies_of_one_kind_apart(backbone):
    methods = study.methods_of(
        ["lora", kft.strategies.get("lora", rank=2, epochs=3), Broken()], None, False
    )
    assert [m.name for m in methods] == ["lora", "lora(rank=2, epochs=3)", "Broken"]


class CountedHead(kft.heads.Classification):
    """Keeps how often it is called outside of `kft.Model`, as TensorFlow does once per program."""

    calls = 0

    def call(self, features, position_mask=None):
        type(self).calls += 1
        return super().call(features, position_mask)


def test_as_many_programs_are_expected_as_are_compiled(backbone, monkeypatch):
    """Batches of two sizes and of two lengths."""
    monkeypatch.undo()  # TensorFlow compiles
    monkeypatch.setattr(lengths, "WORTH_TRAINING", 0)  # so that two pay for few records
    rng = np.random.default_rng(0)

    def part(*counts):
        inputs = [
            "".join(rng.choice(list("AGKELS"), length))
            for length, count in zip((12, 60), counts, strict=True)
            for _ in range(count)
        ]
        return Split(inputs, np.arange(len(inputs)) % 2)

    about = {"source": "drawn", "licence": "none", "citation": "", "checksum": ""}
    data = Dataset(
        "lengths", "classification", part(6, 5), part(4, 4), part(7, 4), classes=("E", "K"), **about
    )
    step = expecting.measured_step(backbone, kft.heads.for_data(data), data, 4, None)
    if keras.backend.backend() != "tensorflow":
        assert step.programs == (3, 2, 3, 3)
        return
    assert step.programs == (1, 1, 3, 3)
    head = CountedHead(2)
    model = kft.Model(esm2(), head)
    CountedHead.calls = 0
    kft.fit(model, data, "full", epochs=2, batch_size=4)
    assert CountedHead.calls == step.programs[0] + step.programs[1]
    kft.predict(model, data.test.inputs, batch_size=4)
    assert CountedHead.calls == sum(step.programs[:2]) + step.programs[3]

"""Work that is not lost: what is interrupted is continued, what the dead leave is removed."""

import errno
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from models import BACKBONES, WITHOUT_KERAS, esm2, in_turn, strings
from parity import assert_parity
from references import SHAPES, from_reference, hugging_face, telling
from transformers import EsmForMaskedLM

import kft
from kft import files, params
from kft.inference import embedding
from kft.training import features

PROTEINS = strings([3, 9, 14, 6, 8, 12, 5, 11])


@pytest.fixture(scope="module")
def backbone():
    return esm2(blocks=2)


def hidden(folder):
    return sorted(path.name for path in folder.rglob(".*"))


class Interrupted:
    """A function that is interrupted after some calls, and counts them."""

    def __init__(self, function, after):
        self.function, self.after, self.calls = function, after, 0

    def __call__(self, *args, **options):
        if self.calls == self.after:
            raise KeyboardInterrupt
        self.calls += 1
        return self.function(*args, **options)


# One writer ---------------------------------------------------------------------------------------


HOLDS = f"""{WITHOUT_KERAS}
from kft.files import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.once
def test_a_folder_has_one_writer(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        refused = pytest.raises(BlockingIOError, match="another process is writing to")
        with refused as error, files.only_writer(tmp_path):
            pass
        assert next(tmp_path.glob(".*.lock")).name in str(error.value)
        other.kill()
    with files.only_writer(tmp_path):  # the lock has ended with the process
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_a_lock_of_another_user_is_respected(tmp_path, monkeypatch):
    def refused(path, flags, *args):
        raise PermissionError if Path(path) == left and not flags & os.O_EXCL else FileExistsError

    unfinished = files.Aside(tmp_path / "a")
    unfinished.close(keep=True)
    unfinished.close()  # a second time changes nothing
    left = unfinished.path.with_suffix(".lock")
    left.touch()
    monkeypatch.setattr(os, "open", refused)
    files.remove_unfinished(tmp_path / "a")
    assert left.exists()


@pytest.mark.once
def test_a_lock_that_is_replaced_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Another process removes it after it was seen, and makes another after it was opened."""
    left = files.Aside(tmp_path / "a").path.with_suffix(".lock")
    opened, locked = os.open, files._lock

    def removed_first(path, flags, *args):
        if Path(path) == left and not flags & os.O_EXCL:
            left.unlink(missing_ok=True)
        return opened(path, flags, *args)

    monkeypatch.setattr(os, "open", removed_first)
    lock = files._taken(left.with_suffix(".part"))
    assert lock is not None
    os.close(lock)
    left.unlink()

    def removed_before(descriptor):
        if left.exists() and os.path.samestat(os.fstat(descriptor), os.stat(left)):
            monkeypatch.setattr(files, "_lock", locked)
            left.unlink()
            left.touch()
        return locked(descriptor)

    monkeypatch.setattr(files, "_lock", removed_before)
    lock = files._taken(left.with_suffix(".part"))
    assert lock is not None
    assert os.path.samestat(os.fstat(lock), os.stat(left))
    os.close(lock)


@pytest.mark.once
def test_where_there_are_no_locks_the_age_tells(tmp_path, monkeypatch):
    """As on Windows, and on a disk of the network that has none."""
    left = tmp_path / f".a.{files._machine()}-0.part"
    for module in (None, SimpleNamespace(flock=unsupported, LOCK_EX=2, LOCK_NB=4)):
        for path in (left, left.with_suffix(".lock")):
            path.touch()
        monkeypatch.setattr(files, "fcntl", module)
        files.remove_unfinished(tmp_path / "a")
        assert left.exists()
        for path in (left, left.with_suffix(".lock")):
            os.utime(path, (0, 0))
        files.remove_unfinished(tmp_path / "a")
        assert not list(tmp_path.iterdir())


def unsupported(*args):
    raise OSError("no locks available")


def test_a_writer_on_another_machine_is_respected(tmp_path):
    left = tmp_path / ".writer.00000000-writer.lock"
    left.touch()
    with pytest.raises(BlockingIOError), files.only_writer(tmp_path):
        pass
    os.utime(left, (0, 0))
    with files.only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# Aside --------------------------------------------------------------------------------------------


def left_by(machine, folder, seconds=0):
    """What a writer of a machine left that was killed some seconds ago."""
    lock = folder / f".a.{machine}-0.lock"
    part = lock.with_suffix(".part")
    for path in (lock, part):
        path.touch()
        os.utime(path, (time.time() - seconds,) * 2)
    return {lock.name, part.name}


@pytest.mark.once
def test_what_the_dead_leave_is_removed_and_what_the_living_write_is_not(tmp_path):
    alive = files.Aside(tmp_path / "a")
    alive.path.write_text("half")
    left_by(files._machine(), tmp_path)
    left_by("0" * 8, tmp_path, 2 * files.STALE)
    left = left_by("1" * 8, tmp_path)  # of another machine, where it may be alive
    (tmp_path / ".ab.00000000-0.part").touch()  # of another file
    with files.atomic_write(tmp_path / "a") as stream:
        stream.write(b"whole")
    expected = {alive.path.name, alive.path.with_suffix(".lock").name, ".ab.00000000-0.part"}
    assert set(hidden(tmp_path)) == expected | left
    assert alive.path.read_text() == "half"
    alive.close()
    assert set(hidden(tmp_path)) == {".ab.00000000-0.part"} | left


@pytest.mark.once
def test_what_earlier_versions_left_is_removed_once_it_is_old(tmp_path):
    old, new = tmp_path / "a.12.part", tmp_path / "a.13.part"
    for path in (old, new):
        path.write_text("half")
    long_ago = time.time() - 2 * files.STALE
    os.utime(old, (long_ago, long_ago))
    files.remove_unfinished(tmp_path / "a")
    assert list(tmp_path.iterdir()) == [new]  # its writer may be alive


@pytest.mark.once
@pytest.mark.parametrize("locks", [True, False])
def test_work_with_a_key_is_continued_by_one_at_a_time(tmp_path, monkeypatch, locks):
    if not locks:  # as on Windows, and on some network disks
        monkeypatch.setattr(files, "fcntl", None)
    first = files.Aside(tmp_path / "a", key="work")
    first.path.write_text("half")
    second = files.Aside(tmp_path / "a", key="work")
    assert second.path != first.path and not second.path.exists()
    second.close()
    first.close(keep=True)
    other = files.Aside(tmp_path / "b", key="work")
    assert not other.path.exists()
    other.close()
    third = files.Aside(tmp_path / "a", key="work")
    assert third.path.read_text() == "half"
    third.close()
    assert hidden(tmp_path) == []


# Embeddings ---------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("suffix", ["npz", "h5", "parquet", "csv"])
def test_an_interrupted_embedding_goes_on(backbone, tmp_path, monkeypatch, suffix):
    options = {"batch_size": 2, "layers": [0, -1], "per_residue": True}
    whole = kft.embed(backbone, PROTEINS, out=tmp_path / f"whole.{suffix}", **options)
    out = tmp_path / f"out.{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "outputs_of", Interrupted(features.outputs_of, after=3))
        with pytest.raises(KeyboardInterrupt):
            kft.embed(backbone, PROTEINS, out=out, **options)
    assert not out.exists() and hidden(tmp_path)
    again = Interrupted(features.outputs_of, after=2)  # the first of three, and the last of four
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "outputs_of", again)
        kft.embed(backbone, PROTEINS, out=out, **options)
    assert again.calls == 2 and hidden(tmp_path) == []
    if suffix == "csv":
        assert out.read_text() == whole.read_text()
        return
    one, two = kft.load_embeddings(whole), kft.load_embeddings(out)
    assert one.names == two.names == [f"inputs[{i}]" for i in range(8)]
    assert list(two.columns) == ["pooled_0", "pooled_2", "values_0", "values_2"]
    for name, rows in one.columns.items():
        assert all(map(np.array_equal, rows, two.columns[name]))
    found = kft.embed(backbone, PROTEINS, **{**options, "layers": [-1]})
    assert all(map(np.array_equal, found[-1], two.columns["values_2"]))


@pytest.mark.once
def test_other_weights_do_not_go_on(backbone, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "outputs_of", Interrupted(features.outputs_of, after=3))
        with pytest.raises(KeyboardInterrupt):
            kft.embed(backbone, PROTEINS, batch_size=2, out=out)
    other = esm2(blocks=2, seed=1)
    kft.embed(other, PROTEINS, batch_size=2, out=out)
    found = kft.load_embeddings(out).values
    np.testing.assert_array_equal(found, kft.embed(other, PROTEINS, batch_size=2))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("layer", in_turn([0, 1, 2], everywhere=[1]))
def test_hidden_states_are_those_of_transformers(layer, tmp_path):
    model = telling(hugging_face(*SHAPES["two blocks"]), np.full((1, 4), 5))
    backbone, found = from_reference(model), []
    for proteins in ([p] for p in strings([4, 9])):
        found += kft.embed(backbone, proteins, per_residue=True, layers=[layer])[layer]
    assert isinstance(model, EsmForMaskedLM)
    single, truth = states_of(model, layer), states_of(model.double(), layer)
    for rows, one, exact in zip(found, single, truth, strict=True):
        assert_parity(rows, one, exact)


def states_of(model, layer):
    import torch

    rows = []
    for protein in strings([4, 9]):
        ids = torch.tensor(esm2().encode([protein])["token_ids"]).long()
        with torch.no_grad():
            states = model.esm(ids, output_hidden_states=True).hidden_states
        rows.append(states[layer][0, 1:-1].numpy())
    return rows


@pytest.mark.once
def test_images_have_no_residues_and_other_models_no_layers():
    images = [np.zeros((32, 32, 3), "uint8")]
    with pytest.raises(ValueError, match="per_residue needs a backbone whose inputs have residues"):
        kft.embed(BACKBONES["resnet"](), images, per_residue=True)


@pytest.mark.once
def test_layers_and_residues_that_are_not_there(backbone):
    for layers in ([3], [-4], [], [0, 0], [0, -3], 1, [True]):
        with pytest.raises(ValueError, match=r"layers must be a list of different numbers from 0"):
            kft.embed(backbone, PROTEINS, layers=layers)


@pytest.mark.once
def test_one_long_header_costs_its_own_length(backbone, tmp_path):
    names = ["P1", "x" * 2_000_000, "Ärger, \udc80 and ☃"[:6], *(f"P{i}" for i in range(200))]
    fasta = tmp_path / "in.fasta"
    fasta.write_text("".join(f">{name}\nMKT\n" for name in names), encoding="utf-8")
    out = kft.embed(backbone, fasta, out=tmp_path / "out.npz")
    assert kft.load_embeddings(out).names == names
    assert out.stat().st_size < 2_100_000


@pytest.mark.once
def test_files_of_earlier_versions_are_read(tmp_path):
    values = np.arange(10, dtype="float32").reshape(5, 2)
    np.savez(tmp_path / "old.npz", names=np.array(["a", "b"]), values=values[:2])
    np.savez(tmp_path / "rows.npz", names=np.array(["a", "b"]), values=values, lengths=[2, 3])
    found = kft.load_embeddings(tmp_path / "old.npz")
    assert found.names == ["a", "b"]
    np.testing.assert_array_equal(found.values, values[:2])
    assert list(map(len, kft.load_embeddings(tmp_path / "rows.npz").values)) == [2, 3]
    np.savez(tmp_path / "other.npz", x=values)
    with pytest.raises(ValueError, match="was not written by kft.embed"):
        kft.load_embeddings(tmp_path / "other.npz")


@pytest.mark.once
def test_warnings_of_cut_proteins_point_at_the_call(backbone, tmp_path):
    model = kft.Model(backbone, kft.heads.Regression())
    calls = [
        lambda: kft.embed(backbone, PROTEINS, max_length=5),
        lambda: kft.embed(backbone, PROTEINS, max_length=5, out=tmp_path / "out.npz"),
        lambda: kft.predict(model, PROTEINS, max_length=5),
        lambda: kft.batches(PROTEINS, backbone.encode, max_length=5),
        lambda: backbone.encode(PROTEINS, max_length=5),
        lambda: kft.fit(model, (PROTEINS, range(8)), "linear_probe", max_length=5, verbose=0),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            call()
        told = [w for w in caught if "longer than max_length" in str(w.message)]
        assert [w.filename for w in told] == [__file__]


# Features -----------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["linear_probe", "head_only"])
@pytest.mark.parametrize("place", ["cache", "resume"])
def test_interrupted_features_go_on(strategy, place, tmp_path, monkeypatch):
    keep = {place: tmp_path / "training.npz" if place == "resume" else tmp_path}

    def fitted():
        model = kft.Model(esm2(), kft.heads.Regression())
        records = (PROTEINS, np.arange(8.0))
        kft.fit(model, records, strategy, batch_size=2, verbose=0, **keep)
        return kft.predict(model, PROTEINS)

    calls = Counter()

    def outputs_of(*args):
        calls["all"] += 1
        if calls["all"] == stop:
            raise KeyboardInterrupt
        return real(*args)

    real, stop = features.outputs_of, 4  # the first batch twice, and the second
    monkeypatch.setattr(features, "outputs_of", outputs_of)
    with pytest.raises(KeyboardInterrupt):
        fitted()
    assert hidden(tmp_path)
    calls["all"], stop = 0, None
    found = fitted()
    assert calls["all"] == 4  # the first to compare, two that were left, one of them twice
    assert hidden(tmp_path) == []
    assert not (tmp_path / "training.npz.features").exists()
    kept = fitted()
    # The first to compare; no epoch of a probe is kept, and those of a head are all done.
    again = 1 if place == "cache" else 5 if strategy == "linear_probe" else 0
    assert calls["all"] == 4 + again
    np.testing.assert_array_equal(kept, found)


@pytest.mark.once
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing", "log"])
def test_damaged_features_are_computed_again(damage, tmp_path):
    model = kft.Model(esm2(), kft.heads.Regression())
    params.train_only(model, "head")
    frozen, _ = kft.split(model)
    base = kft.batches((PROTEINS, np.arange(8.0)), model.encode, 2)
    expected = features.features_of(frozen, base, tmp_path).values[0].copy()
    (folder,) = tmp_path.iterdir()
    path = folder / "values_0.npy"
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[:-9])
    else:
        (folder / "batches.txt" if damage == "log" else path).unlink()
    said = pytest.warns(UserWarning, match="are damaged") if damage != "changed" else nullcontext()
    with said:
        found = features.features_of(frozen, base, tmp_path).values[0]
    np.testing.assert_array_equal(found, expected)
    assert len(list(tmp_path.iterdir())) == 1


# A full disk --------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_figure_that_does_not_fit_on_the_disk_costs_no_results(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", full)
    parts = [kft.data.Split(strings([6] * 12, seed=i), np.arange(12) % 2) for i in range(3)]
    about = {"source": "", "licence": "", "citation": "", "checksum": "", "classes": ("a", "b")}
    data = kft.data.Dataset("toy", "classification", *parts, **about)
    options = {"controls": False, "out": tmp_path, "resamples": 20, "verbose": "progress"}
    with pytest.warns(UserWarning, match="No space left.*The result is complete") as caught:
        found = kft.compare(esm2(blocks=1), data, ["linear_probe"], 1, **options)
    assert any(w.filename == __file__ for w in caught)
    assert "linear_probe" in found.to_frame().index
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"toy.csv", "toy.json"}

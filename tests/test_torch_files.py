"""What torch wrote comes back equal, without torch, and no file can make anything else happen."""

import argparse
import contextlib
import copyreg
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from kft.backbones.checkpoints import torch_files
from kft.backbones.checkpoints.torch_files import CheckpointError, read_torch

pytestmark = pytest.mark.once

LAYOUTS = [pytest.param(True, id="zip"), pytest.param(False, id="legacy")]
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
rebuild = torch._utils._rebuild_tensor_v2


def save(value, path, zipped=True, protocol=2):
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def as_numpy(tensor):
    """A torch tensor as float64 or integers, exactly."""
    tensor = tensor.detach()
    return tensor.to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()


def check_same(ours, theirs):
    """Compare what we read with what torch read, elementwise and type by type."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, np.ndarray)
        assert str(theirs.dtype) == f"torch.{ours.dtype}"
        assert ours.shape == tuple(theirs.shape)
        values = ours.astype(np.float64) if theirs.is_floating_point() else ours
        np.testing.assert_array_equal(values, as_numpy(theirs))
    elif isinstance(theirs, argparse.Namespace):
        check_same(ours, vars(theirs))
    elif isinstance(theirs, dict):
        assert type(ours) is type(theirs)
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            check_same(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list if isinstance(theirs, list) else tuple)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            check_same(a, b)
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


def checkpoint():
    """Tensors of every layout, in every container."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    return {
        "views": [base, base.T, base[1:, 2:], base[:, ::2], base[2], base.reshape(2, 3, 4)],
        "expanded": torch.tensor([[1.5], [2.5]]).expand(2, 5),
        "scalar": torch.tensor(3.25),
        "empty": (torch.zeros(0), torch.zeros(3, 0, 2)),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "state_dict": layer.state_dict(),
        "size": torch.Size([2, 3]),
        "args": argparse.Namespace(layers=6, name="esm", nested=argparse.Namespace(x=[1, None])),
        "plain": {"a": [1, -2, 2**40, 1.5, True, None, "ü"], 7: ("x", ()), "big": -(2**80)},
    }


# -------------------------------------------------------------------------------- good files


@pytest.mark.parametrize("zipped", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_what_torch_reads(tmp_path, zipped, protocol):
    path = save(checkpoint(), tmp_path / "file.pt", zipped, protocol)
    check_same(read_torch(path), torch.load(path, weights_only=False))


@pytest.mark.parametrize("zipped", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reads_every_type(tmp_path, zipped, dtype):
    value = (torch.randn(5, 7) * 50).to(dtype)
    path = save({"x": value, "t": value.T[1:], "one": value[3, 4]}, tmp_path / "file.pt", zipped)
    check_same(read_torch(path), torch.load(path))


def test_shares_memory_where_the_tensors_did(tmp_path):
    base = torch.zeros(1000)
    path = save([base, base[10:]], tmp_path / "file.pt")
    first, second = read_torch(path)
    assert np.shares_memory(first, second)


def test_reads_without_torch(tmp_path):
    path = save({"x": torch.ones(2)}, tmp_path / "file.pt")
    code = (  # outside its package, which imports Keras and so may import torch
        "import sys; from torch_files import read_torch;"
        "print(read_torch(sys.argv[1])['x'].sum(), {'torch', 'keras'} & set(sys.modules))"
    )
    folder = Path(torch_files.__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=folder
    )
    assert ran.stdout == "2.0 set()\n"


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_reads_fair_esm(tmp_path, zipped):
    """The layout that `esm.pretrained._load_model_and_alphabet_core_v2` expects."""
    from esm.model.esm2 import ESM2

    model = ESM2(num_layers=2, embed_dim=16, attention_heads=4)
    state = model.state_dict()
    contact = {n: state.pop(n) for n in list(state) if n.startswith("contact_head.")}
    for name in [n for n in state if not n.startswith("lm_head.")]:
        state[f"encoder.sentence_encoder.{name}"] = state.pop(name)
    for name in [n for n in state if n.startswith("lm_head.")]:
        state[f"encoder.{name}"] = state.pop(name)
    config = argparse.Namespace(
        arch="esm2", encoder_layers=2, encoder_embed_dim=16, encoder_attention_heads=4
    )
    config.token_dropout = True
    path = save({"cfg": {"model": config}, "model": state}, tmp_path / "esm2_tiny.pt", zipped)
    heads = save({"model": contact}, tmp_path / "esm2_tiny-contact-regression.pt", zipped)

    read = read_torch(path)
    assert read["cfg"]["model"] == vars(config)
    check_same(read["model"], state)
    assert set(read_torch(heads)["model"]) == {
        "contact_head.regression.weight",
        "contact_head.regression.bias",
    }
    check_same(read_torch(heads)["model"], contact)


# ----------------------------------------------------------------------------- hostile files


class Call:
    """Pickles as a call of `function`, optionally followed by a state."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def as_torch_file(path, content, zipped):
    """A torch file around hand-written pickle opcodes."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    else:
        heading = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        start = b"".join(pickle.dumps(part, protocol=2) for part in heading)
        end = pickle.dumps(["0"], protocol=2) + struct.pack("<q4f", 4, 0, 1, 2, 3)
        path.write_bytes(start + content + end)
    return path


def floats(count):
    """A storage as torch pickles it."""
    return torch.storage.TypedStorage(
        wrap_storage=torch.ones(count).untyped_storage(), dtype=torch.float32, _internal=True
    )


def refuses(path, match, marker=None):
    with pytest.raises(CheckpointError, match=match) as raised:
        read_torch(path)
    assert str(path) in str(raised.value)
    assert marker is None or not marker.exists(), "the file's code was run"


@pytest.mark.parametrize("zipped", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["top", "list", "namespace", "state_dict", "key", "storage"])
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.exec"])
def test_code_is_not_run(tmp_path, zipped, protocol, place, function):
    marker = tmp_path / "ran"
    if function == "os.system":
        call = Call(os.system, f"touch {marker}")
    else:
        call = Call(eval if "eval" in function else exec, f"open({str(marker)!r}, 'w').close()")
    places = {
        "top": call,
        "list": [1, [2, call]],
        "namespace": {"cfg": {"model": argparse.Namespace(layers=6, hook=call)}},
        "state_dict": OrderedDict(weight=torch.ones(2), extra=call),
        "key": {"a": {call: 1}} if protocol == 2 else {call: 1},
        "storage": Call(rebuild, call, 0, (1,), (1,), False, OrderedDict()),
    }
    path = save(places[place], tmp_path / "file.pt", zipped, protocol)
    refuses(path, r"carries code \((posix|nt|builtins|__builtin__)\.\w+\) and was not", marker)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_handwritten_opcodes_are_refused(tmp_path, zipped):
    marker = tmp_path / "ran"
    command = f"touch {marker}".encode()
    short = b"\x8c" + bytes([len(command)]) + command
    copyreg.add_extension("posix", "system", 240)
    attacks = {
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "inst": b"(S'" + command + b"'\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\nS'" + command + b"'\no.",
        "extension": b"\x80\x02\x82\xf0" + short + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.fromkeys.im\x93.",
        "dotted argparse": b"cargparse\n_sys.modules\n.",
        "build on function": b"ccollections\nOrderedDict\n}X\x08\x00\x00\x00__code__K\x01sb.",
        "state of a list": b"]}b.",
        "state of a number": b"K\x01}b.",
        "call a dtype": b"ctorch\nfloat32\nX\x01\x00\x00\x00x\x85R.",
        "new dtype": b"ctorch\nfloat32\n)\x81.",
        "build on dtype": b"ctorch\nfloat32\n(K\x03tb.",
        "items on dtype": b"ctorch\nfloat32\nK\x01K\x02s.",
        "append to dict": b"}K\x01a.",
        "nested keys": b"}" + b")" + b"\x85" * 300_000 + b"K\x01s.",
        "module": b"(X\x06\x00\x00\x00moduleK\x01K\x02K\x03tQ.",
        "pid text": b"P0\n.",
    }
    try:
        for content in attacks.values():
            refuses(as_torch_file(tmp_path / "f.pt", content, zipped), "carries code", marker)
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_broken_opcodes_are_errors(tmp_path, zipped):
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000K\x00%stQ."
    broken = [
        b"",
        b".",
        b"K\x01",
        b"K\x01t.",
        b"h\x07.",
        b"\xff.",
        b"\x8e" + b"\xff" * 7 + b"\x7fabc.",
        b"X\xff\xff\xff\xffabc.",
        b"K\x01Q.",
        b"]Q.",
        storage % b"J\xff\xff\xff\xff",
        storage % b"M\xff\xff",
    ]
    broken += [b"K\x010.", b"02.", b"2."]  # POP and DUP of what is not there
    for content in broken:
        refuses(as_torch_file(tmp_path / "f.pt", content, zipped), "damaged|truncated")
    # An index of 2**32 - 1 in the memo must not be an allocation of that size.
    if zipped:
        content = b"K\x05r\xff\xff\xff\xff."
        assert read_torch(as_torch_file(tmp_path / "f.pt", content, zipped)) == 5
        content = b"K\x052K\x070\x86."  # DUP, and POP of another number
        assert read_torch(as_torch_file(tmp_path / "f.pt", content, zipped)) == (5, 5)


@pytest.mark.parametrize("zipped", LAYOUTS)
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (11,), (1,)),
        (5, (6,), (1,)),
        (0, (2,), (10,)),
        (0, (2, 2), (9, 1)),
        (-1, (2,), (1,)),
        (9, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2**62, 4), (2**62, 1)),
        (0, (2**40,), (0,)),
        (2**63, (1,), (1,)),
        (0, (1.0,), (1,)),
        (0, [1], [1]),
        (0, (1,) * 100, (1,) * 100),
        (0, (0, 2**63), (1, 1)),
    ],
)
def test_tensors_outside_their_storage_are_errors(tmp_path, zipped, offset, shape, strides):
    call = Call(rebuild, floats(10), offset, shape, strides, False, OrderedDict())
    refuses(save([call], tmp_path / "file.pt", zipped), "damaged|truncated")


@pytest.mark.parametrize(("count", "fits"), [(4, True), (5, False), (3, False)])
@pytest.mark.parametrize("zipped", LAYOUTS)
def test_storages_have_the_size_they_claim(tmp_path, zipped, count, fits):
    size = bytes([count])
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK" + size + b"NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x03\x85K\x01\x85\x89}tR."
    path = as_torch_file(tmp_path / "file.pt", tensor, zipped)
    if fits or (zipped and count < 4):  # a zip record may be longer than it needs to be
        assert read_torch(path).tolist() == [0, 1, 2]
    else:
        refuses(path, "truncated: storage 0 has 16 of 20" if zipped else "two sizes|damaged")


def test_storage_of_another_kind_is_an_error(tmp_path):
    for fake in ["text", 3, torch.ones(3), (1, 2), torch.float32, {"data": 1}]:
        call = Call(rebuild, fake, 0, (1,), (1,), False, OrderedDict())
        refuses(save(call, tmp_path / "file.pt"), "damaged")
    view = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x04)tQ."
    refuses(as_torch_file(tmp_path / "file.pt", view, zipped=False), "storage that is a view")
    build = Call(rebuild, floats(3), 0, (3,), (1,), False, OrderedDict(), state={})
    refuses(save(build, tmp_path / "file.pt"), "carries code")


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_truncation_is_an_error_or_harmless(tmp_path, zipped):
    path = save(checkpoint(), tmp_path / "file.pt", zipped)
    expected, content = torch.load(path, weights_only=False), path.read_bytes()
    lengths = [*random.Random(0).sample(range(len(content)), 250), 0, 1, 14, len(content) - 1]
    errors = 0
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            check_same(read_torch(path), expected)
        except CheckpointError:
            errors += 1
    assert errors >= len(lengths) - 1


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_changed_bytes_never_crash(tmp_path, zipped):
    path = save(checkpoint(), tmp_path / "file.pt", zipped)
    content, rng = path.read_bytes(), random.Random(1)
    for _ in range(400):
        damaged = bytearray(content)
        for position in rng.sample(range(len(content)), 3):
            damaged[position] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            read_torch(path)


def test_says_what_the_file_is(tmp_path):
    path = tmp_path / "file.pt"
    for content, match in {
        b"": "empty",
        b"\n<!DOCTYPE html><html>": "web page",
        b"version https://git-lfs.github.com/spec/v1\n": "git lfs pull",
        pickle.dumps({"a": 1}): "was not run",
        b"hello": "not a torch file: it begins with b'hello'",
    }.items():
        path.write_bytes(content)
        refuses(path, match)
    np.savez(tmp_path / "file.npz", a=np.ones(2))
    refuses(tmp_path / "file.npz", "without a data.pkl")
    np.savez_compressed(tmp_path / "file.npz", a=np.ones(2))
    refuses(tmp_path / "file.npz", "compressed")
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "absent.pt")
    (tmp_path / "folder.pt").mkdir()
    refuses(tmp_path / "folder.pt", "not a file, but a folder, a pipe or a device")


def test_refuses_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it
        scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
        torch.jit.save(scripted, tmp_path / "file.pt")
    refuses(tmp_path / "file.pt", "TorchScript archive")


@pytest.mark.parametrize("zipped", LAYOUTS)
def test_refuses_whole_modules(tmp_path, zipped):
    path = save(torch.nn.Linear(2, 2), tmp_path / "file.pt", zipped)
    refuses(path, r"carries code \((torch\.nn\.modules\.linear\.Linear|a whole torch\.nn\.Module)")


def test_refuses_big_endian_and_compressed(tmp_path):
    content = io.BytesIO()
    torch.save({"x": torch.ones(3)}, content)
    source = zipfile.ZipFile(content)
    for order, compression, match in [
        (b"big", zipfile.ZIP_STORED, "big-endian"),
        (b"little", zipfile.ZIP_DEFLATED, "compressed"),
    ]:
        with zipfile.ZipFile(tmp_path / "file.pt", "w", compression) as archive:
            for name in source.namelist():
                is_order = name.endswith("/byteorder")
                archive.writestr(name, order if is_order else source.read(name))
        refuses(tmp_path / "file.pt", match)

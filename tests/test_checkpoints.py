"""Folders of weights, whole or damaged, and a hub on this machine to fetch them from."""

import hashlib
import http.server
import json
import socket
import struct
import threading
import time

import keras
import models
import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

import kft
from kft.backbones.checkpoints import Tensors, hub_folder, read_safetensors
from kft.backbones.checkpoints.torch_files import CheckpointError, read_torch
from kft.cli import app

pytestmark = pytest.mark.once

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]

# -------------------------------------------------------------------- safetensors and folders


def weights():
    return {
        f"layer.{i}.{torch.empty(0, dtype=dtype).dtype}": (torch.randn(3, 4) * 50).to(dtype)
        for i, dtype in enumerate(DTYPES)
    } | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}


def save_folder(folder, state, kind, shards=1):
    """A Hugging Face folder with `shards` files of weights."""
    folder.mkdir(exist_ok=True)
    suffix, stem = (".safetensors", "model") if kind == "safetensors" else (".bin", "pytorch_model")
    write = safetensors.torch.save_file if kind == "safetensors" else torch.save
    if shards == 1:
        write(state, folder / f"{stem}{suffix}")
        return folder
    names = list(state)
    shard_of = {
        n: f"{stem}-{i % shards + 1:05}-of-{shards:05}{suffix}" for i, n in enumerate(names)
    }
    for shard in set(shard_of.values()):
        write({n: state[n] for n in names if shard_of[n] == shard}, folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": shard_of}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_reads_folders(tmp_path, kind, shards):
    state = weights()
    folder = save_folder(tmp_path / "model", state, kind, shards)
    tensors, stored = read_safetensors(folder), read_safetensors(folder, dtype=None)
    assert set(tensors) == set(state) and len(tensors) == len(state)
    for name, tensor in state.items():
        assert name in tensors
        assert tensors.shape(name) == tuple(tensor.shape)
        assert f"torch.{tensors.dtype(name)}" == str(tensor.dtype)
        expected = "torch.float32" if tensor.is_floating_point() else str(tensor.dtype)
        assert f"torch.{tensors[name].dtype}" == expected
        assert tensors[name].flags.writeable and tensors[name].flags.c_contiguous
        as_read = tensor.float() if tensor.is_floating_point() else tensor
        np.testing.assert_array_equal(tensors[name], as_read.numpy())
        assert f"torch.{stored[name].dtype}" == str(tensor.dtype)
        np.testing.assert_array_equal(stored[name].astype("float64"), tensor.double().numpy())
    assert "absent" not in tensors
    with pytest.raises(KeyError):
        tensors["absent"]


def test_reads_single_files_and_prefers_safetensors(tmp_path):
    folder = save_folder(tmp_path / "model", {"x": torch.zeros(2)}, "bin")
    assert read_safetensors(folder / "pytorch_model.bin")["x"].tolist() == [0, 0]
    save_folder(folder, {"x": torch.ones(2)}, "safetensors")
    assert read_safetensors(folder / "model.safetensors")["x"].tolist() == [1, 1]
    assert read_safetensors(folder)["x"].tolist() == [1, 1]


def test_tensors_are_read_only_when_asked_for(tmp_path):
    torch.save({"x": torch.ones(2), "y": torch.ones(2)}, tmp_path / "file.pt")
    tensors = Tensors.of(read_torch(tmp_path / "file.pt"))
    tensors["x"][:] = 5  # a copy: the next reader is not affected
    assert tensors["x"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="'cfg' is a dict where a tensor"):
        Tensors.of({"cfg": {}})


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"x": torch.ones(100), "y": torch.ones(3)}, path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as raised:
            read_safetensors(tmp_path)
        message = str(raised.value)
        assert str(path) in message
        if length == 0:
            assert "empty" in message
        elif length >= 8:
            assert f"has {length} bytes, expected" in message and "again" in message
    assert f"expected {len(content)}" in message
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match=f"has {len(content) + 1} bytes"):
        read_safetensors(path)
    for content, match in {
        b"version https://git-lfs.github.com/spec/v1\n": "git lfs pull",
        b"PK\x03\x04" + b"0" * 100: "zip archive",
        struct.pack("<q", 4) + b"nope": "header cannot be read",
        struct.pack("<q", 2) + b"[]": "header cannot be read",
    }.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=match):
            read_safetensors(path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_incomplete_shards(tmp_path, kind):
    folder = save_folder(tmp_path / "model", {c: torch.ones(2) for c in "abcdef"}, kind, shards=3)
    index = next(folder.glob("*.index.json"))
    listing = json.loads(index.read_text())

    listing["weight_map"]["ghost"] = listing["weight_map"]["a"]
    index.write_text(json.dumps(listing))
    with pytest.raises(CheckpointError, match="lacks 1 tensors .* among them ghost"):
        read_safetensors(folder)

    (folder / listing["weight_map"]["b"]).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 shards missing: .*00002-of-00003"):
        read_safetensors(folder)

    for bad in ['{"weight_map": {"a": ', "[]", "{}", '{"weight_map": {"a": 3}}', ""]:
        index.write_text(bad)
        with pytest.raises(CheckpointError, match="damaged index"):
            read_safetensors(folder)
    index.write_text('{"weight_map": {"a": "../a.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_safetensors(folder)


def test_shard_tensors_that_the_index_does_not_name_are_kept(tmp_path):
    folder = save_folder(tmp_path / "m", {c: torch.ones(2) for c in "abcd"}, "safetensors", 2)
    index = next(folder.glob("*.index.json"))
    listing = json.loads(index.read_text())
    del listing["weight_map"]["d"]
    index.write_text(json.dumps(listing))
    assert set(read_safetensors(folder)) == set("abcd")


def test_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as raised:
        read_safetensors(tmp_path)
    for part in ["model.safetensors", "pytorch_model.bin.index.json", "found config.json"]:
        assert part in str(raised.value)
    with pytest.raises(FileNotFoundError, match="absent, which is not a file"):
        read_safetensors(tmp_path / "absent")
    torch.save([torch.ones(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds a list, not tensors by name"):
        read_safetensors(tmp_path)
    torch.save({"other": {"x": torch.ones(2)}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: 'other' is a dict"):
        read_safetensors(tmp_path)


# --------------------------------------------------------------------------------------- hub

REPO, COMMIT = "lab/esm2_tiny", "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as `snapshot_download` speaks."""

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def lfs(self, name):
        """What the hub tells of large files; of those in `server.wrong` another digest."""
        if not name.endswith(".safetensors"):
            return {}
        body = b"" if name in self.server.wrong else self.server.files[name]
        digest = hashlib.sha256(body).hexdigest()
        return {"lfs": {"sha256": digest, "size": len(body), "pointerSize": 1}}

    def do_GET(self):
        files, api = self.server.files, f"/api/models/{REPO}"
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if self.server.refusal:
            self.answer(403, X_Error_Code=self.server.refusal)
        elif path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": n, "size": len(b), "oid": "0" * 40}
                for n, b in files.items()
            ]
            self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            listed = [{"rfilename": n, **self.lfs(n)} for n in files]
            info = {"id": REPO, "sha": COMMIT, "siblings": listed}
            self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
        elif path.startswith(f"{api}/revision/"):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif path.startswith(f"/{REPO}/resolve/"):
            name = path.split("/", 5)[-1]
            body = files[name]
            tag = f'"{name}-{len(body)}"'
            self.answer(200, body, ETag=tag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        else:
            self.answer(401, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine and an empty cache."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.refusal, server.requests, server.wrong = {}, None, [], ()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def stop():
        if thread.is_alive():
            server.shutdown()
            thread.join()
        server.server_close()

    server.stop = stop
    yield server
    stop()


def serve(server, folder):
    server.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    server.files |= {"config.json": b"{}", "tf_model.h5": b"large", "onnx/model.onnx": b"large"}


@pytest.mark.parametrize(("kind", "shards"), [("safetensors", 1), ("safetensors", 2), ("bin", 2)])
def test_downloads_then_works_offline(tmp_path, hub, kind, shards):
    state = {"a": torch.randn(3), "b": torch.randn(2, 2)}
    serve(hub, save_folder(tmp_path / "source", state, kind, shards))
    if kind == "safetensors":
        hub.files["pytorch_model.bin"] = b"the same again"
    folder = hub_folder(REPO)
    assert (folder / "config.json").read_text() == "{}"
    assert not list(folder.rglob("*.h5")) and not list(folder.rglob("*.onnx"))
    assert kind == "bin" or not list(folder.rglob("*.bin"))
    tensors = read_safetensors(folder)
    assert set(tensors) == set(state)
    np.testing.assert_array_equal(tensors["b"], state["b"].numpy())

    fetched = [r for r in hub.requests if r.startswith("GET /lab/")]
    assert hub_folder(REPO) == folder
    assert [r for r in hub.requests if r.startswith("GET /lab/")] == fetched  # from the cache
    hub.stop()
    assert hub_folder(REPO) == folder


def check_alternatives(message):
    assert f"hf download {REPO} --local-dir FOLDER" in message
    for part in ["FAIR .pt", "weights=False", "kft_esm2_tiny", "kft.load('FOLDER')"]:
        assert part in message


def test_no_network(hub, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="could not be downloaded") as raised:
            hub_folder(REPO)
        assert time.monotonic() - start < 5
    check_alternatives(str(raised.value))


def test_hub_switched_off(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="lab/esm2_tiny: could not be downloaded") as raised:
        hub_folder(REPO)
    check_alternatives(str(raised.value))


def test_interrupted_download_is_not_taken_for_complete(tmp_path, hub):
    serve(hub, save_folder(tmp_path / "source", {c: torch.ones(2) for c in "ab"}, "safetensors", 2))
    folder = hub_folder(REPO)
    next(folder.glob("model-00002*")).unlink()
    hub.stop()
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        hub_folder(REPO)


def test_a_file_that_is_not_the_published_one_is_removed(tmp_path, hub):
    serve(hub, save_folder(tmp_path / "source", {"a": torch.ones(2)}, "safetensors", 1))
    hub.wrong = ("model.safetensors",)
    for _ in range(2):  # it is not taken from the cache either
        with pytest.raises(ValueError, match="is not the published file: its sha256 is"):
            hub_folder(REPO)
    hub.wrong = ()
    assert hub_folder(REPO).name == COMMIT


def test_a_revision_is_pinned_and_recorded(tmp_path, hub, monkeypatch):
    """A commit is asked for as such, kept in the config and in a saved model, and printed."""
    source = kft.backbones.save(models.esm2(), tmp_path / "source")
    serve(hub, source)
    hub.files["config.json"] = (source / "config.json").read_bytes()
    monkeypatch.setattr("kft.backbones.esm2.family.hub_folder", lambda _, r: hub_folder(REPO, r))
    pinned = kft.load("esm2_t6_8M_UR50D", revision=COMMIT)
    assert any(request.endswith(f"/revision/{COMMIT}") for request in hub.requests)
    assert pinned.revision == kft.load("esm2_t6_8M_UR50D").revision == COMMIT
    assert type(pinned).from_config(pinned.get_config()).revision == COMMIT
    kft.Model(pinned, kft.heads.Regression()).save(tmp_path / "x.keras")
    assert keras.saving.load_model(tmp_path / "x.keras").backbone.revision == COMMIT
    ran = CliRunner().invoke(app, ["params", "esm2_t6_8M_UR50D", "--revision", COMMIT])
    assert f"esm2_t6_8M_UR50D, revision {COMMIT}\n" in ran.output
    for name in ("kft_esm2_tiny", source):
        with pytest.raises(ValueError, match="revision is for weights from the Hugging Face hub"):
            kft.load(name, revision=COMMIT)
    with pytest.raises(ValueError, match="revision is for downloaded weights"):
        kft.load("esm2_t6_8M_UR50D", weights=False, revision=COMMIT)
    assert kft.load("kft_esm2_tiny").revision is None


def test_hub_refusals(hub):
    with pytest.raises(FileNotFoundError, match="lab/absent: not found"):
        hub_folder("lab/absent")
    with pytest.raises(FileNotFoundError, match="lab/esm2_tiny at revision v9: not found"):
        hub_folder(REPO, revision="v9")
    hub.refusal = "GatedRepo"
    with pytest.raises(PermissionError, match="accepted its terms"):
        hub_folder(REPO)
    with pytest.raises(ValueError, match="must be in the form|[Rr]epo id"):
        hub_folder("a/b/c")

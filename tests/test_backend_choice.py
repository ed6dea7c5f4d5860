"""Which backend kft takes, what it says, what it leaves behind, and what `import kft` loads."""

import importlib
import json
import os
import subprocess
import sys

import keras
import pytest

import kft
from kft.backbones.esm2.model import ESM2
from kft.native_logs import without_native_logs

pytestmark = pytest.mark.once


# The decision -----------------------------------------------------------------------------------


@pytest.fixture
def choose(monkeypatch, tmp_path, capsys):
    """Decides anew with these backends installed; returns KERAS_BACKEND afterwards and stderr."""

    def decide(installed, environment="", keras_json=None, imported=False):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: name in installed if name in kft.BACKENDS else find_spec(name),
        )
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("KERAS_BACKEND", environment)
        if not imported:
            monkeypatch.delitem(sys.modules, "keras")
        if keras_json is not None:
            (tmp_path / "keras.json").write_text(keras_json)
        kft._choose_backend()
        return os.environ["KERAS_BACKEND"], capsys.readouterr().err

    return decide


def test_the_environment_is_obeyed(choose):
    assert choose(["jax"], "torch") == ("torch", "")


def test_an_imported_keras_is_kept(choose):
    assert choose(["torch"], imported=True) == ("", "")


def test_keras_json_is_obeyed_where_its_backend_is_installed(choose):
    assert choose(["jax", "tensorflow"], keras_json='{"backend": "tensorflow"}') == ("", "")


def test_keras_json_is_not_obeyed_where_its_backend_is_missing(choose, tmp_path):
    backend, said = choose(["torch"], keras_json='{"backend": "tensorflow"}')
    assert backend == "torch"
    assert said.count("\n") == 1
    assert f"{tmp_path / 'keras.json'} asks for tensorflow, not installed" in said


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"backend": null}'])
def test_a_keras_json_that_says_nothing(choose, content):
    assert choose(["torch"], keras_json=content)[0] == "torch"


@pytest.mark.parametrize(
    ("installed", "first"),
    [(["tensorflow", "torch", "jax"], "jax"), (["tensorflow", "torch"], "torch")],
)
def test_else_the_first_installed_is_taken_and_named(choose, installed, first):
    assert choose(installed) == (first, f"kft: KERAS_BACKEND is not set; using {first}.\n")


def test_it_is_not_said_where_help_is_asked_for(choose, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lora.py", "--help"])
    assert choose(["torch"]) == ("torch", "")


def test_lines_of_libraries_that_are_no_errors_are_dropped(capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with without_native_logs():
        os.write(2, b"I0000 00:00:17 27389 port.cc:153] oneDNN is on\nE0000 00:00 no GPU\nmine\n")
    assert capfd.readouterr().err == "E0000 00:00 no GPU\nmine\n"
    with pytest.raises(ImportError), without_native_logs():
        print("lost?", file=sys.__stderr__)
        raise ImportError("no backend")
    assert "lost?" in capfd.readouterr().err
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # by a user who wants to see them
    with without_native_logs():
        os.write(2, b"I0000 00:00\n")
    assert capfd.readouterr().err == "I0000 00:00\n"


@pytest.mark.long
def test_tensorflow_that_keras_hub_imports_writes_nothing():
    pytest.importorskip("tensorflow")
    code = "import sys, kft; kft.load('efficientnet_lite0', weights=False)"
    code += "; assert 'tensorflow' in sys.modules"
    environment = {name: x for name, x in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_keras_names_the_remedy_where_kft_was_not_imported(tmp_path):
    kft.Model(ESM2(1, 16, 2), kft.heads.Classification(2)).save(tmp_path / "model.keras")
    code = "import keras, sys; keras.saving.load_model(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    environment = os.environ | {"KERAS_BACKEND": "numpy"}  # which Keras imports soonest
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 1 and "`import kft` before keras.saving.load_model" in ended.stderr


def test_none_installed_gives_the_commands(choose):
    with pytest.raises(ModuleNotFoundError) as caught:
        choose([])
    commands = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert commands == [f'pip install "kft[{name}]"' for name in ("jax", "torch", "tensorflow")]


def test_keras_json_is_looked_for_where_keras_does(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kft._keras_json() == tmp_path / ".keras" / "keras.json"
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert str(kft._keras_json()) == "/tmp/.keras/keras.json"
    monkeypatch.setenv("KERAS_HOME", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kft._keras_json() == tmp_path / "elsewhere" / "keras.json"


# What is left behind ----------------------------------------------------------------------------


@pytest.fixture
def import_anew(monkeypatch, tmp_path):
    """Imports a Keras that writes keras.json where there is none, as Keras does."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras")
    path = tmp_path / "keras.json"

    def importing(error=None):
        def import_module(name):
            if not path.exists():
                path.write_text('{"backend": "tensorflow"}')
            if error:
                raise error

        monkeypatch.setattr(importlib, "import_module", import_module)
        kft._import_keras()

    return importing, path


def test_no_keras_json_is_left_that_nobody_wrote(import_anew):
    importing, path = import_anew
    importing()
    assert not path.exists()
    with pytest.raises(ImportError):
        importing(ImportError("no such backend"))
    assert not path.exists()


def test_a_keras_json_that_was_there_stays_as_it_was(import_anew):
    importing, path = import_anew
    path.write_bytes(b'{ "backend":\r\n"jax"}')
    importing()
    assert path.read_bytes() == b'{ "backend":\r\n"jax"}'


# In fresh processes -----------------------------------------------------------------------------

TELL = """
import json, sys
import kft, keras
model = keras.saving.load_model(sys.argv[1])
model.save(sys.argv[1])
found = {"backend": keras.backend.backend(), "loaded": type(model).__name__}
print(json.dumps(found | {"tensorflow": "tensorflow" in sys.modules}))
"""


@pytest.fixture
def tell(tmp_path):
    """What a fresh process of this HOME tells: (its JSON, what it wrote to stderr)."""
    model = kft.Model(ESM2(1, 16, 2), kft.heads.Classification(2))
    model.save(tmp_path / "model.keras")

    def run():
        dropped = ("KERAS_BACKEND", "KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL")
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        ended = subprocess.run(
            [sys.executable, "-c", TELL, str(tmp_path / "model.keras")],
            env=kept | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout), ended.stderr

    return run


def test_a_fresh_process_leaves_nothing_and_knows_the_classes_of_kft(tmp_path, tell):
    """So that the second run is as the first."""
    found, said = tell()
    found.pop("tensorflow")
    assert said.count("kft: KERAS_BACKEND is not set; using jax.\n") == 1
    assert found == {"backend": "jax", "loaded": "Model"}
    assert not (tmp_path / ".keras" / "keras.json").exists()


def test_keras_json_of_the_user_is_obeyed_and_untouched(tmp_path, tell):
    """And nothing is written; TensorFlow, which Keras asks for in a save, is not imported."""
    content = b'{"backend":\n\n"torch", "floatx": "float32"}'
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_bytes(content)
    found, said = tell()
    assert found == {"backend": "torch", "loaded": "Model", "tensorflow": False}
    assert said == ""
    assert (tmp_path / ".keras" / "keras.json").read_bytes() == content


# The public names -------------------------------------------------------------------------------


def test_every_public_name_resolves_and_is_listed():
    for name in kft.__all__:
        value = getattr(kft, name)
        assert value is getattr(kft, name)
        if name in kft._HOME:
            assert value.__module__.startswith("kft.")
            assert value.__doc__
    assert dir(kft) == kft.__all__
    assert kft.batches.__name__ == "batches"
    assert kft.heads.__name__ == "kft.models.heads"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(AttributeError, match=r"kft has no 'lode'; it has .*, load, "):
        _ = kft.lode
    assert not hasattr(kft, "Modell")
    assert keras.saving.get_registered_object("kft>Model") is kft.Model

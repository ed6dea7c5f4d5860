"""What all tests share: no network, and the references' small models."""

import gc
import hashlib
import importlib.metadata
import ipaddress
import os
import platform
import re
import shutil
import socket
import time
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contracts")  # its assertions show their values, as those of tests

# The hub's client looks at these when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("KERAS_BACKEND", "torch")  # for a plain `pytest tests/test_x.py`: the fastest


def cache_folder():
    """Where programs that JAX has compiled are kept for the next run; tests can do without.

    Another processor, JAX or other flags have a folder of their own; what was not used for a month
    is removed.
    """
    key = [platform.platform(), os.environ.get("XLA_FLAGS", "")]
    key += [importlib.metadata.version(name) for name in ("jax", "jaxlib", "keras")]
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        key += re.findall(r"^flags.*", processor.read_text(), re.M)[:1]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kft" / "tests"
    folder = root / f"jax-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        for other in root.glob("jax-*"):
            if time.time() - other.stat().st_mtime > 30 * 24 * 3600:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        pass  # then JAX warns of nothing and compiles anew
    return folder


if os.environ["KERAS_BACKEND"] == "jax":
    # Each program is small and runs a few times: compiled without much optimisation it takes a
    # quarter of the time. Tests that hold numbers against a reference ask for `optimised`.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
        f"{os.environ.get('XLA_FLAGS', '')}"
    )
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


gc.disable()  # until all tests are collected: what is imported stays


# Which tests run ----------------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also tests that are marked as long")
    parser.addoption(
        "--in-turn", action="store_true",
        help="run a test marked `in_turn` on its own backend alone, as `make test` does",
    )  # fmt: skip


def pytest_collection_modifyitems(config, items):
    """Leaves out long tests, and those whose turn is on another backend."""
    left_out = [item for item in items if not _runs(item, config)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish():
    """Looks for garbage from here on."""
    gc.enable()


def _runs(item, config):
    if item.get_closest_marker("long") and not config.getoption("long"):
        return False
    turn = item.get_closest_marker("in_turn")
    if turn and config.getoption("in_turn"):
        return turn.args[0] == os.environ["KERAS_BACKEND"]
    return True


# What all share -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """A test that reaches beyond this machine fails."""
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ConnectionRefusedError(f"tests must not reach the network: {address}")
        return connect(self, address)

    socket.socket.connect = local_only
    yield
    socket.socket.connect = connect


@pytest.fixture(autouse=True, scope="module")
def earlier_objects_stay():
    """What is imported or cached is not looked through for garbage."""
    import keras

    keras.utils.set_random_seed(0)  # imports TensorFlow, whatever the backend
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    """A test draws the same in every run, whichever ran before it, also where it names no seed."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def as_written(monkeypatch):
    """TensorFlow runs operations as written, and does not trace each small model for seconds.

    A test that wants the compiled ones back asks for `monkeypatch` and calls its `undo`.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        trainer = keras.src.trainers.trainer
        always = property(lambda self: True, lambda self, value: None)
        monkeypatch.setattr(trainer.Trainer, "run_eagerly", always, raising=False)
        monkeypatch.setattr(trainer, "model_supports_jit", lambda model: False)


@pytest.fixture
def optimised():
    """JAX compiles with the optimisation that users have, which rounds in its own way."""
    import keras

    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)

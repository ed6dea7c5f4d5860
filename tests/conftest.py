"""What all tests share: no network, and the references' small models."""

import atexit
import gc
import ipaddress
import os
import shutil
import socket
import tempfile

import pytest

# The hub's client looks at these when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Tests compile the same small models again and again: with this JAX does it once per session,
# which halves its time.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="kft-tests-jax-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# Each program is small and runs a few times: compiled without much optimisation it takes a quarter
# of the time. Tests that hold numbers against a reference ask for `optimised`.
if os.environ.get("KERAS_BACKEND") == "jax":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
        f"{os.environ.get('XLA_FLAGS', '')}"
    )


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


@pytest.fixture(autouse=True, scope="session")
def imports_stay():
    """What was imported is not looked through whenever garbage, or kft a model, is searched for."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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

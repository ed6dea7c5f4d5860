"""Programs that JAX has compiled are kept."""

import os
import time
from pathlib import Path

import keras
import pytest

from kft.programs import kept_programs

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="the other backends keep no programs"
)


@pytest.fixture
def config(monkeypatch, tmp_path):
    """JAX's settings without a cache of the user's, and a folder of kft's."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("KFT_CACHE", str(tmp_path))
    theirs = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    jax.config.update("jax_compilation_cache_dir", theirs)
    compilation_cache.reset_cache()


def compile_one():
    """Compile the same program in another function each time."""
    import jax
    from jax import lax, numpy

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # this one is small
    jax.jit(lambda x: lax.fori_loop(0, 9, lambda i, y: numpy.sort(y @ y), x))(numpy.ones((64, 64)))


def test_a_program_is_compiled_once(config, tmp_path):
    for _ in range(2):
        with kept_programs():
            folder = Path(config.jax_compilation_cache_dir)
            compile_one()
        kept = [path.name for path in folder.glob("*lambda*-cache")]
        assert len(kept) == 1, kept
        assert config.jax_compilation_cache_dir is None
    assert folder.parent == tmp_path / "programs"
    assert config.jax_persistent_cache_min_compile_time_secs == pytest.approx(0.1)


def test_settings_come_back_after_an_error(config):
    before = config.jax_compilation_cache_max_size
    with pytest.raises(KeyError), kept_programs():
        assert config.jax_compilation_cache_max_size == 2**30
        raise KeyError
    assert config.jax_compilation_cache_dir is None
    assert config.jax_compilation_cache_max_size == before


def test_a_cache_of_the_user_is_left_alone(config, tmp_path):
    config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    with kept_programs():
        assert config.jax_compilation_cache_dir == str(tmp_path / "theirs")
    config.update("jax_compilation_cache_dir", None)
    config.update("jax_enable_compilation_cache", False)
    try:
        with kept_programs():
            assert config.jax_compilation_cache_dir is None
    finally:
        config.update("jax_enable_compilation_cache", True)
    assert not (tmp_path / "programs").exists()


def test_a_cache_that_cannot_be_written_is_no_error(config, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KFT_CACHE", str(tmp_path / "file"))
    with kept_programs():
        assert config.jax_compilation_cache_dir is None
        compile_one()


def test_folders_that_were_not_used_for_a_month_are_removed(config, tmp_path):
    old, recent = tmp_path / "programs" / "old", tmp_path / "programs" / "recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    then = time.time() - 40 * 24 * 3600
    os.utime(old, (then, then))
    with kept_programs():
        assert not old.exists()
        assert recent.exists()

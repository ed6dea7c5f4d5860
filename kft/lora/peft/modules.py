"""Names of modules in PEFT's files: what Hugging Face calls the layers of a model."""

import re
from collections.abc import Collection, Iterable

import keras

from kft.backbones import contract
from kft.messages import listed
from kft.params import layers


class Modules:
    """The layers of a model and the modules that they are in Hugging Face's model.

    Args:
        known: Names of modules that the backbone states.

    Attributes:
        names: {path: module without prefix}, the first of several modules that a layer is.
        prefix: What stands before the modules in the model that PEFT wraps, for example "esm.".
        head: {path of a weight of the head: key}, for a head that Hugging Face has too.
        task: PEFT's task type, or None.
        advice: Which head of kft is the one that files of this architecture have, or None.
    """

    def __init__(self, known: contract.ModuleNames) -> None:
        self._several = {p: m if isinstance(m, tuple) else (m,) for p, m in known.names.items()}
        self.names = {path: modules[0] for path, modules in self._several.items()}
        self.prefix, self.head = known.prefix, known.head
        self.task, self.advice = known.task, known.advice
        self._prefixes, self._other_parts = known.prefixes, known.other_parts
        self._older = dict(known.older)
        self._now = {m: path for path, modules in self._several.items() for m in modules}
        self._keys = {key: path for path, key in self.head.items()}

    def full(self, path: str) -> str:
        """Return the name of a layer's module in the model that PEFT wraps."""
        return self.all_of(path)[0]

    def all_of(self, path: str) -> list[str]:
        """Return the names of all modules that a layer is; for most layers that is one."""
        return [self._prefixed(module, self.prefix) for module in self._several[path]]

    def path(self, module: str) -> str | None:
        """Return the path of the layer that is a module; None if the model has no such layer."""
        known = {**self._older, **self._now}
        return known.get(module, known.get(self._plain(module)))

    def place(self, module: str) -> tuple[int, int]:
        """Return (i, n): the module is the i-th of n that its layer is."""
        path = self.path(module)
        if path is None:
            raise ValueError(
                f"module must be one of {listed(self.known(), 3)}, received {module!r}."
            )
        modules = self._several[path]
        matches = [i for i, m in enumerate(modules) if m in (module, self._plain(module))]
        return (matches[0], len(modules)) if matches else (0, 1)  # an older name of the whole

    def prefix_of(self, modules: Iterable[str]) -> str:
        """Return the prefix that the names of a file's modules have, "" for none."""
        matches = [
            prefix
            for module in modules
            if module not in self._now
            for prefix in self._prefixes
            if module.startswith(prefix)
        ]
        return matches[0] if matches else ""

    def as_in(self, modules: Collection[str]) -> dict[str, str]:
        """Return {module: path} of all layers, with the names and the prefix that a file uses."""
        prefix = self.prefix_of(modules)
        plain = {module.removeprefix(prefix) for module in modules}
        named = dict(self._now)
        if plain & (set(self._older) - set(self._now)):
            older = set(self._older.values())
            named = {m: path for m, path in self._now.items() if path not in older} | self._older
        return {self._prefixed(module, prefix): path for module, path in named.items()}

    def in_head(self, key: str) -> str | None:
        """Return the path of the head's weight that a key names; None if it names no such."""
        return self._keys.get(key)

    def is_elsewhere(self, key: str) -> bool:
        """Return whether a key is of a part of Hugging Face's model that is not used here."""
        return self._plain(key).split(".")[0] in self._other_parts

    def known(self) -> list[str]:
        """Return the names of all modules."""
        return [self.full(path) for path in self.names]

    def short(self, paths: Collection[str]) -> list[str] | str:
        """Return `target_modules` of PEFT that means these layers alone: names, or a pattern."""
        everything = {m: path for path in self._several for m in self.all_of(path)}
        wanted = {m for m, path in everything.items() if path in paths}
        last = {module: module.rpartition(".")[2] for module in everything}
        whole = {
            name
            for name in {last[m] for m in wanted} - {"dense"}  # poolers and heads have one too
            if all(m in wanted for m in everything if last[m] == name)
        }
        names = sorted({last[m] if last[m] in whole else m for m in wanted})
        if all(m in wanted for m in everything for n in names if f".{m}".endswith(f".{n}")):
            return names
        # A name alone would also mean modules whose names end in it.
        return f"({'|'.join(map(re.escape, sorted(wanted)))})"

    def _plain(self, module: str) -> str:
        prefix = next((p for p in self._prefixes if module.startswith(p)), "")
        return module.removeprefix(prefix)

    def _prefixed(self, module: str, prefix: str) -> str:
        """The language-model head is outside of the model that has the prefix."""
        return module if module.startswith("lm_head") else prefix + module


def modules_of(model: keras.Model) -> Modules:
    """Return the `Modules` of any Keras model; by default they are called by their own paths."""
    paths, head = layers(model), getattr(model, "head", None)
    head_path = next((path for path, layer in paths.items() if layer is head), "")
    return Modules(contract.module_names(model, list(paths), head, head_path))

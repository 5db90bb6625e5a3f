"""Imports that wait: names of a package until they are used, and calls until a library is there."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def lazy_names(
    package: str, places: Mapping[str, Sequence[str]], before: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` (PEP 562) of a package whose names are imported when they are used.

    Its modules come likewise, so that ``package.module`` works after ``import package`` alone.

    Args:
        package: The package's ``__name__``.
        places: The names that each module gives to the package, by the module's full name.
        before: What is imported before any of them, in this order: a library whose import calls this
            package's modules, and packages that import their own modules. Two threads that begin at
            different ends of such a circle would get half-imported modules, or a deadlock.
    """
    place_of = {name: place for place, names in places.items() for name in names}

    def get(name: str) -> Any:
        if name in place_of:
            for first in before:
                import_module(first)
            value = getattr(import_module(place_of[name]), name)
            setattr(sys.modules[package], name, value)  # so that Python finds it by itself next time
            return value
        # Libraries ask any module for names with underscores, which need no look at the disk.
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *place_of})

    return get, names


def after_import(library: str, call: Callable[[], object]) -> None:
    """Call a function as soon as a library is imported: now if it is already, else right after its import.

    Args:
        library: The library's name, without dots.
        call: What to call. Where it raises, so does the import.
    """
    if sys.modules.get(library):
        call()
    else:
        sys.meta_path.insert(0, _Watcher(library, call))


class _Watcher(MetaPathFinder):
    """Stands before Python's finders until the library is imported, and lets them find it."""

    def __init__(self, library: str, call: Callable[[], object]) -> None:
        self._library, self._call = library, call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have of the library, with a loader that calls; None for others."""
        if fullname != self._library:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            if find and (spec := find(fullname, path, target)):
                # A folder without __init__.py that only has the library's name has nothing to wait for.
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _CallingLoader(spec.loader, self._finish)
                return spec
        return None

    def _finish(self) -> None:
        # A new list, since another thread may be walking through the old one.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        self._call()


class _CallingLoader(Loader):
    """A loader that calls a function after it has run a module, and is the loader that it got in all else."""

    def __init__(self, loader: Any, call: Callable[[], object]) -> None:
        self._loader, self._call = loader, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module of the loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, which sees its own loader, then call."""
        if module.__spec__:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._call()

import importlib
import importlib.util
import sys
import uuid

import pytest

from v2m.system.imports import after_import, lazy_names


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A module that nobody has imported: its name and its file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    name = f"library_{uuid.uuid4().hex}"
    file = tmp_path / f"{name}.py"
    file.write_text("assert __spec__.loader is __loader__\nVALUE = 1\n")
    yield name, file
    sys.modules.pop(name, None)


def test_the_call_comes_once_after_the_import(library):
    name, calls, finders = library[0], [], list(sys.meta_path)
    after_import(name, lambda: calls.append(sys.modules[name].VALUE))
    assert importlib.util.find_spec(name).loader.get_filename() == str(library[1])
    assert importlib.util.find_spec("no_such_library") is None
    assert calls == []
    module = importlib.import_module(name)
    assert calls == [1]
    assert sys.meta_path == finders
    assert importlib.reload(module) is module
    assert calls == [1]
    after_import(name, lambda: calls.append(2))  # it is there already
    assert calls == [1, 2]


def test_a_library_that_fails_may_be_imported_again(library):
    name, calls = library[0], []
    library[1].write_text("raise ImportError('no such driver')\n")
    after_import(name, lambda: calls.append(1))
    with pytest.raises(ImportError, match="no such driver"):
        importlib.import_module(name)
    assert calls == []
    library[1].write_text("VALUE = 'whole, and longer than the file before'\n")
    importlib.invalidate_caches()
    importlib.import_module(name)
    assert calls == [1]


def test_a_folder_of_the_name_is_no_library(library):
    name, calls = library[0], []
    library[1].unlink()
    library[1].with_suffix("").mkdir()
    after_import(name, lambda: calls.append(1))
    importlib.import_module(name)
    assert calls == []


def test_names_of_a_package_are_imported_when_used(tmp_path, monkeypatch):
    name = f"package_{uuid.uuid4().hex}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module(name)
    get, names = lazy_names(name, {f"{name}.part": ["VALUE"]})
    assert {"VALUE", "__name__"} <= set(names())
    assert f"{name}.part" not in sys.modules
    assert get("VALUE") == package.VALUE == 3
    assert get("part") is sys.modules[f"{name}.part"]
    with pytest.raises(AttributeError, match=rf"^module '{name}' has no attribute 'prat'$"):
        get("prat")

import pytest

from v2m.cli import main
from v2m.ops.kernels import build


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a process that has loaded nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path / "v2m" / "kernels"
    build.library.cache_clear()


def test_status_build_status_clear(cache, capsys):
    assert main(["kernels", "status"]) == 0
    assert capsys.readouterr().out.startswith("CPU: not compiled yet")

    assert main(["kernels", "build"]) == 0
    first = capsys.readouterr()
    assert first.out.startswith(f"CPU: compiled, {cache}")
    assert "compiling" in first.err
    assert main(["kernels", "status"]) == 0
    assert capsys.readouterr().out == first.out

    assert main(["kernels", "clear"]) == 0
    assert capsys.readouterr().out.startswith("deleted 1 compiled libraries")
    assert not cache.exists()


def test_no_compiler_is_one_line(cache, monkeypatch, capsys):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build, "COMPILERS", ())
    assert main(["kernels", "build"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("v2m: error: no C++ compiler was found")
    assert error.count("\n") == 1

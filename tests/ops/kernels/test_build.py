"""The build of the C++ kernels. Compilers are stubs that copy the library of this machine, unless told."""

import os
import re
import stat
import subprocess
import sys

import pytest
import torch

from tests.helpers import assert_close
from tests.ops.inputs import needs_compiler, pass_arguments, scan_arguments, value_and_gradients
from v2m.ops import directional_pass, dispatch, selective_scan
from v2m.ops.kernels import build, cpu
from v2m.ops.kernels.build import KernelError

ALONE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("build", {build.__file__!r})
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
"""
"""The module without the package, which takes seconds to import."""


def clear_memory():
    for function in (build.library, build.is_available, build._compiler_version):
        function.cache_clear()


@pytest.fixture(autouse=True)
def _fresh():
    clear_memory()
    yield
    clear_memory()


@pytest.fixture(scope="session")
def real():
    """The library of this machine, which is compiled where it is not in the user's cache."""
    return build.build()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; no compiler is set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache" / "v2m" / "kernels"


class Stub:
    """A script in place of the compiler, which writes down when it compiles."""

    def __init__(self, path, *commands, version="stub 1.0"):
        self.path, self.log = path, path.with_suffix(".log")
        lines = ["#!/bin/sh", f'if [ "$1" = --version ]; then echo "{version}"; exit; fi']
        lines += [f'echo "$@" >> "{self.log}"', "for output; do :; done", *commands]
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)

    @property
    def compiled(self):
        """The calls that compile a file."""
        return [line for line in self._lines() if "-shared" not in line]

    @property
    def calls(self):
        """Those that put a library together, after its files were compiled."""
        return [line for line in self._lines() if "-shared" in line]

    def _lines(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def stub(real, cache, tmp_path, monkeypatch):
    """A stub that copies the library of this machine, set as the compiler."""
    script = Stub(tmp_path / "stub", f'cp "{real}" "$output"')
    monkeypatch.setenv("CXX", str(script.path))
    return script


@needs_compiler
@pytest.mark.parametrize(
    ("operator", "arguments", "options"),
    [(selective_scan, scan_arguments, {}), (directional_pass, pass_arguments, dict(selects="B"))],
)
def test_this_machine_runs_the_cpu_kernels(operator, arguments, options, monkeypatch):
    assert build.is_available()
    assert build.library_path().is_file()
    called = []

    class Library:
        def __getattr__(self, name):
            called.append(name)
            return getattr(build.library(), name)

    monkeypatch.setattr(cpu, "library", Library)
    tensors = arguments(5, 4, dtype=torch.float32)
    actual = value_and_gradients(operator, tensors, **options)
    expected = value_and_gradients(operator, tensors, **options, implementation="reference")
    kind = "scan" if operator is selective_scan else "pass"
    assert called == [f"v2m_{kind}_forward", f"v2m_{kind}_backward"]
    for name, value in actual.items():
        assert_close(value, expected[name], "float32 gradient", name)


@needs_compiler
def test_built_once(stub, cache, capsys):
    path = build.build()
    assert path.parent.parent == cache
    assert build.build() == path
    build.library()
    clear_memory()  # as in another process
    build.library()
    assert len(stub.calls) == 1
    assert {p.suffix for p in path.parent.iterdir()} == {".so", ".sha256", ".lock"}
    message = r"v2m: compiling the CPU kernels, once for this machine \.\.\. done in \d+ s\n"
    assert re.fullmatch(message, capsys.readouterr().err)


@needs_compiler
def test_command(stub):
    build.build()
    compiled = [line.split() for line in stub.compiled]
    assert all({"-std=c++17", "-O3", "-fPIC", "-c"} < set(words) for words in compiled)
    sources = {str(file) for file in build.KERNELS.files if file.suffix == ".cpp"}
    assert {word for words in compiled for word in words if word.endswith((".cpp", ".h"))} == sources
    assert len(compiled) == len(sources)
    assert "-shared" in stub.calls[0].split()


@needs_compiler
def test_compiler_with_arguments(stub, monkeypatch):
    monkeypatch.setenv("CXX", f"'{stub.path}' -DONE='a b'")
    build.build()
    assert stub.calls[-1].startswith("-DONE=a b -std=c++17")


@needs_compiler
def test_key_of_the_cache(stub, tmp_path, monkeypatch):
    def key(code=build.KERNELS):
        clear_memory()
        return build.library_path(code).parent.name

    seen = [key()]
    assert key() == seen[0]
    monkeypatch.setenv("CXX", f"{stub.path} -g")
    seen.append(key())
    monkeypatch.setenv("CXX", str(stub.path))
    assert key() == seen[0]
    Stub(stub.path, version="stub 1.1")
    seen.append(key())
    monkeypatch.setattr(build, "_processor", lambda: "another")
    seen.append(key())
    copies = [tmp_path / file.name for file in build.KERNELS.files]
    for file, copy in zip(build.KERNELS.files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    code = build.KERNELS._replace(files=tuple(copies))
    assert key(code) == seen[-1]
    for copy in copies:
        copy.write_bytes(copy.read_bytes() + b"\n")
        seen.append(key(code))
    assert len(set(seen)) == len(seen) == 4 + len(copies)


def test_processor_tells_instruction_sets():
    if os.path.exists("/proc/cpuinfo"):
        assert re.search("flags|Features", build._processor())
    assert build._processor() == build._processor() != ""


def assert_pytorch_takes_over(message):
    """Twice, with one warning."""
    with pytest.raises(KernelError, match=message) as error:
        build.library()
    assert "\n" not in str(error.value)
    tensors = scan_arguments(5, 4, dtype=torch.float32)
    with pytest.warns(UserWarning, match=message) as warnings:
        y, _ = (selective_scan(**tensors) for _ in range(2))
    assert len(warnings) == 1
    assert "v2m: no CPU kernels, PyTorch is used instead, which is slow: " in str(warnings[0].message)
    assert not dispatch.is_available()
    assert_close(y, selective_scan(**{name: v.double() for name, v in tensors.items()}), "float32")
    with pytest.raises(KernelError, match=message):
        selective_scan(**tensors, implementation="cpu")


def test_no_compiler(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_pytorch_takes_over(r"no C\+\+ compiler was found \(looked for \$CXX, c\+\+, g\+\+, clang\+\+\)")


def test_compiler_that_is_not_there(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    assert_pytorch_takes_over(rf"the compiler {tmp_path}/nothing does not run \(")


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (["echo 'error: not here'; exit 1"], "1"),
        (["(echo note; echo 'x.cpp:1: error: no'; echo more) >&2; exit 1"], r"x\.cpp:1: error: no"),
        (["echo 'all is lost' >&2; exit 3"], "all is lost"),
        (["exit 3"], "3"),
    ],
)
def test_compiler_that_fails(commands, message, cache, tmp_path, monkeypatch, capsys):
    script = Stub(tmp_path / "stub", *commands)
    monkeypatch.setenv("CXX", str(script.path))
    assert_pytorch_takes_over(rf"the compiler {script.path} fails \({message}\)")
    assert capsys.readouterr().err.splitlines()[0].endswith(" ... failed")
    assert not list(cache.glob(f"**/{build.LIBRARY}"))


def test_compiler_that_writes_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(Stub(tmp_path / "stub", "exit 0").path))
    with pytest.raises(KernelError, match="writes no library"):
        build.library()


def test_compiler_that_hangs(cache, tmp_path, monkeypatch):
    script = Stub(tmp_path / "stub", "exec sleep 60")
    monkeypatch.setenv("CXX", str(script.path))
    monkeypatch.setattr(build, "SECONDS_TO_COMPILE", 1)
    with pytest.raises(
        KernelError, match=rf"the compiler {script.path} does not run \(.*timed out after 1 seconds"
    ):
        build.library()
    assert script.compiled
    assert not script.calls


def test_compiler_without_a_version(cache, tmp_path, monkeypatch):
    script = tmp_path / "stub"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert_pytorch_takes_over(rf"the compiler {script} fails \(1\)")


@needs_compiler
@pytest.mark.parametrize("inside", ["", "v2m", "v2m/kernels"])
def test_cache_that_cannot_be_written(inside, stub, tmp_path, monkeypatch):
    """A file where a folder should be: no permission stops root."""
    place = tmp_path / "place"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    blocker = place / inside
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("")
    assert_pytorch_takes_over(f"{place}/v2m/kernels/[0-9a-f]+ cannot be written")
    assert stub.calls == []


RUN_AS_NOBODY = """
import os
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be somebody else")
@needs_compiler
def test_home_that_cannot_be_entered(cache):
    cache.parents[1].mkdir(mode=0o700)
    command = [sys.executable, "-W", "ignore", "-c", f"{ALONE}{RUN_AS_NOBODY}print(build.is_available())"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@needs_compiler
@pytest.mark.parametrize(
    "damage",
    [
        lambda library: b"",
        lambda library: library[:200],
        lambda library: b"#" * len(library),
    ],
    ids=["empty", "short", "text"],
)
def test_damaged_library_is_built_again(damage, stub, real):
    path = build.library_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(damage(real.read_bytes()))
    library = build.library()
    assert library.v2m_scan_forward
    assert len(stub.calls) == 1
    assert path.read_bytes() == real.read_bytes()


@needs_compiler
def test_half_a_library_is_built_again(stub, real):
    path = build.library_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(real.read_bytes()[: real.stat().st_size // 2])
    done = subprocess.run([sys.executable, "-c", f"{ALONE}build.library()"], capture_output=True)
    assert done.returncode == 0
    assert len(stub.calls) == 1


def test_compiler_that_writes_no_library(cache, tmp_path, monkeypatch):
    script = Stub(tmp_path / "stub", 'echo no > "$output"')
    monkeypatch.setenv("CXX", str(script.path))
    with pytest.raises(KernelError, match=r"libv2m\.so cannot be loaded \("):
        build.library()
    assert len(script.calls) == 1


def test_command_that_is_none(cache, monkeypatch):
    monkeypatch.setenv("CXX", "'g++")
    with pytest.raises(KernelError, match=r"^CXX is .'g\+\+., expected a command$"):
        build.library()


@needs_compiler
def test_processes_compile_once_between_them(real, cache, tmp_path, monkeypatch):
    script = Stub(tmp_path / "stub", "sleep 0.5", f'cp "{real}" "$output"')
    monkeypatch.setenv("CXX", str(script.path))
    command = [sys.executable, "-c", f"{ALONE}build.library().v2m_scan_forward; print(build.build())"]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert {output for output, _ in results} == {f"{build.library_path()}\n"}
    assert "".join(error for _, error in results).count("compiling") == len(script.calls) == 1


@needs_compiler
def test_clear(stub, cache, monkeypatch):
    assert build.clear() == 0
    for flag in ("", "-g"):
        monkeypatch.setenv("CXX", f"{stub.path} {flag}")
        build.build()
    assert build.clear() == 2
    assert not cache.exists()
    assert build.clear() == 0
    build.build()
    assert len(stub.calls) == 3


OURS = ("library", "checksum", "folder", "kernels")
PLACES = (*OURS, "v2m")


def places(library):
    """Where somebody could put something else in place of a library; the last one keeps data too."""
    kernels = library.parent.parent
    paths = (library, library.with_suffix(".sha256"), library.parent, kernels, kernels.parent)
    return dict(zip(PLACES, paths, strict=True))


def loads_nothing(monkeypatch):
    def load(path):
        raise AssertionError(path)

    monkeypatch.setattr(build.ctypes, "CDLL", load)


@needs_compiler
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_others_cannot_write_what_is_built(mask, stub, cache):
    before = os.umask(mask)
    try:
        path = build.build()
        build.library()
    finally:
        os.umask(before)
    for folder in (cache.parent.parent, cache.parent, cache, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (path, path.with_suffix(".sha256")):
        assert not stat.S_IMODE(file.stat().st_mode) & 0o022


@needs_compiler
@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize("place", OURS)
def test_what_others_can_write_is_not_loaded(place, mode, stub, cache, monkeypatch):
    path = places(build.build())[place]
    path.chmod(path.stat().st_mode | mode)
    with monkeypatch.context() as context:
        loads_nothing(context)
        remedy = "try v2m kernels clear$"
        assert_pytorch_takes_over(rf"{path} can be written by others, so nothing in it is run; {remedy}")
    clear_memory()
    build.clear()
    assert build.library().v2m_scan_forward


@needs_compiler
@pytest.mark.parametrize("place", [0, 1])
def test_a_cache_where_anybody_may_rename_is_not_used(place, stub, cache):
    build.build()
    parent = cache.parents[place]
    parent.chmod(0o1777)
    build.library()
    clear_memory()
    parent.chmod(0o777)
    with pytest.raises(KernelError, match=rf"^{parent} can be written by everybody, .* XDG_CACHE_HOME to a"):
        build.library()


@needs_compiler
@pytest.mark.parametrize("place", OURS)
def test_links_are_not_followed_to_what_is_loaded(place, stub, cache, tmp_path, monkeypatch):
    path = places(build.build())[place]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    loads_nothing(monkeypatch)
    with pytest.raises(KernelError, match=rf"^{path} is a link, so nothing in it is run; delete it$"):
        build.library()


@needs_compiler
def test_data_may_have_made_the_cache_with_any_umask(stub, cache):
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o775)
    assert build.library().v2m_scan_forward


@needs_compiler
def test_a_cache_behind_the_users_own_link(stub, cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cache.parents[1].mkdir()
    cache.parent.symlink_to(tmp_path / "elsewhere")
    assert build.library().v2m_scan_forward
    assert build.clear() == 1


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be somebody else")
@needs_compiler
@pytest.mark.parametrize("place", PLACES)
def test_what_others_own_is_not_loaded(place, stub, cache, monkeypatch):
    path = places(build.build())[place]
    os.chown(path, 65534, 65534)
    loads_nothing(monkeypatch)
    assert_pytorch_takes_over(rf"{path} is of another user, so nothing in it is run; set XDG_CACHE_HOME to ")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be somebody else")
@needs_compiler
def test_root_in_the_home_of_another_user(stub, cache, tmp_path):
    """As in a container: the folder is theirs, the cache in it is root's."""
    os.chown(tmp_path, 65534, 65534)
    assert build.library().v2m_scan_forward


@needs_compiler
def test_library_without_our_functions(cache, tmp_path, monkeypatch):
    source = tmp_path / "empty.c"
    source.write_text("")
    script = Stub(tmp_path / "stub", f'${{CC:-cc}} -shared -o "$output" "{source}"')
    monkeypatch.setenv("CXX", str(script.path))
    assert_pytorch_takes_over(
        r"libv2m\.so cannot be loaded \(.*v2m_pass_forward.*\); delete it by: v2m kernels clear"
    )


def test_clear_does_not_follow_a_link(cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    cache.parent.mkdir(parents=True)
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KernelError, match=rf"^{cache} is a link, which is not followed "):
        build.clear()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_clear_says_what_it_cannot_delete(cache, monkeypatch):
    cache.parent.mkdir(parents=True)
    cache.write_text("")
    with pytest.raises(KernelError, match=rf"^{cache} cannot be deleted \(Not a directory\)$"):
        build.clear()


def test_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert build.cache_folder() == tmp_path / ".cache" / "v2m" / "kernels"

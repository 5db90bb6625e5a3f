"""Libraries of C++, above all that of the CPU kernels: compiled on first use, kept in the user's cache.

It is a plain shared library with a C interface, so it fits any version of PyTorch and Python.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from v2m.system.caches import user_cache
from v2m.system.files import file_sha256

COMPILERS = ("c++", "g++", "clang++")
LIBRARY = "libv2m.so"
CHECKSUM = ".sha256"
REMEDY = "so nothing in it is run; set XDG_CACHE_HOME to a folder of your own"
SECONDS_TO_COMPILE = 300
VECTORS = {"__AVX512F__": "AVX-512", "__AVX2__": "AVX2", "__ARM_NEON": "NEON"}
"""Vector instructions that kernels are written for, by the macro of the compiler, the widest first."""


class KernelError(RuntimeError):
    """The library cannot be compiled or loaded; the message is one line."""


class Code(NamedTuple):
    """C++ that becomes a library.

    Attributes:
        name: What it is called while it is compiled.
        files: All that the library depends on. What ends in ``.cpp`` is compiled, in this order.
        functions: What the library has.
    """

    name: str
    files: tuple[Path, ...]
    functions: tuple[str, ...]


KERNELS = Code(
    "the CPU kernels",
    tuple(sorted((Path(__file__).parent / "cpp").iterdir())),
    tuple(f"v2m_{name}_{part}" for name in ("pass", "scan", "scan_2d") for part in ("forward", "backward")),
)


def cache_folder() -> Path:
    """Where libraries are kept: ``kernels`` in the user's cache."""
    return user_cache() / "kernels"


def library_path(code: Code = KERNELS) -> Path:
    """The place of the library for this code, this compiler and this processor, built or not.

    Raises:
        KernelError: there is no compiler.
    """
    key = hashlib.sha256("\n".join([*_command(), _compiler_version(), _processor()]).encode())
    for file in code.files:
        key.update(file.read_bytes())
    return cache_folder() / key.hexdigest()[:16] / LIBRARY


def build(code: Code = KERNELS) -> Path:
    """Compile the library unless it is there, whole; other processes wait for the one that does.

    Raises:
        KernelError: there is no compiler, it fails, or the cache cannot be written, or could be by others.
    """
    path = library_path(code)
    try:
        check_owner(path)
        if _is_whole(path):
            return path
        for folder in reversed([path.parent, *path.parent.parents]):
            folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(path)
        with FileLock(path.with_suffix(".lock")):
            if not _is_whole(path):
                _compile(code, path)
    except OSError as error:
        raise KernelError(f"{path.parent} cannot be written ({error.strerror or error})") from None
    return path


@lru_cache
def library(code: Code = KERNELS) -> ctypes.CDLL:
    """The loaded library, compiled first if need be.

    Raises:
        KernelError: it cannot be compiled or loaded.
    """
    path = build(code)
    try:
        loaded = ctypes.CDLL(str(path))
        for function in code.functions:
            getattr(loaded, function)
    except (OSError, AttributeError) as error:
        raise KernelError(f"{path} cannot be loaded ({error}); delete it by: v2m kernels clear") from None
    return loaded


@lru_cache
def is_available() -> bool:
    """Whether the CPU kernels can be used; says why not, once, in a warning."""
    try:
        library()
    except KernelError as error:
        warnings.warn(f"v2m: no CPU kernels, PyTorch is used instead, which is slow: {error}", stacklevel=2)
        return False
    return True


@lru_cache
def vector_instructions() -> str | None:
    """The widest vector instructions that the compiler uses for this processor: AVX-512, AVX2, NEON or none.

    Raises:
        KernelError: there is no compiler, or it fails.
    """
    # The compiler itself is asked: a processor may have more than an older compiler, or CXX, makes use of.
    macros = set(_run([*_command(), "-x", "c++", "-dM", "-E", os.devnull]).split())
    return next((name for macro, name in VECTORS.items() if macro in macros), None)


def clear() -> int:
    """Delete every compiled library from the cache; returns how many there were.

    Raises:
        KernelError: they cannot be deleted, or the folder is a link.
    """
    folder = cache_folder()
    if folder.is_symlink():
        raise KernelError(f"{folder} is a link, which is not followed to delete anything: delete it yourself")
    count = len(list(folder.glob(f"*/{LIBRARY}")))
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise KernelError(
            f"{error.filename or folder} cannot be deleted ({error.strerror or error})"
        ) from None
    return count


def check_owner(library: Path) -> None:
    """See that nobody else can have written a library, or could exchange it before it is loaded.

    The folder of kernels and what is in it has to be of this user or root, not for others to write, and no
    link. The way there may lead through links of this user or root, and through folders of others, but not
    where anybody may rename what is there.

    Raises:
        KernelError: somebody else can; the message says what to do.
        OSError: that cannot be seen.
    """
    if os.name != "posix":
        return
    users, given = (os.geteuid(), 0), user_cache().absolute()
    cache = Path(os.path.realpath(given))
    place = cache / library.parent.relative_to(user_cache())
    for link in filter(Path.is_symlink, (given, *given.parents)):
        if link.lstat().st_uid not in users:
            raise KernelError(f"{link} is of another user, {REMEDY}")
    for folder in filter(Path.exists, (cache, *cache.parents)):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise KernelError(f"{folder} can be written by everybody, {REMEDY}")
    found = place / library.name
    for path in (cache, place.parent, place, found, found.with_suffix(CHECKSUM)):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            raise KernelError(f"{path} is a link, so nothing in it is run; delete it")
        if status.st_uid not in users:
            raise KernelError(f"{path} is of another user, {REMEDY}")
        # Data are kept beside, in a folder that a umask may have left to the user's own group.
        if path != cache and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KernelError(
                f"{path} can be written by others, so nothing in it is run; try v2m kernels clear"
            )


def _is_whole(path: Path) -> bool:
    """Whether a library is there as it was compiled: loading a part of one would kill the process."""
    checksum = path.with_suffix(CHECKSUM)
    return path.is_file() and checksum.is_file() and checksum.read_text() == file_sha256(path)


def _compiler() -> list[str]:
    try:
        words = shlex.split(os.environ.get("CXX", "")) or list(filter(shutil.which, COMPILERS))[:1]
    except ValueError:
        raise KernelError(f"CXX is {os.environ['CXX']!r}, expected a command") from None
    if not words:
        raise KernelError(f"no C++ compiler was found (looked for $CXX, {', '.join(COMPILERS)})")
    return words


def _command() -> list[str]:
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    target = "-mcpu=native" if is_arm else "-march=native"
    flags = f"-std=c++17 -O3 {target} -ffp-contract=fast -fPIC -fvisibility=hidden -pthread"
    return [*_compiler(), *flags.split()]


@lru_cache
def _compiler_version() -> str:
    return _run([*_compiler(), "--version"])


def _processor() -> str:
    """What decides about instructions: native code for one processor may not run on another."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(kept))


def _compile(code: Code, path: Path) -> None:
    print(f"v2m: compiling {code.name}, once for this machine ...", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    sources = [file for file in code.files if file.suffix == ".cpp"]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            partial = Path(folder) / LIBRARY
            objects = [str(Path(folder) / f"{source.stem}.o") for source in sources]
            commands = [
                [*_command(), "-c", str(source), "-o", made]
                for source, made in zip(sources, objects, strict=True)
            ]
            with ThreadPool(len(commands)) as pool:
                pool.map(_run, commands)
            _run([*_command(), "-shared", *objects, "-o", str(partial)])
            if not partial.is_file():
                raise KernelError(f"the compiler {_compiler()[0]} writes no library")
            checksum = partial.with_suffix(CHECKSUM)
            checksum.write_text(file_sha256(partial))
            for file in (checksum, partial):
                file.chmod(0o644)
                os.replace(file, path.with_name(file.name))
    except (KernelError, OSError):
        print("failed", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise
    print(f"done in {time.monotonic() - started:.0f} s", file=sys.stderr)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS_TO_COMPILE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"the compiler {command[0]} does not run ({error})") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise KernelError(f"the compiler {command[0]} fails ({lines[0] if lines else done.returncode})")
    return done.stdout

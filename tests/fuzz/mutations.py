"""Changes of valid files: of their bytes, of what they hold, and of what they are."""

import io
import json
import os
import random
import socket
import struct
import tarfile
from itertools import pairwise
from pathlib import Path

import yaml

MOST_PLACES = 5000
CANARY = "v2m_canary"
"""A module that is on the path of a fuzzed process, and must never be imported."""
SECRETS = tuple(f"{'../' * up}outside/secret.png" for up in (1, 2, 3))
"""A readable image beside the folder that is given, which must never be read."""


def deep(levels):
    """A list in a list, and so on."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = (
    None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 10**9, 10**30, -(10**9), 0.5, -0.0, 1e-320, 1e38, 1e308,
    float("nan"), float("inf"), -float("inf"), "", " ", "a", "0", "a\nb", "\x1b[31mred", "\u202egpj.x",
    "\ud800", "[red]x[/red]", "$x^$", "../x", *SECRETS, "/etc/hostname", "/dev/zero", ".", "~", "http://127.0.0.1:9/x",
    "x" * 5000, [], {}, [[]], [None], {"": None}, [1, 2, 3], {"a": {"b": 1}}, deep(40), deep(900),
    {"class_path": f"{CANARY}.Fire", "init_args": {"args": ["touch", "/tmp/fired"]}},
    {"__class__": "os.system"}, f"{CANARY}.Fire", f"!!python/name:{CANARY}.Fire",
)  # fmt: skip
NUMBERS = tuple(
    struct.pack(form, value)
    for form, values in (
        ("<H", (0, 1, 0x7FFF, 0xFFFF)),
        ("<I", (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
        (">I", (1, 0x7FFFFFFF, 0x10000)),
        ("<Q", (2**33, 2**63, 2**64 - 1)),
        ("<f", (float("nan"), float("inf"), 3e38)),
    )
    for value in values
)


def change_bytes(rng, content):
    """A copy of some bytes, with one change or a few."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        size = len(content)
        start = rng.randrange(size + 1)
        if rng.random() < 0.4:  # headers decide most
            start = min(start, rng.randrange(256))
        end = min(size, start + rng.choice((1, 2, 4, 16, 300)))
        kind = rng.randrange(8)
        if kind == 0 and start < size:
            content[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[start:end] = rng.randbytes(end - start)
        elif kind == 2:
            number = rng.choice(NUMBERS)
            content[start : start + len(number)] = number
        elif kind == 3:
            del content[start:end]
        elif kind == 4:
            content[start:start] = content[start:end] * rng.choice((1, 2, 100))
        elif kind == 5:
            del content[start:]
        elif kind == 6:
            places = [i for i in range(min(size, 4096)) if 48 <= content[i] <= 57]
            for place in rng.sample(places, min(len(places), 3)):
                content[place] = rng.choice(b"0123456789-.e")
        else:
            content[start:start] = rng.randbytes(rng.choice((1, 7, 512)))
    return bytes(content)


def places(tree):
    """Containers of a tree with each of their keys and indices, up to some thousands."""
    found, left = [], [tree]
    while left and len(found) < MOST_PLACES:
        item = left.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        found += [(item, key) for key in keys]
        left += [item[key] for key in keys]
    return found


def change_tree(rng, tree):
    """Change a tree of plain data; returns it, or what came in its place."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        spots = places(tree)
        if not spots or rng.random() < 0.02:
            return rng.choice(VALUES)
        parent, key = rng.choice(spots)
        value, kind = parent[key], rng.randrange(10)
        if kind < 4:
            parent[key] = json.loads(json.dumps(rng.choice(VALUES)))
        elif kind == 4:
            del parent[key]
        elif kind == 5:
            parent[key] = rng.choice(([value], {"a": value}, str(value), [value] * 300))
        elif kind == 6 and isinstance(value, int | float):
            parent[key] = rng.choice(
                (-value, value * 10**6, value + 0.5, value + 1, str(value), float(value))
            )
        elif kind == 6 and isinstance(value, list):
            rng.shuffle(value)
        elif kind == 7 and isinstance(parent, dict):
            parent[rng.choice(("a", "class_path", "__init__", "", f"{key}\n", "\x1b[2J"))] = parent.pop(key)
        elif kind == 8:
            other, name = rng.choice(spots)
            parent[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else value))
        elif isinstance(parent, list):
            parent.insert(0, rng.choice(VALUES))
    return tree


BOMBS = {
    ".yaml": (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijkl")),
        "model_args: &a {depth: *a}\n",
        f"model_args: !!python/object/apply:{CANARY}.Fire []\n",
        f"model_args: {{depth: {{class_path: {CANARY}.Fire}}}}\n",
        "a: " + "[" * 50_000,
        "a: 2026-01-01\nb: !!binary aGVsbG8=\nc: !!set {a, b}\n",
        "a: 1\n---\nb: 2\n",
    ),
    ".json": ("[" * 100_000, '{"a":' * 100_000, "1" * 5000, "null", "", "[]", "\ufeff{}", '{"a": 1e400}'),
    ".txt": ("", "\n\n", "a\n" * 100_000, "a\ta\ta\n", "\x1b[31m\n", "\udcff", "999999999 0\n", *SECRETS),
}  # fmt: skip
"""Whole contents of text files."""


def change_text(rng, path):
    """Change what a file of settings or annotations holds."""
    if rng.random() < 0.1:
        path.write_text(rng.choice(BOMBS[path.suffix]), encoding="utf-8", errors="surrogateescape")
        return
    content = path.read_bytes()
    try:
        tree = None if rng.random() < 0.2 else READERS[path.suffix](content)
        text = None if tree is None else WRITERS[path.suffix](change_tree(rng, tree))
    except (ValueError, RecursionError, yaml.YAMLError):  # changed before
        text = None
    if text is None:
        path.write_bytes(change_bytes(rng, content))
    else:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")


def _yaml(tree):
    try:
        return yaml.safe_dump(tree, sort_keys=False)
    except RecursionError:
        return json.dumps(tree)


READERS = {".json": json.loads, ".yaml": yaml.safe_load, ".txt": lambda content: None}
WRITERS = {".json": json.dumps, ".yaml": _yaml}


def change_tar(rng, path):
    """Write a tar anew with one member that is odd."""
    with tarfile.open(path, ignore_zeros=True) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar if member.isfile()]
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as tar:
        odd = rng.randrange(len(members) or 1)
        for number, (member, content) in enumerate(members):
            if number == odd:
                content = _make_odd(rng, member, content)
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))


def _make_odd(rng, member, content):
    kind, folder = rng.randrange(6), os.path.dirname(member.name)
    if kind == 0:
        names = (
            *SECRETS,
            "/etc/x.png",
            f"{folder}/\udcff.png",
            "\x1b[31m/x.png",
            "a\nb/x.png",
            "x" * 300,
            "",
            "..",
        )
        member.name = rng.choice(names)
    elif kind == 1:
        member.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"?")
        )
        member.linkname = rng.choice((*SECRETS, "/dev/zero", member.name))
    elif kind == 2:
        member.name = f"{folder}/{rng.randrange(100)}.cls".lstrip("/")
        return rng.choice((b"1000000000", b"9" * 400, b"-1", b"1.5", b"", b"a", b"\xff", b"0\n0"))
    elif kind == 3:
        member.pax_headers = {
            rng.choice(("comment", "size", "path", "GNU.sparse.map")): rng.choice(("9" * 20, "x" * 9999))
        }
    else:
        return change_bytes(rng, content)
    return content


def make_special(rng, path):
    """Put something in place of a file that is none, or is elsewhere."""
    path.unlink()
    kind = rng.randrange(8)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_RDONLY)
            try:
                server.bind(f"/proc/self/fd/{here}/{path.name[:50]}")
            finally:
                os.close(here)
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to(
            rng.choice(("/dev/zero", "/dev/full", "/proc/self/mem", "/proc/kmsg", "nowhere", path.name))
        )
    elif kind == 4:
        path.symlink_to(path.parent, target_is_directory=True)
    elif kind == 5:
        path.touch()
    elif kind == 6:
        path.write_bytes(b"\0" * 100_000)
    # else it is gone


def change_folder(rng: random.Random, folder: Path, but: tuple[str, ...] = ()) -> None:
    """Change one file in a folder, or two; those that end so are left as they are."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        files = sorted(path for path in files if path.suffix not in but)
        if not files:
            return
        suffix = rng.choice(
            sorted({path.suffix for path in files})
        )  # a folder has many images, one of settings
        path = rng.choice([path for path in files if path.suffix == suffix])
        chance = rng.random()
        if chance < 0.06:
            make_special(rng, path)
        elif chance < 0.1:
            path.write_bytes(rng.choice(files).read_bytes())
        elif path.suffix in BOMBS:
            change_text(rng, path)
        elif tarfile.is_tarfile(path) and rng.random() < 0.6:
            change_tar(rng, path)
        else:
            path.write_bytes(change_bytes(rng, path.read_bytes()))

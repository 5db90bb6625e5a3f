"""Compile the CPU kernels, or tell about them.

Without this command they are compiled on first use.
"""

from dataclasses import dataclass
from typing import Literal

from v2m.cli.options import Options, positional


@dataclass(frozen=True, kw_only=True)
class KernelsOptions(Options):
    """Options of ``v2m kernels``.

    Attributes:
        action: build compiles them now (for a container image), status tells what is there, clear deletes
            what was compiled.
    """

    action: Literal["build", "status", "clear"] = positional()


def run(options: KernelsOptions) -> int:
    """Look after the kernels. What they lack is an error."""
    from v2m.cli.output import console
    from v2m.ops.kernels import build

    out = console()
    if options.action == "clear":
        out.print(f"deleted {build.clear()} compiled libraries from {build.cache_folder()}")
        return 0
    path = build.library_path()
    if options.action == "build":
        build.library()
    build.check_owner(path)
    if not path.is_file():
        out.print(f"CPU: not compiled yet, will be on first use or by v2m kernels build ({path})")
        return 0
    build.library()
    out.print(f"CPU: compiled, {path} ({path.stat().st_size / 1024:.0f} kB)")
    return 0

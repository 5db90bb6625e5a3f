"""What a processor is: its name with its generation, its caches, and how its cores are shared."""

import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")
"""Where Linux tells of processors."""

AMD, INTEL = "AuthenticAMD", "GenuineIntel"
ZEN: dict[int, tuple[tuple[range, str], ...]] = {
    23: (
        (range(0x00, 0x30), "Zen"),
        (range(0x30, 0x100), "Zen 2"),
    ),
    25: (
        (range(0x10, 0x20), "Zen 4"),
        (range(0x60, 0x80), "Zen 4"),
        (range(0xA0, 0xB0), "Zen 4"),
        (range(0x00, 0x60), "Zen 3"),
    ),
    26: ((range(0x00, 0x100), "Zen 5"),),
}
"""AMD's generations by family, then by model; the first range that fits counts."""
INTEL_MODELS = {
    63: "Haswell",
    79: "Broadwell",
    106: "Ice Lake",
    108: "Ice Lake",
    143: "Sapphire Rapids",
    207: "Emerald Rapids",
    173: "Granite Rapids",
    174: "Granite Rapids",
}
"""Intel's generations of servers by model, all of family 6."""
CASCADE_LAKE = 5
"""The stepping of Intel's model 85 from which it is Cascade Lake; before it is Skylake."""


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The name of the processor, with its generation where that is known.

    Clouds hide the number of a processor: its name is "AMD EPYC" or "Intel(R) Xeon(R) Processor" there. The
    numbers of family and model tell the generation.

    Args:
        cpuinfo: The file in which Linux tells of it.
    """
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine() or "unknown processor"
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, value in pairs}
    # An ARM processor has no name there.
    name = fields.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    generation = _generation(fields)
    return name if not generation or generation in name else f"{name} ({generation})"


def cache_sizes(cpus: Path = CPUS) -> dict[str, str]:
    """Sizes of the data caches that one core sees, by level: ``{"L1d": "32 KiB", "L2": "1 MiB"}``.

    Args:
        cpus: The folder in which Linux tells of processors. What it does not tell is left out.
    """
    found = {}
    for index in sorted(cpus.glob("cpu0/cache/index*")):
        level, kind, size = (_line(index / name) for name in ("level", "type", "size"))
        number = re.fullmatch(r"(\d+)K", size)
        if level and number and kind != "Instruction":
            kilobytes = int(number[1])
            whole = kilobytes >= 1024 and kilobytes % 1024 == 0
            text = f"{kilobytes // 1024} MiB" if whole else f"{kilobytes} KiB"
            found["L1d" if level == "1" else f"L{level}"] = text
    return dict(sorted(found.items()))


def threads_per_core(cpus: Path = CPUS) -> int | None:
    """How many processors share a core, or None where the system does not tell.

    Args:
        cpus: The folder in which Linux tells of processors.
    """
    siblings = _line(cpus / "cpu0/topology/thread_siblings_list")
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", siblings):
        return None
    ends = [part.split("-") for part in siblings.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _generation(fields: dict[str, str]) -> str | None:
    try:
        family, model = int(fields["cpu family"]), int(fields["model"])
    except (KeyError, ValueError):
        return None
    if fields.get("vendor_id") == AMD:
        return next((name for models, name in ZEN.get(family, ()) if model in models), None)
    if fields.get("vendor_id") != INTEL or family != 6:
        return None
    if model == 85:
        is_later = fields.get("stepping", "").isdecimal() and int(fields["stepping"]) >= CASCADE_LAKE
        return "Cascade Lake" if is_later else "Skylake"
    return INTEL_MODELS.get(model)


def _line(path: Path) -> str:
    """The content of a small file, or nothing."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""

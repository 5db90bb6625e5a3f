import sys

import pytest

from v2m.benchmark.processor import cache_sizes, cpu_name, threads_per_core

AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "name", "expected"),
    [
        (AMD, 25, 0x11, 1, "AMD EPYC", "AMD EPYC (Zen 4)"),
        (AMD, 25, 0xA0, 2, "AMD EPYC 9754", "AMD EPYC 9754 (Zen 4)"),
        (AMD, 25, 0x01, 1, "AMD EPYC-Milan", "AMD EPYC-Milan (Zen 3)"),
        (AMD, 23, 0x31, 0, "AMD EPYC", "AMD EPYC (Zen 2)"),
        (AMD, 26, 0x02, 1, "AMD EPYC", "AMD EPYC (Zen 5)"),
        (AMD, 99, 1, 0, "AMD EPYC", "AMD EPYC"),
        (INTEL, 6, 85, 4, "Intel(R) Xeon(R) CPU @ 2.00GHz", "Intel(R) Xeon(R) CPU @ 2.00GHz (Skylake)"),
        (INTEL, 6, 85, 7, "Intel(R) Xeon(R) CPU", "Intel(R) Xeon(R) CPU (Cascade Lake)"),
        (INTEL, 6, 106, 6, "Intel(R) Xeon(R) CPU", "Intel(R) Xeon(R) CPU (Ice Lake)"),
        (INTEL, 6, 143, 8, "Intel(R) Xeon(R)", "Intel(R) Xeon(R) (Sapphire Rapids)"),
        (INTEL, 6, 207, 2, "Intel(R) Xeon(R)", "Intel(R) Xeon(R) (Emerald Rapids)"),
        (INTEL, 6, 173, 1, "Intel(R) Xeon(R)", "Intel(R) Xeon(R) (Granite Rapids)"),
        (
            INTEL,
            6,
            143,
            8,
            "Intel Xeon Processor (Sapphire Rapids)",
            "Intel Xeon Processor (Sapphire Rapids)",
        ),
        (INTEL, 15, 143, 8, "Intel(R) Xeon(R)", "Intel(R) Xeon(R)"),
        (INTEL, "?", 143, 8, "Intel(R) Xeon(R)", "Intel(R) Xeon(R)"),
    ],
)
def test_the_generation_follows_from_the_numbers(tmp_path, vendor, family, model, stepping, name, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\nstepping\t: {stepping}\n\nprocessor\t: 1\nmodel name\t: another\n"
    )
    assert cpu_name(path) == expected


@pytest.mark.parametrize("text", [None, "", "processor: 0\nBogoMIPS: 50\nCPU part: 0xd40\n"])
def test_a_system_that_tells_no_name_has_one_nevertheless(tmp_path, text):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert cpu_name(path)


def test_caches_are_those_for_data(tmp_path):
    caches = [
        ("1", "Data", "48K"),
        ("1", "Instruction", "32K"),
        ("2", "Unified", "2048K"),
        ("3", "Unified", "99840K"),
    ]
    for i, cache in enumerate([*caches, ("4", "Unified", "")]):
        folder = tmp_path / f"cpu0/cache/index{i}"
        folder.mkdir(parents=True)
        for name, value in zip(("level", "type", "size"), cache, strict=True):
            (folder / name).write_text(f"{value}\n")
    assert cache_sizes(tmp_path) == {"L1d": "48 KiB", "L2": "2 MiB", "L3": "99840 KiB"}
    assert cache_sizes(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("text", "count"), [("0", 1), ("0-1", 2), ("0,64", 2), ("0-1,8-9", 4), ("", None), ("all", None)]
)
def test_threads_of_a_core_are_counted(tmp_path, text, count):
    folder = tmp_path / "cpu0" / "topology"
    folder.mkdir(parents=True)
    (folder / "thread_siblings_list").write_text(f"{text}\n")
    assert threads_per_core(tmp_path) == count
    assert threads_per_core(tmp_path / "nowhere") is None


@pytest.mark.skipif(
    sys.platform != "linux", reason="Linux tells of the first level at least, in most machines"
)
def test_this_machine_is_told():
    assert cpu_name() == cpu_name().strip() != ""
    assert all(size.endswith(("KiB", "MiB")) for size in cache_sizes().values())

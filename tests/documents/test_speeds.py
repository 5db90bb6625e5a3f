import json
from dataclasses import asdict

from tests.documents import results, speeds
from v2m.benchmark.comparison import ComparedModel, Measurement
from v2m.benchmark.timing import Timing

SECOND = Timing(1.0, 1.0, 1.0)


def compared(name, parameters, pixels=224, **step):
    measurements = (
        Measurement("inference", 1, SECOND, 1.0, 10.0),
        Measurement("inference", 8, SECOND, 80.0 * 1e6 / parameters, 20.0),
        Measurement("training step", 8, **step),
    )
    return ComparedModel(name, 224, pixels, parameters, 0.5, measurements=measurements)


def test_the_comparison_is_by_class_of_size_and_from_the_fastest(tmp_path, monkeypatch):
    rows = [
        compared("resnet18", 11_700_000, note="over 120 s"),
        compared("crossvit_tiny_240", 7_000_000, pixels=240),
        compared("v2m_lite_nano", 1_100_000, timing=SECOND, images_per_s=4.0, memory=1234.0),
        ComparedModel("resnet50", 512, 512, 25_000_000, 1.0),
    ]
    (tmp_path / "made.json").write_text(json.dumps(dict(rows=[asdict(row) for row in rows])))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setitem(results.CURRENT, "comparison", "made")
    results.read_result.cache_clear()
    lines = [line for line in speeds.comparison("224").splitlines() if line]
    results.read_result.cache_clear()
    titles = ["Up to 9 M parameters:", "9 to 16 M parameters:"]
    assert [line for line in lines if not line.startswith("|")] == titles
    nano, crossvit, resnet = (line for line in lines if " M | " in line)
    assert nano == "| **`v2m_lite_nano`** | 1.1 M | 0.50 | 1.00 | 72.7 | 4.00 | 20 | 1,234 |"
    assert crossvit == "| CrossViT-T (240 px) | 7.0 M | 0.50 | 1.00 | 11.4 | - | 20 | - |"
    assert resnet == "| ResNet-18 | 11.7 M | 0.50 | 1.00 | 6.84 | over 120 s | 20 | - |"

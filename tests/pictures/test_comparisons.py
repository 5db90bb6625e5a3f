from tests.pictures.ink import ink
from v2m.pictures import plot_probes, plot_study


def test_study_draws_a_dot_for_each_seed_and_their_spread(tmp_path):
    scores = {"one seed": [0.9], "two seeds": [0.8, 0.85], "none": []}
    plot_study({"accuracy": scores, "F1": scores}, tmp_path / "study.png", "title")
    share, colours = ink(tmp_path / "study.png")
    assert share > 0.01
    assert (0x21, 0x66, 0xAC) in colours
    plot_study({"accuracy": {"none": []}}, tmp_path / "empty.png", "title")
    assert (0x21, 0x66, 0xAC) not in ink(tmp_path / "empty.png")[1]


def test_probes_draw_a_line_and_a_bar_for_each_model_with_any_name(tmp_path):
    knn = {"a": {10: 0.8, 24: 0.7}, "runs/" + 40 * "long": {10: 0.6, 24: 0.5}}
    plot_probes(knn, dict.fromkeys(knn, 0.9), tmp_path / "probes.png", "title")
    _, colours = ink(tmp_path / "probes.png")
    assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= colours

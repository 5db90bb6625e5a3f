import pytest

from v2m.tasks.detection.config import AugmentConfig, DetectionConfig, HeadConfig, InputConfig


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (InputConfig, dict(min_size=()), "input.min_size is"),
        (InputConfig, dict(min_size=(0,)), "input.min_size is"),
        (InputConfig, dict(min_size=(2000,)), "input.min_size is 2000, expected 1 to input.max_size, 1333"),
        (InputConfig, dict(test_size=0), "input.test_size is 0"),
        (InputConfig, dict(mean=(0.5,)), "input.mean is"),
        (AugmentConfig, dict(jitter=(2.0, 1.0)), "augment.jitter is"),
        (AugmentConfig, dict(crop_size=0), "augment.crop_size is 0"),
        (AugmentConfig, dict(hflip=1.5), "augment.hflip is 1.5"),
        (HeadConfig, dict(anchor_sizes=(8, 16)), "head.anchor_sizes is .8, 16., expected 5"),
        (HeadConfig, dict(channels=0), "head.channels is 0"),
        (HeadConfig, dict(post_nms_top_n=(0, 1)), "head.post_nms_top_n is"),
        (HeadConfig, dict(score_threshold=-0.1), "head.score_threshold is -0.1"),
    ],
)
def test_wrong_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_defaults_are_those_of_torchvision():
    config = DetectionConfig(data="coco")
    assert config.head.detector == "mask_rcnn"
    assert config.head.has_masks
    assert not HeadConfig("retinanet").has_masks
    assert (config.input.min_size, config.input.max_size, config.input.test_size) == ((800,), 1333, 800)

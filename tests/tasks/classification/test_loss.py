import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.task import ClassificationTask
from torch import nn

import v2m  # noqa: F401
from tests.helpers import assert_close
from v2m.data import AugmentConfig, ImageSpec
from v2m.tasks.classification.config import DistillConfig, LossConfig
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.loss import build_loss, build_mixup, build_task
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.classification.saved import save

CLASSES = ["zebra", "ant", "mole"]
SPEC = ImageSpec((8, 12), 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
TEACHERS_SPEC = ImageSpec((8, 12), 1, (0.5,), (0.25,), crop_pct=1.0, interpolation="bicubic")
KINDS = ("soft", "hard", "feature")


def test_label_smoothing_equals_pytorchs():
    logits, targets = torch.randn(6, 4), torch.randint(0, 4, (6,))
    config = LossConfig(label_smoothing=0.2)
    assert build_mixup(config, AugmentConfig(), 4) is None
    expected = F.cross_entropy(logits, targets, label_smoothing=0.2)
    torch.testing.assert_close(build_loss(config, None)(logits, targets), expected)


def test_mixed_images_have_mixed_targets():
    images, targets = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    mixup = build_mixup(LossConfig(label_smoothing=0.0), AugmentConfig(mixup=0.8, cutmix=1.0), 3)
    mixed, soft = mixup(images.clone(), targets)
    assert not torch.equal(mixed, images)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    logits = torch.randn(6, 3)
    expected = F.cross_entropy(logits, soft)
    torch.testing.assert_close(build_loss(LossConfig(), mixup)(logits, soft), expected)


@pytest.fixture
def teacher(tmp_path):
    """A wider model with sharp opinions, in a folder."""
    model = build_classifier("v2m_nano", dict(embed_dim=24, depth=1, d_state=2), 3, TEACHERS_SPEC).eval()
    nn.init.normal_(model.head.weight, std=2.0)
    save(model, ClassificationEvaluator(CLASSES, TEACHERS_SPEC), tmp_path)
    return model, str(tmp_path)


@pytest.fixture
def student():
    return build_classifier("v2m_nano", dict(embed_dim=16, depth=2, d_state=2), 3, SPEC)


def task_of(student, kind, folder, weight=0.3, mixup=None, smoothing=0.1):
    distill = DistillConfig(folder, kind, weight, temperature=3.0)
    return build_task(student, LossConfig(smoothing), distill, mixup, SPEC, CLASSES)


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def as_the_teacher_wants(images):
    """Images that are normalised for the student, normalised for the teacher."""
    return ((images * 0.4 + 0.3) - 0.5) / 0.25


def test_without_a_teacher_it_is_cross_entropy(student):
    task = build_task(student, LossConfig(0.2), DistillConfig(), None, SPEC, CLASSES)
    assert isinstance(task, ClassificationTask)
    assert task.trainable_module is student
    images, targets = torch.randn(5, 1, 8, 12), torch.randint(0, 3, (5,))
    result = task(images, targets)
    assert torch.equal(result["output"], student(images))
    expected = F.cross_entropy(student(images), targets, label_smoothing=0.2)
    torch.testing.assert_close(result["loss"], expected)


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_adds_its_part_to_loss_and_gradients(student, teacher, kind, is_mixed):
    model, folder = teacher
    augment = AugmentConfig(mixup=0.8) if is_mixed else AugmentConfig()
    mixup = build_mixup(LossConfig(), augment, 3)
    task = task_of(student, kind, folder, mixup=mixup).train()
    images, targets = torch.randn(6, 1, 8, 12), torch.randint(0, 3, (6,))
    if mixup:
        images, targets = mixup(images, targets)
    result = task(images, targets)
    result["loss"].backward()
    found = gradients(student)
    student.zero_grad()

    logits = student(images)
    labels = F.cross_entropy(logits, targets, label_smoothing=0.0 if is_mixed else 0.1)
    with torch.no_grad():
        theirs = as_the_teacher_wants(images)
        opinion, features = model(theirs), model.forward_head(model.forward_features(theirs), pre_logits=True)
    if kind == "soft":
        p, q = (opinion / 3).softmax(-1), (logits / 3).softmax(-1)
        distance = 9 * (p * (p / q).log()).sum(-1).mean()
    elif kind == "hard":
        distance = -logits.log_softmax(-1)[torch.arange(6), opinion.argmax(-1)].mean()
    else:
        own = student.forward_head(student.forward_features(images), pre_logits=True)
        distance = (task.trainable_module.projection(own) - features).square().mean()
    expected = 0.7 * labels + 0.3 * distance
    expected.backward()
    assert_close(result["loss"], expected, "float32")
    assert torch.equal(result["output"], logits)
    for name, gradient in gradients(student).items():
        assert_close(found[name], gradient, "float32 gradient", name)
    assert found.keys() >= {"patch_embed.proj.weight", "head.weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_stays_as_it_is(student, teacher, kind):
    model, folder = teacher
    task = task_of(student, kind, folder)
    trained = task.trainable_module
    optimizer = create_optimizer_v2(trained, opt="adamw", lr=0.1, weight_decay=0.1)
    before = copy.deepcopy(student.state_dict())
    for _ in range(2):
        task.train()
        assert student.training
        assert not any(module.training for module in task.teacher.modules())
        task(torch.randn(4, 1, 8, 12), torch.tensor([0, 1, 2, 0]))["loss"].backward()
        optimizer.step()
    assert not torch.equal(student.head.weight, before["head.weight"])
    for name, value in model.state_dict().items():
        assert torch.equal(task.teacher.model.state_dict()[name], value)
    assert all(not p.requires_grad and p.grad is None for p in task.teacher.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_student_is_trained_and_kept(student, teacher, kind):
    task = task_of(student, kind, teacher[1])
    theirs = {id(p) for p in task.teacher.parameters()}
    assert not theirs & {id(p) for p in task.trainable_module.parameters()}
    kept = task.get_checkpoint_state()
    assert kept["state_dict"].keys() == student.state_dict().keys()
    assert kept.keys() == ({"state_dict", "task_state"} if kind == "feature" else {"state_dict"})
    assert task.get_eval_model() is student


def test_features_of_one_width_need_no_projection(student, tmp_path):
    twin = build_classifier("v2m_nano", dict(embed_dim=16, depth=1, d_state=2), 3, SPEC)
    save(twin, ClassificationEvaluator(CLASSES, SPEC), tmp_path)
    assert task_of(student, "feature", str(tmp_path)).trainable_module.projection is None


def test_layer_decay_reaches_the_projection_and_the_student(student, teacher):
    trained = task_of(student, "feature", teacher[1]).trainable_module
    groups = param_groups_layer_decay(trained, weight_decay=0.1, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scales) == len(list(trained.parameters()))
    assert scales[id(trained.projection.weight)] == 1.0
    assert (
        scales[id(student.patch_embed.proj.weight)] < scales[id(student.blocks[1].mixer.in_proj.weight)] < 1
    )


def test_a_weight_of_one_leaves_the_labels_out(student, teacher):
    images, targets = torch.randn(4, 1, 8, 12), torch.tensor([0, 1, 2, 0])
    task = task_of(student, "soft", teacher[1], weight=1.0)
    assert torch.equal(task(images, targets)["loss"], task(images, targets.flip(0))["loss"])
    alone = task_of(student, "soft", teacher[1], weight=0.0)
    plain = build_task(student, LossConfig(), DistillConfig(), None, SPEC, CLASSES)
    assert torch.equal(alone(images, targets)["loss"], plain(images, targets)["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_is_float32_under_autocast(student, teacher, kind):
    task = task_of(student, kind, teacher[1])
    images = torch.randn(4, 1, 8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert task.teacher(images).dtype == torch.float32
        result = task(images, torch.tensor([0, 1, 2, 0]))
    assert result["loss"].dtype == torch.float32
    expected = task(images, torch.tensor([0, 1, 2, 0]))["loss"]
    assert_close(result["loss"], expected, "bfloat16 layers")


def test_a_teacher_of_timm_sees_images_as_it_was_trained_on_them(monkeypatch, tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    cfg = dict(file=str(tmp_path / "weights.pth"), num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **kwargs: create(name, pretrained_cfg_overlay=cfg, **kwargs)
    )
    monkeypatch.setattr(
        "v2m.tasks.classification.model.model_defaults",
        lambda name: dict(num_classes=3, input_size=(3, 224, 224), fixed_input_size=True),
    )
    spec = ImageSpec((32, 48), 3, (0.4,) * 3, (0.2,) * 3, crop_pct=1.0, interpolation="bicubic")
    student = build_classifier("v2m_nano", dict(embed_dim=16, depth=1), 3, spec)
    distill = DistillConfig("vit_tiny_patch16_224", "soft", 1.0)
    task = build_task(student, LossConfig(), distill, None, spec, CLASSES)
    seen = []
    task.teacher.model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    pixels = torch.rand(2, 3, 32, 48)
    task((pixels - 0.4) / 0.2, torch.tensor([0, 1]))
    mean, std = torch.tensor(cfg["mean"]).view(1, 3, 1, 1), torch.tensor(cfg["std"]).view(1, 3, 1, 1)
    assert_close(seen[0], (pixels - mean) / std, "float32")

"""What `import v2m` costs, and that timm knows the models whoever imports what first."""

import subprocess
import sys

import pytest

import v2m
from v2m.models import MODELS

HEAVY = ("accelerate", "matplotlib", "numpy", "sklearn", "timm", "torch", "torchmetrics", "torchvision")
LIGHT = (
    "v2m",
    "v2m.data.augment",
    "v2m.data.scenes.config",
    "v2m.engine.checkpoint",
    "v2m.engine.processes",
    "v2m.engine.run_folder",
    "v2m.engine.stopping",
    "v2m.models.former_words",
    "v2m.models.variants",
    "v2m.recipes",
    "v2m.studies.catalogue",
    "v2m.system.files",
    "v2m.system.names",
    "v2m.system.network",
    "v2m.system.yaml_files",
    "v2m.tasks",
    "v2m.tasks.classification.config",
    "v2m.tasks.detection.config",
    "v2m.tasks.names",
    "v2m.tasks.registry",
    "v2m.tasks.segmentation.config",
)


def run(code, **more):
    """Standard output of a program."""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_light_modules_import_nothing_heavy():
    """One process: the first module that imports something heavy is named."""
    code = f"""
import sys
from importlib import import_module
for name in {LIGHT}:
    import_module(name)
    heavy = {set(HEAVY)} & sys.modules.keys()
    assert not heavy, (name, heavy)
from v2m.tasks import TASKS, find_known_task
for name in TASKS:
    find_known_task(name).config_type("FOLDER"), find_known_task(name).options_type()
import v2m
assert v2m.list_models("*nano") == ["v2m_nano", "v2m_lite_nano"]
assert dir(v2m) and not {set(HEAVY)} & sys.modules.keys()
"""
    run(code)


def test_import_takes_no_time():
    """CPU time, since a busy machine does not count."""
    took = run("import time; start = time.process_time(); import v2m; print(time.process_time() - start)")
    assert float(took) < 0.2


KNOWN = """
import sys, timm
assert set(MODELS) <= set(timm.list_models()), "not registered"
assert timm.create_model("v2m_nano", depth=1, embed_dim=8).config.depth == 1
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("v2m")]
""".replace("MODELS", repr(MODELS))


@pytest.mark.parametrize(
    "order",
    [
        "import timm, v2m",
        "import v2m, timm",
        "import v2m\nfrom timm import create_model",
        pytest.param("from timm import create_model\nimport v2m", marks=pytest.mark.slow),
        pytest.param("import timm.models\nimport v2m", marks=pytest.mark.slow),
        pytest.param("import v2m\nimport timm.models", marks=pytest.mark.slow),
        pytest.param("import v2m\nfrom timm.layers import DropPath", marks=pytest.mark.slow),
        # Modules of this package, of which each imports timm somewhere on its way.
        "from v2m.layers import V2MMixer",
        pytest.param("import v2m.models.registry", marks=pytest.mark.slow),
        pytest.param("from v2m.models.plain import V2M", marks=pytest.mark.slow),
        pytest.param("import v2m.models as m\nm.HierarchicalV2M, m.plain.V2M", marks=pytest.mark.slow),
        pytest.param("import v2m\nv2m.tasks.find_task('detection')", marks=pytest.mark.slow),
        pytest.param("from v2m import *\nV2MMixer, list_models()", marks=pytest.mark.slow),
        # Others that look for timm, or import it when they are used.
        "import v2m, importlib.util\nspec = importlib.util.find_spec('timm')\n"
        "assert 'create_model' in spec.loader.get_source('timm') and spec.submodule_search_locations\n"
        "import importlib, timm\nassert type(timm.__loader__).__module__.startswith('_frozen')\n"
        "assert timm.__spec__.loader is timm.__loader__\nimportlib.reload(timm), importlib.reload(v2m)",
        pytest.param("import v2m, transformers\ntransformers.TimmWrapperModel", marks=pytest.mark.slow),
    ],
)
def test_timm_knows_the_models_in_any_order(order):
    run(order + KNOWN)


def test_names_are_found_after_the_bare_import():
    """Rooms and their modules as attributes, in threads at once, pickled, inspected, and starred."""
    run("""
import inspect, pickle, threading, v2m
found, errors = {}, []
def take(name):
    try:
        found[name] = getattr(v2m, name)
    except BaseException as error:
        errors.append((name, error))
threads = [threading.Thread(target=take, args=(name,)) for name in v2m.__all__ * 2]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert not errors, errors
assert found.keys() == set(v2m.__all__) <= set(dir(v2m))
assert v2m.layers.V2MMixer is v2m.V2MMixer is v2m.layers.mixers.v2m.V2MMixer
assert v2m.models.plain.V2M is v2m.V2M is pickle.loads(pickle.dumps(v2m.V2M))
assert v2m.models.V2MConfig is v2m.V2MConfig
assert v2m.tasks.find_task("classification") is v2m.tasks.classification.task.Classification
assert v2m.data.AugmentConfig is v2m.data.augment.AugmentConfig
assert dict(inspect.getmembers(v2m))["create_model"] is v2m.create_model
assert not hasattr(v2m, "modles") and not hasattr(v2m, "__wrapped__")
""")


def test_workers_that_are_spawned_know_the_models(tmp_path):
    """A new process imports by what it unpickles, such as a worker of a DataLoader."""
    script = tmp_path / "workers.py"
    script.write_text("""
import v2m
from torch.utils.data import DataLoader, Dataset

class Depths(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        import timm
        return timm.create_model("v2m_nano", depth=index + 1, embed_dim=8).config.depth

if __name__ == "__main__":
    loader = DataLoader(Depths(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert list(loader) == [1, 2]
""")
    subprocess.run([sys.executable, str(script)], check=True, timeout=240)


def test_an_unknown_model_is_told_with_the_nearest():
    with pytest.raises(RuntimeError, match=r"^Unknown model \(v2m_micr\), nearest: v2m_micro"):
        v2m.create_model("v2m_micr")


def test_create_model_is_timms_in_all_else():
    import inspect

    import timm

    assert inspect.signature(v2m.create_model) == inspect.signature(timm.create_model)
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        v2m.create_model("v2m_nano.nothing", pretrained=True)


def test_models_are_listed_by_patterns():
    assert v2m.list_models() == list(MODELS)
    assert v2m.list_models(["*tiny*", "*base"]) == [
        "v2m_tiny_patch16_224",
        "v2m_tiny_local",
        "v2m_lite_tiny",
        "v2m_hierarchical_base",
    ]
    assert v2m.list_models("nothing") == []

import re
from importlib.metadata import packages_distributions

import pytest

from tests.helpers import REPOSITORY
from v2m.system.extras import PACKAGES, how_to_install, missing


def extras():
    """Names of the packages of all extras of users, without their versions."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    (section,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", text, re.M | re.S)
    users = re.sub(r"^(dev|ecosystem) = \[.*?\]$", "", section, flags=re.M | re.S)
    return set(re.findall(r'"([\w-]+)>=', users))


def test_every_package_is_in_an_extra_and_every_extra_can_be_told():
    assert set(PACKAGES.values()) == extras() - {"transformers"}  # which no message asks for


@pytest.mark.parametrize("module", [module for module in PACKAGES if not missing([module])])
def test_a_module_is_of_its_package(module):
    names = [name.replace("_", "-") for name in packages_distributions()[module]]
    assert PACKAGES[module] in names


def test_messages_say_how_to_install_by_this_file_alone():
    found = [
        path.name
        for path in (REPOSITORY / "src").rglob("*.py")
        if "pip install" in path.read_text() and path.name != "extras.py"
    ]
    assert found == []


def test_what_is_missing_is_said_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "no_package_of_that_name").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert missing(["json", "no_package_of_that_name", "none_at_all"]) == [
        "no_package_of_that_name",
        "none_at_all",
    ]
    assert how_to_install("faster_coco_eval", "wandb") == "pip install faster-coco-eval wandb"

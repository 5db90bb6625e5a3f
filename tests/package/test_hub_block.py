"""The block of docs/python.md for the Hugging Face Hub, which no test can run: what it calls is there."""

import ast
import inspect
import re

import huggingface_hub
import timm.models

from tests.helpers import REPOSITORY

BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALLED = {
    "push_to_hf_hub": timm.models.push_to_hf_hub,
    "create_repo": huggingface_hub.HfApi().create_repo,
    "upload_folder": huggingface_hub.HfApi().upload_folder,
}


def test_the_hub_is_called_as_it_wants_to_be():
    (block,) = BLOCK.findall((REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in CALLED:
                found.add(name)
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(CALLED[name]).bind(*node.args, **keywords)
    assert found == CALLED.keys()

"""The guard notices what a case may not do; else fuzzing would find nothing."""

import json
import os
import subprocess
import sys

import pytest

from tests.fuzz.guard import STATUS
from tests.fuzz.runner import ROOT

DEEDS = {
    "nothing": ("1", None),
    "read": ("open('case/a').read()", None),
    "write": ("open('case/b', 'w')", None),
    "read_outside": ("open('outside/a').read()", "read "),
    "read_through_a_link": ("open('case/link').read()", "read "),
    "write_beyond": ("open('b', 'w')", "wrote "),
    "append_beyond": ("os.open('b', os.O_WRONLY | os.O_APPEND | os.O_CREAT)", "wrote "),
    "write_through_a_link": ("open('case/link', 'r+')", "wrote "),
    "remove": ("os.remove('b')", "os.remove "),
    "remove_folder": ("shutil.rmtree('gone')", "shutil.rmtree "),
    "rename": ("os.rename('case/a', 'c')", "os.rename "),
    "start": ("subprocess.run(['true'])", "subprocess.Popen "),
    "shell": ("os.system('true')", "os.system "),
    "connect": ("socket.create_connection(('127.0.0.1', 9), 1)", "socket.getaddrinfo "),
    "import": ("import v2m_canary", "imported v2m_canary"),
    "hang": ("while True: pass", "took more than 1 s"),
    "swallow": ("while True:\n try: time.sleep(9)\n except Exception: pass", "took more than 1 s"),
    "memory": ("b'1' * 2**28", "took "),
}
SCRIPT = """
import json, os, shutil, socket, subprocess, sys, time
from tests.fuzz import guard
guard.SECONDS, guard.MEGABYTES = 1, 100
sys.path.append("path")
watch = guard.Guard("case", "outside")
notes = {}
for name, code in json.loads(sys.argv[1]).items():
    with watch.watched():
        try:
            exec(code, globals())
        except Exception:
            pass
    notes[name] = watch.notes
print(json.dumps(notes))
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """What is noted of each deed."""
    folder = tmp_path_factory.mktemp("guard")
    for name in ("case", "outside", "path", "gone"):
        (folder / name).mkdir()
    for name in ("case/a", "outside/a", "b", "path/v2m_canary.py"):
        (folder / name).touch()
    (folder / "case" / "link").symlink_to(folder / "outside" / "a")
    codes = json.dumps({name: code for name, (code, _) in DEEDS.items()})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, codes],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(name, marks=[pytest.mark.skipif(not STATUS.exists(), reason="Linux tells it")])
        if name == "memory"
        else name
        for name in DEEDS
    ],
)
def test_a_deed_is_noted(notes, deed):
    expected, found = DEEDS[deed][1], notes[deed]
    if expected is None:
        assert found == []
    else:
        assert any(note.startswith(expected) for note in found), found

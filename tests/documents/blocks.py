"""What documents have in blocks: Python, commands, and what these print."""

import re
import shlex
from dataclasses import dataclass

from tests.helpers import REPOSITORY

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^|(?<=\n\n))(?: {4}\S.*\n)+", re.MULTILINE)
"""Lines that are indented by four spaces, after an empty one."""
INLINE = re.compile(r"`((?:\w+=\w+ )?(?:v2m|torchrun) [^`]*\s--[^`]*)`")
"""A command in a sentence or a table, if it has options."""
VARIABLE = re.compile(r"[A-Z_]+=\S+$")
PROGRAMS = ("v2m", "torchrun", "make", "pip", "source", "export", "sbatch", "sudo")
PLACEHOLDERS = {
    "RUN": "runs/RUN",
    "NAME": "digits",
    "TASK": "detection",
    "MODEL": "v2m_nano",
    "IMAGE_OR_FOLDER": "photo.jpg",
    "FILES_OR_FOLDERS": "photo.jpg",
}
"""What stands for a word in capitals; ``FOLDER`` and others are things of ``things.py``."""


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: Path of the document in the repository.
        line: Line of the document that its first line is, from 1.
        language: What the fence says; empty where it says nothing, and of indented blocks.
        text: The lines, without fence and indentation.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def read_page(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def find_blocks(page, text):
    """The blocks of a page, in order."""
    blocks = []
    for match in FENCED.finditer(text):
        blocks.append(Block(page, _line(text, match.start(2)), match[1], match[2]))
    # What is in a fence keeps its place, but is no block again.
    rest = FENCED.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), text)
    for match in INDENTED.finditer(rest):
        blocks.append(Block(page, _line(text, match.start()), "", re.sub(r"^ {4}", "", match[0], flags=re.M)))
    return sorted(blocks, key=lambda block: block.line)


def find_commands(page, text):
    """The commands of a page, in order: (line of the document, command in one line).

    They are what stands after a prompt, or begins with a program in a block of commands, or has options in
    a sentence.
    """
    commands = []
    for block in find_blocks(page, text):
        if block.language not in ("", "sh", "console"):
            continue
        joined = re.sub(r" *\\\n *", lambda match: " \0", block.text)
        line = block.line
        for row in joined.splitlines():
            command = row.replace("\0", "").removeprefix("$ ")
            has_prompt = row.startswith("$ ")
            if has_prompt or (block.language != "console" and _begins_with_program(command)):
                commands.append((line, command))
            line += 1 + row.count("\0")
    prose = FENCED.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), text)
    for match in INLINE.finditer(prose):
        commands.append((_line(text, match.start()), " ".join(match[1].replace("\\|", "|").split())))
    # Three dots stand for any options: there is nothing to look at.
    return sorted((line, command) for line, command in commands if " ..." not in command.split("#")[0])


def split_command(command):
    """The words of a command, without variables, comment, and what a shell does with its output."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)]
    while words and VARIABLE.match(words[0]):
        del words[0]
    ends = [words.index(sign) for sign in ("|", ">", "&&") if sign in words]
    return words[: min(ends)] if ends else words


def _begins_with_program(command):
    words = [word for word in command.split() if not VARIABLE.match(word)]
    return bool(words) and words[0].rpartition("/")[2] in PROGRAMS


def _line(text, place):
    return text.count("\n", 0, place) + 1

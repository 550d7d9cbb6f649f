"""Reads a Dockerfile, and replays its steps in a folder: what a build would do, without an engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OWN_FOLDERS = re.compile(r"(?<![\w./-])/(venv|app|data|build)\b")
"""The folders that an image has of us; all others are the base's."""
REFERENCE = re.compile(r"\$\{(\w+)\}")
STEP_TIMEOUT_S = 600.0


class StepFailedError(Exception):
    """A `RUN` that ended badly, with all that it said."""


@dataclass(frozen=True)
class Instruction:
    """`RUN …`, with its lines joined, and the flags (`--from=build`) apart."""

    name: str
    text: str
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Its arguments, whether they stand as JSON or not."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def one(self, name: str) -> Instruction:
        (found,) = self.all(name)
        return found


def parse(text: str) -> list[Stage]:
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction = _instruction(line)
        if instruction.name == "FROM":
            base, *name = instruction.text.split()
            stages.append(Stage(name[1] if name else "", base, []))
        else:
            stages[-1].instructions.append(instruction)
    return stages


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" ")
    flags: dict[str, str] = {}
    while (match := re.match(r"--([a-z-]+)=(\S+)\s+", rest := rest.strip())) is not None:
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, " ".join(rest.split()), flags)


class Image:
    """What a build leaves: a folder that stands for its root, and the environment that it was given."""

    def __init__(self, root: Path, arguments: Mapping[str, str]) -> None:
        self.root = root
        self.arguments = dict(arguments)
        self.environment: dict[str, str] = {}
        self._folder = "/"
        self._values: dict[str, str] = {}

    def build(self, stage: Stage, context: Path, others: Mapping[str, "Image"]) -> "Image":
        self.root.mkdir(parents=True)
        for each in stage.instructions:
            if each.name == "ARG":
                self._argument(each.text)
            elif each.name == "ENV":
                self._set(each.words)
            elif each.name == "WORKDIR":
                self._folder = each.text
                self.path(each.text).mkdir(exist_ok=True)
            elif each.name == "COPY":
                self._copy(each, context, others)
            elif each.name == "RUN":
                self._run(each.text)
        return self

    def path(self, inside: str) -> Path:
        """Where a path of the image lies."""
        return Path(self._mapped(inside if inside.startswith("/") else f"{self._folder}/{inside}"))

    def command(self, words: Sequence[str]) -> list[str]:
        return [self._mapped(word) for word in words]

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of a process in it: nothing of ours, but for the folders."""
        return {**{name: self._mapped(value) for name, value in self.environment.items()}, **more}

    def _mapped(self, text: str) -> str:
        return OWN_FOLDERS.sub(lambda match: f"{self.root}/{match[1]}", text)

    def _filled(self, text: str) -> str:
        return REFERENCE.sub(lambda match: (self._values | self.environment)[match[1]], text)

    def _argument(self, text: str) -> None:
        name, has_default, default = text.partition("=")
        value = self.arguments.get(name, self._filled(default) if has_default else None)
        assert value is not None, f"the argument {name} is needed"
        self._values[name] = value

    def _set(self, words: Sequence[str]) -> None:
        for word in words:
            name, _, value = word.partition("=")
            self.environment[name] = self._filled(value)

    def _copy(self, each: Instruction, context: Path, others: Mapping[str, "Image"]) -> None:
        *sources, target = each.text.split()
        for source in map(self._filled, sources):
            into = self.path(self._filled(target))
            if "from" in each.flags:
                into.symlink_to(others[each.flags["from"]].path(source))  # a copy would only take time
            elif (context / source).is_dir():
                shutil.copytree(context / source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(context / source, into)

    def _run(self, text: str) -> None:
        # The base's `python` is ours, and so is its cache of wheels.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, **self._values, **self.variables()}
        for name in ("PYTHONPATH", "PIP_NO_CACHE_DIR"):
            variables.pop(name, None)
        folder = self.path(self._folder) if self._folder != "/" else self.root
        done = subprocess.run(
            ["/bin/sh", "-c", self._mapped(text)],
            cwd=folder,
            env=variables,
            timeout=STEP_TIMEOUT_S,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailedError(f"RUN {text}\n{done.stdout}{done.stderr}")

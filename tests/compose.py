"""docker-compose.yaml and the Dockerfile as data, and their processes without containers.

A service is run as the plain process that its container would run: the same command, the same
environment, with hosts and folders of this machine instead of the containers'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
AIRFLOW_SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<text>[^}]*))?\})")


def compose() -> dict[str, Any]:
    """The file as it stands, with anchors and merges resolved."""
    text = (PROJECT / "docker-compose.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def references(content: object) -> list[tuple[str, str | None, str]]:
    """Every variable named anywhere: its name, `:-` or `:?` or None, and the text behind that."""
    return [
        (match["name"], match["kind"], match["text"] or "")
        for value in _texts(content)
        for match in _VARIABLE.finditer(value)
        if match["name"]
    ]


def resolve(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its variables, as Compose puts them in; KeyError if a required one is missing."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        if match["kind"] == ":-":
            return variables.get(match["name"]) or match["text"]
        return variables[match["name"]]

    return _VARIABLE.sub(value, text)


def example_variables() -> tuple[list[str], list[str]]:
    """The variables of .env.example: those to be filled in, and those that have a default."""
    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    return re.findall(r"^(\w+)=", text, re.M), re.findall(r"^#(\w+)=", text, re.M)


def image_environment() -> dict[str, str]:
    """What the Dockerfile's last stage puts into the environment."""
    last_stage = (PROJECT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assignments = re.search(r"^ENV ((?:.*\\\n)*.*)", last_stage, re.M)
    assert assignments is not None
    return dict(re.findall(r"(\w+)=(\S+)", assignments[1]))


class Host:
    """This machine in the place of the containers.

    `replacements` puts its own addresses and folders where the containers' stand, in order; `added`
    goes into every environment.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        replacements: Mapping[str, str],
        added: Mapping[str, str],
    ) -> None:
        self._services = compose()["services"]
        self._variables = variables
        self._replacements = replacements
        self._added = added

    def command(self, service: str) -> list[str]:
        """The command of a service."""
        return [self.here(part) for part in self._services[service]["command"]]

    def health_command(self, service: str) -> list[str]:
        """The command that says whether a service is healthy."""
        kind, *command = self._services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return [self.here(part) for part in command]

    def environment(self, service: str) -> dict[str, str]:
        """The image's environment with that of a service."""
        given = {**image_environment(), **self._services[service].get("environment", {})}
        # What has no value is handed on from .env, and left out if it is not there.
        handed_on = {name: self._variables.get(name) for name in given if given[name] is None}
        return {
            **{name: self.here(value) for name, value in given.items() if value is not None},
            **{name: value for name, value in handed_on.items() if value is not None},
            **self._added,
        }

    def here(self, text: str) -> str:
        """A text of the file with its variables, as it reads on this machine."""
        for theirs, ours in self._replacements.items():
            text = text.replace(theirs, ours)
        return resolve(text, self._variables)


def _texts(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in _texts(value)]
    if isinstance(content, list):
        return [text for value in content for text in _texts(value)]
    return [content] if isinstance(content, str) else []

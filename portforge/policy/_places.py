"""YAML text to plain data, with the line of every key and item. Knows no policy.

Composes nodes instead of constructing objects: values stay what was typed (an instant is its
text), a repeated key is seen, and nothing in the file can name a type to build.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["Document", "MalformedError", "documents"]

Path = tuple[str | int, ...]
_DEEPEST = 32
_BOOLEANS = {"true": True, "false": False}


class MalformedError(Exception):
    """YAML that cannot be read at all, or is ambiguous: what, on which line, and the remedy."""

    def __init__(self, problem: str, line: int, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.line, self.remedy = problem, line, remedy


@dataclass
class Document:
    """One YAML document: its data and the line (from 1) each path in it begins on."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of ``path``, or of its nearest ancestor that was written down."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def _scalar(node: ScalarNode) -> object:
    kind, text = str(node.tag).rpartition(":")[2], str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return _BOOLEANS.get(text.lower(), text)
    # Other spellings of numbers (0x50, 8e1, 1_000) stay text, and text is no port.
    return int(text) if kind == "int" and text.isdecimal() and text.isascii() else text


def _plain(node: Node, path: Path, document: Document) -> object:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if node.anchor is not None:
        raise MalformedError(f"anchor or alias {node.anchor!r}", line, "write the value out")
    if len(path) > _DEEPEST:
        raise MalformedError("nested too deeply", line, "a policy has a handful of levels")
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, i), document) for i, item in enumerate(node.value)]
    if isinstance(node, ScalarNode):
        return _scalar(node)
    assert isinstance(node, MappingNode)  # noqa: S101
    found: dict[str, object] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise MalformedError("a key that is not a word", at, "write name: value")
        if key.value in found:
            raise MalformedError(f"field {key.value!r} is written twice", at, "remove one")
        document.lines[(*path, key.value)] = at
        found[key.value] = _plain(value, (*path, key.value), document)
    return found


def documents(text: str) -> Iterator[Document]:
    """Every document in ``text``; empty ones are left out.

    >>> [d.data for d in documents("a: 1\\n---\\nb: 0x1\\n")]
    [{'a': 1}, {'b': '0x1'}]
    """
    try:
        for node in YAML(typ="rt", pure=True).compose_all(text):
            if node is None:
                continue
            document = Document()
            document.data = _plain(node, (), document)
            if document.data is not None:
                yield document
    except MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        line = mark.line + 1 if mark is not None else 1
        problem = f"not YAML: {wrong.problem or wrong.context}"
        raise MalformedError(problem, line, "mend the line or the one before it") from None
    except YAMLError as wrong:
        problem = f"not YAML: {str(wrong).splitlines()[0]}"
        raise MalformedError(problem, 1, "write it as UTF-8 text") from None
    except RecursionError:
        raise MalformedError("nested too deeply", 1, "a policy has a handful of levels") from None

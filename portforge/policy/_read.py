"""Policy files to policies, every problem with its file, line and field. Writing is ``_write``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from portforge.errors import PolicyError
from portforge.policy._approval import digest
from portforge.policy._lint import Finding, findings
from portforge.policy._model import (
    API_VERSION,
    KIND,
    Approval,
    Established,
    Instant,
    Mode,
    Model,
    Name,
    Namespace,
    PeerSelector,
    PortPolicy,
    Rules,
    Who,
)
from portforge.policy._model import Kind as KindName
from portforge.policy._places import Document, MalformedError, documents
from portforge.policy._wording import Location, field_text, sentence
from portforge.schema import Workload

__all__ = ["Loaded", "Problem", "approval_problems", "load", "parse", "read_policies", "sound"]


class _Metadata(Model):
    namespace: Namespace
    name: Name


class _OwnWorkload(Model):
    kind: KindName
    name: Name


class _Spec(Model):
    workload: _OwnWorkload
    mode: Mode = Mode.AUDIT
    established: Established = Established.REJUDGE
    ingress: Rules | None = None
    egress: Rules | None = None
    expires_at: Instant | None = Field(default=None, alias="expiresAt")
    author: Who | None = None
    confirm_before: Instant | None = Field(default=None, alias="confirmBefore")
    approval: Approval | None = None


class _Object(Model):
    api_version: Literal["portforge.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["PortPolicy"]
    metadata: _Metadata
    spec: _Spec
    status: dict[str, Any] | None = None
    """The cluster's to write; read over."""


def policy_of(read: _Object) -> PortPolicy:
    """The policy that an object of contract 2 says, from a file or from the cluster."""
    spec = read.spec
    return PortPolicy(
        namespace=read.metadata.namespace,
        name=read.metadata.name,
        workload=Workload(read.metadata.namespace, spec.workload.kind, spec.workload.name),
        mode=spec.mode,
        established=spec.established,
        ingress=spec.ingress,
        egress=spec.egress,
        expires_at=spec.expires_at,
        author=spec.author,
        confirm_before=spec.confirm_before,
        approval=spec.approval,
    )


@dataclass(frozen=True)
class Problem:
    """One sentence for one place: what is wrong there and what to do."""

    file: Path
    line: int
    field: str
    problem: str
    remedy: str

    @property
    def place(self) -> str:
        """``file:line: field``."""
        at = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{at}: {self.field}" if self.field else at

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.remedy}"


@dataclass
class Loaded:
    """What was read: the policies of each file, in order, and every problem."""

    files: dict[Path, list[PortPolicy]] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    origins: dict[int, tuple[Path, Document, Location]] = field(default_factory=dict)
    """Where each policy, rule and peer was written, by ``id()`` of the object."""

    @property
    def policies(self) -> list[PortPolicy]:
        """All policies, by file name and then in the order of the file."""
        return [policy for policies in self.files.values() for policy in policies]

    def place(self, subject: object, path: Location = ()) -> tuple[Path, int]:
        """File and line ``subject`` (or the field ``path`` in it) was read from."""
        file, document, base = self.origins[id(subject)]
        return file, document.line((*base, *path))


def _origins(
    policy: PortPolicy, spec: _Spec, written: dict[str, Any]
) -> Iterator[tuple[object, Location]]:
    """Every object lint may speak of, with the path it was written at.

    Rules of ``spec`` are in the order of the file still; a rule's peers are sorted already.
    """
    yield policy, ()
    for direction in ("ingress", "egress"):
        for index, rule in enumerate(getattr(spec, direction) or ()):
            yield rule, ("spec", direction, index)
            peers = written[direction][index].get("peers") or ()
            keys = [PeerSelector.model_validate(peer).sort_key for peer in peers]
            order = sorted(range(len(keys)), key=keys.__getitem__)
            for at, peer in zip(order, rule.peers or (), strict=True):
                yield peer, ("spec", direction, index, "peers", at)


def _read_document(file: Path, document: Document, loaded: Loaded) -> PortPolicy | None:
    data = document.data
    if not isinstance(data, dict):
        remedy = f"a policy begins with apiVersion: {API_VERSION} and kind: {KIND}"
        loaded.problems.append(Problem(file, document.line(()), "", "is not a policy", remedy))
        return None
    try:
        read = _Object.model_validate(data, by_alias=True, by_name=False)
        policy = policy_of(read)
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False):
            at = error["loc"]
            problem = Problem(file, document.line(at), field_text(at), *sentence(error))
            loaded.problems.append(problem)
        return None
    for subject, path in _origins(policy, read.spec, data["spec"]):
        loaded.origins[id(subject)] = (file, document, path)
    return policy


def _give_up(wrong: OSError) -> None:
    """A folder that cannot be read is not an empty one."""
    raise wrong


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise PolicyError("no such file or folder", place=str(path), remedy="check the path")
    if not path.is_dir():
        return [path]
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path, onerror=_give_up)
        for name in names
        if name.endswith((".yaml", ".yml"))
        and not name.startswith(".")
        and not any(part.startswith(".") for part in Path(folder).relative_to(path).parts)
    )
    if not found:
        raise PolicyError(
            "no policy files (*.yaml) in this folder",
            place=str(path),
            remedy="portforge recommend writes them",
        )
    return found


def _read_file(file: Path, raw: bytes, loaded: Loaded) -> None:
    policies: list[PortPolicy] = []
    before = len(loaded.problems)
    loaded.files[file] = policies
    try:
        loaded.texts[file] = raw.decode()
        for document in documents(loaded.texts[file]):
            policy = _read_document(file, document, loaded)
            if policy is not None:
                policies.append(policy)
    except UnicodeDecodeError as wrong:
        line = raw.count(b"\n", 0, wrong.start) + 1
        loaded.problems.append(Problem(file, line, "", "is not text", "write it as UTF-8"))
    except MalformedError as wrong:
        loaded.problems.append(Problem(file, wrong.line, "", wrong.problem, wrong.remedy))
    if not policies and len(loaded.problems) == before:
        remedy = "remove the file or write a policy"
        loaded.problems.append(Problem(file, 0, "", "holds no policy", remedy))


def parse(text: str) -> list[PortPolicy]:
    """The policies in the text of a file; refused unless all are sound."""
    loaded = Loaded()
    _read_file(Path("<text>"), text.encode(), loaded)
    return sound(loaded).policies


def load(path: Path) -> Loaded:
    """Read a file or a folder (all ``*.yaml`` below it) and collect every problem.

    Raises
    ------
    PolicyError: only where there is nothing to read: no such path, no permission, no files.
    """
    loaded = Loaded()
    try:
        texts = {file: file.read_bytes() for file in _files(path)}
    except OSError as wrong:
        raise PolicyError(
            f"cannot be read: {(wrong.strerror or str(wrong)).lower()}",
            place=str(wrong.filename or path),
            remedy="check its permissions",
        ) from wrong
    for file, raw in texts.items():
        _read_file(file, raw, loaded)
    loaded.problems += [_placed(loaded, finding) for finding in findings(loaded.policies)]
    return loaded


def _placed(loaded: Loaded, finding: Finding) -> Problem:
    path = tuple(finding.field.split(".")) if finding.field else ()
    file, _, base = loaded.origins[id(finding.subject)]
    _, line = loaded.place(finding.subject, path)
    return Problem(file, line, field_text((*base, *path)), finding.problem, finding.remedy)


def approval_problems(loaded: Loaded) -> list[Problem]:
    """Approvals that do not match what they approved. No hindrance to reading: only to applying."""
    found = []
    for policy in loaded.policies:
        actual = digest(policy)
        if policy.approval is not None and policy.approval.digest != actual:
            file, line = loaded.place(policy, ("spec", "approval", "digest"))
            found.append(
                Problem(
                    file,
                    line,
                    "spec.approval.digest",
                    f"was changed after {policy.approval.by} approved it: approved "
                    f"{policy.approval.digest[:19]}…, is {actual[:19]}…",
                    "see what changed with portforge diff, then run portforge approve",
                )
            )
    return found


def sound(loaded: Loaded) -> Loaded:
    """``loaded`` itself, where it has no problem; else :class:`PolicyError` with all of them."""
    if loaded.problems:
        first, *more = loaded.problems
        problem = first.problem + (f" (and {len(more)} more)" if more else "")
        raise PolicyError(
            problem,
            place=first.place,
            remedy=first.remedy,
            problems=tuple(map(str, loaded.problems)) if more else (),
        )
    return loaded


def read_policies(path: Path) -> list[PortPolicy]:
    """The policies of a file, or of every ``*.yaml`` below a folder; refused unless all are sound.

    Raises
    ------
    PolicyError: with the place of the first problem; ``problems`` has all of them, one
        sentence each, as ``file:line: field: problem; remedy``, where there are several.
    """
    return sound(load(path)).policies

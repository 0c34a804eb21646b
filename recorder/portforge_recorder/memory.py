"""What a node remembers of the cluster's policies, on disk: objects last seen, confirmed versions,
rollbacks. And how an object becomes what :mod:`portforge_recorder.in_force` judges.

A node whose API server is away goes on with it after a restart. Not what is in force: that is
``current.yaml`` (:mod:`portforge.apply.state`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from portforge.apply.state import State
from portforge.errors import PolicyError
from portforge.kube.policies import from_object, to_object
from portforge.policy import PortPolicy, lint
from portforge_recorder.in_force import Attempt, Confirmed, Glass, Seen

__all__ = ["Memory", "glass", "name_of", "slim"]

_FILE = "cluster.json"

Object = dict[str, Any]


def slim(item: Object) -> Object:
    """What is kept of an object: it can be parsed again after a restart."""
    meta = item["metadata"]
    names = ("namespace", "name", "uid", "generation", "creationTimestamp")
    return {
        "apiVersion": "portforge.dev/v1alpha1",
        "kind": item.get("kind") or "PortPolicy",
        "metadata": {n: meta[n] for n in names if n in meta},
        "spec": item.get("spec") or {},
    }


def name_of(item: Object) -> str:
    """``namespace/name``, or ``name`` of what has no namespace."""
    meta = item["metadata"]
    return "/".join(n for n in (meta.get("namespace"), meta["name"]) if n)


def parse(item: Object) -> PortPolicy:
    """The policy an object holds, without flaws; raises PolicyError."""
    try:
        policy = from_object(item)
    except PolicyError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PolicyError(str(error), place=name_of(item), remedy="correct the object") from error
    if flaws := lint([policy]):
        raise PolicyError(flaws[0], remedy="")
    return policy


def glass(item: Object) -> Glass:
    """The BreakGlass in an object; what it says wrongly is read in favour of who wrote it."""
    spec = item["spec"]
    expires: datetime | None = None
    if text := spec.get("expiresAt"):
        try:
            expires = datetime.fromisoformat(str(text))
            expires = expires.replace(tzinfo=expires.tzinfo or UTC)
        except ValueError:
            expires = None  # whoever is on call is believed
    return Glass(
        item["metadata"]["name"],
        tuple(spec.get("nodes") or ()),
        expires,
        str(spec.get("by") or ""),
        str(spec.get("reason") or ""),
    )


@dataclass
class Memory:
    """What survives a restart of the agent."""

    objects: dict[str, Object] = field(default_factory=dict)
    good: dict[str, Object] = field(default_factory=dict)
    """The last version of an object that could be used."""
    glasses: dict[str, Object] = field(default_factory=dict)
    confirmed: dict[str, Confirmed] = field(default_factory=dict)
    rolled_back: dict[str, Attempt] = field(default_factory=dict)
    known: bool = False
    """Whether any of it was ever heard from an API server."""
    _parsed: dict[str, tuple[tuple[str, int], Seen]] = field(default_factory=dict)
    _written: str = ""

    @classmethod
    def read(cls, state: State) -> Memory:
        """What :meth:`write` wrote; nothing where that is damaged."""
        text = state.kept(_FILE)
        memory = cls()
        try:
            data = json.loads(text or "{}")
            memory.objects = dict(data.get("objects", {}))
            memory.good = dict(data.get("good", {}))
            memory.glasses = dict(data.get("glasses", {}))
            memory.confirmed = {
                k: Confirmed(v["uid"], from_object(v["policy"]))
                for k, v in data.get("confirmed", {}).items()
            }
            memory.rolled_back = {
                k: Attempt(v["uid"], v["generation"], v["why"])
                for k, v in data.get("rolledBack", {}).items()
            }
            memory.seen()
            memory.known = bool(text)
        except (ValueError, TypeError, KeyError, AttributeError, PolicyError):
            return cls()
        return memory

    def write(self, state: State) -> None:
        """Onto the disk, where something changed."""
        data = {
            "objects": self.objects,
            "good": {k: v for k, v in self.good.items() if v != self.objects.get(k)},
            "glasses": self.glasses,
            "confirmed": {
                k: {"uid": c.uid, "policy": to_object(c.policy)} for k, c in self.confirmed.items()
            },
            "rolledBack": {
                k: {"uid": a.uid, "generation": a.generation, "why": a.why}
                for k, a in self.rolled_back.items()
            },
        }
        text = json.dumps(data, sort_keys=True, indent=1)
        if text != self._written:
            state.keep(_FILE, text)
            self._written = text

    def see(self, objects: Iterable[Object]) -> None:
        """Exactly these objects are there."""
        self.objects = {name_of(o): o for o in objects}
        self.good = {k: v for k, v in self.good.items() if k in self.objects}
        self._parsed = {k: v for k, v in self._parsed.items() if k in self.objects}

    def seen(self) -> list[Seen]:
        """Every object, parsed; each version once."""
        return [self._parse(key, item) for key, item in self.objects.items()]

    def attempt(self, key: str) -> Attempt:
        """The version of ``key`` that is judged."""
        seen = self._parse(key, self.objects[key])
        return Attempt(seen.uid, seen.policy_generation)

    def _parse(self, key: str, item: Object) -> Seen:
        meta = item["metadata"]
        version = (str(meta["uid"]), int(meta.get("generation", 0)))
        known = self._parsed.get(key)
        if known is not None and known[0] == version:
            return known[1]
        policy, judged, problem = None, version[1], ""
        try:
            policy = parse(item)
            self.good[key] = item
        except PolicyError as wrong:
            problem = str(wrong)
            before = self.good.get(key)
            if before is not None and before["metadata"]["uid"] == version[0]:
                policy, judged = parse(before), int(before["metadata"].get("generation", 0))
        namespace, _, name = key.partition("/")
        created = str(meta.get("creationTimestamp", ""))
        seen = Seen(namespace, name, version[0], version[1], created, policy, judged, problem)
        self._parsed[key] = (version, seen)
        return seen

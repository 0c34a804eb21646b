"""PortPolicy: what it is, its YAML, what it means, who approved it. Applies nothing.

Reading and writing: :func:`read_policies`, :func:`to_yaml`, :func:`write_policies`, :func:`lint`.
Meaning: :func:`judge` (the oracle), :func:`simulate`, :func:`compare`, :func:`explain`,
:func:`diff`.
Approval: :func:`digest`, :func:`approve`, :func:`verify_approval`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from portforge.policy._approval import approve, digest, verify_approval
from portforge.policy._diff import Change, Diff, diff
from portforge.policy._judge import Judgement, judge
from portforge.policy._lint import lint
from portforge.policy._model import (
    Approval,
    Entity,
    Established,
    Mode,
    PeerSelector,
    PortPolicy,
    Rule,
)
from portforge.policy._read import read_policies
from portforge.policy._write import write_policies
from portforge.policy._yaml import to_yaml

if TYPE_CHECKING:
    from portforge.policy._compare import Comparison, compare
    from portforge.policy._explain import explain
    from portforge.policy._simulate import Simulation, simulate

__all__ = [
    "Approval",
    "Change",
    "Comparison",
    "Diff",
    "Entity",
    "Established",
    "Judgement",
    "Mode",
    "PeerSelector",
    "PortPolicy",
    "Rule",
    "Simulation",
    "approve",
    "compare",
    "diff",
    "digest",
    "explain",
    "judge",
    "lint",
    "read_policies",
    "simulate",
    "to_yaml",
    "verify_approval",
    "write_policies",
]

# These need pandas, which the agent's image does not have: loaded when asked for.
_LATER = {
    "Comparison": "_compare",
    "Simulation": "_simulate",
    "compare": "_compare",
    "explain": "_explain",
    "simulate": "_simulate",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

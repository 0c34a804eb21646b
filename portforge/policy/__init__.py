"""PortPolicy: what it is, its YAML, what it means, who approved it. Applies nothing.

Reading and writing: :func:`read_policies`, :func:`to_yaml`, :func:`write_policies`, :func:`lint`.
Meaning: :func:`judge` (the oracle), :func:`simulate`, :func:`explain`, :func:`diff`.
Approval: :func:`digest`, :func:`approve`, :func:`verify_approval`.
"""

from portforge.policy._approval import approve, digest, verify_approval
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

__all__ = [
    "Approval",
    "Entity",
    "Established",
    "Judgement",
    "Mode",
    "PeerSelector",
    "PortPolicy",
    "Rule",
    "approve",
    "digest",
    "judge",
    "lint",
    "read_policies",
    "to_yaml",
    "verify_approval",
    "write_policies",
]

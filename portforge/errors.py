"""Every error the analyst can meet, in one tree. Not for programming errors: those stay bare.

::

    PortforgeError              exit code 1
    ├── CaptureError            a capture that cannot be read or does not keep the contract
    ├── PolicyError             a policy file that cannot be used; carries every problem found
    ├── ApprovalError           not approved, expired, or the digest does not match
    ├── HostError        (4)    this host lacks a kernel feature, a package or a permission
    ├── ClusterError     (5)    the cluster cannot be reached, or refuses
    └── WriteError              the disk is full or the target cannot be written

Each message says what was wrong, where, and what to do about it.

>>> str(CaptureError("no such folder", place="/nowhere", remedy="check the path"))
'/nowhere: no such folder; check the path'
"""

from __future__ import annotations

__all__ = [
    "ApprovalError",
    "CaptureError",
    "ClusterError",
    "HostError",
    "PolicyError",
    "PortforgeError",
    "WriteError",
]


class PortforgeError(Exception):
    """What was wrong, the place (file, line, field) and the remedy, in one sentence.

    Parameters
    ----------
    problem: what was wrong, without a full stop.
    place: file, line or field; empty when there is none.
    remedy: what to do; empty only where nothing can be done.
    """

    exit_code = 1

    def __init__(self, problem: str, *, place: str = "", remedy: str = "") -> None:
        self.problem, self.place, self.remedy = problem, place, remedy
        text = f"{place}: {problem}" if place else problem
        super().__init__(f"{text}; {remedy}" if remedy else text)


class CaptureError(PortforgeError):
    """A capture that cannot be read or does not keep contract 1."""


class PolicyError(PortforgeError):
    """A policy that cannot be used. ``problems`` lists every finding, one sentence each."""

    def __init__(
        self, problem: str, *, place: str = "", remedy: str = "", problems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.problems = problems


class ApprovalError(PortforgeError):
    """A policy that is not approved, has expired, or was changed after its approval."""


class HostError(PortforgeError):
    """This host cannot do it: kernel feature, package or permission missing."""

    exit_code = 4


class ClusterError(PortforgeError):
    """The cluster's API server cannot be reached, or does not allow it.

    ``status`` is the HTTP status of its answer, 0 where there was none.
    """

    exit_code = 5

    def __init__(self, problem: str, *, place: str = "", remedy: str = "", status: int = 0) -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.status = status


class WriteError(PortforgeError):
    """The result could not be written; nothing half-written was left."""

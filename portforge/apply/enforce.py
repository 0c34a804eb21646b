"""Make the kernel of this node agree with the policies in force. The same call for the first
apply, for a pod that came later, for a rule that expired, and for a recorder that restarts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from portforge.apply.cgroups import pod_uid
from portforge.apply.compile import CompiledPolicy, compile_policies
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import packed_address
from portforge.apply.node import NodeMaps, PodEntry, pod_entry
from portforge.apply.state import Known, State
from portforge.errors import ApprovalError
from portforge.policy import Mode, PortPolicy, verify_approval
from portforge.schema import PeerKind, Workload

__all__ = ["Applied", "Enforcer", "Unknown", "approved"]


class Unknown(NamedTuple):
    """A running pod that is denied until the inventory has it."""

    uid: str
    seconds: float
    """Since its cgroup was made."""


@dataclass(frozen=True)
class Applied:
    """What a call of :meth:`Enforcer.reconcile` did."""

    pods: int
    """Pods that have a policy now."""
    written: int
    """Policies whose entries were written anew."""
    absent: tuple[Workload, ...]
    """Workloads with a policy but without a pod on this node."""
    expected: int = 0
    """Pods of this node whose cgroup is not there yet: the kernel takes them over when it is."""
    unknown: tuple[Unknown, ...] = ()
    """Pods that are denied because nobody knows them yet (``until-known``), the oldest first."""


def approved(policies: Iterable[PortPolicy], mode: Mode | None, now: datetime) -> list[PortPolicy]:
    """``policies`` in ``mode``, each with an approval that holds at ``now``.

    Raises
    ------
    ApprovalError: the first that is not approved, was changed since, or has expired.
    """
    ready: list[PortPolicy] = []
    for policy in policies:
        wanted = policy.model_copy(update={"mode": mode}) if mode else policy
        if wanted.mode is not Mode.RECORD:
            try:
                verify_approval(wanted, now)
            except ApprovalError as refused:
                raise ApprovalError(
                    refused.problem,
                    place=refused.place or f"{policy.namespace}/{policy.name}",
                    remedy=refused.remedy or "approve it with: portforge approve",
                ) from refused
        ready.append(wanted)
    return ready


class Enforcer:
    """Holds the maps and the state of one node, and what was written last."""

    def __init__(self, maps: NodeMaps, state: State) -> None:
        self.maps, self.state = maps, state
        self._written: dict[Workload, tuple[int, CompiledPolicy]] = {}
        self._ids = ""

    def reconcile(self, inventory: Inventory, now: datetime | None = None) -> Applied:
        """Write what is missing, point every pod at its policy, delete what nobody uses.

        A pod points at the old policy or at the new one, never at a half.
        """
        with self.state.alone():
            if self.state.ids() != self._ids:
                # Another process wrote meanwhile, and will have removed what was written here.
                self._written.clear()
            try:
                return self._reconcile(inventory, now or datetime.now(UTC))
            except BaseException:
                # Half written: what pods point at is whole, the rest is written anew next time.
                self._written.clear()
                raise
            finally:
                self._ids = self.state.ids()

    def lift(self) -> int:
        """Take every pod from under its policy, whatever is known of it; how many pods.

        For when nothing is to be in force any more. Needs no inventory.
        """
        with self.state.alone():
            self.maps.close_to_unknown(False)
            self.maps.expect({})
            pods, _ = self.maps.read("pods")
            for pod in pods:
                self.maps.assign(int(pod), 0, None)
            self.maps.rejudge()
            self.maps.remove_policies(())
            self._written.clear()
            return len(pods)

    def _reconcile(self, inventory: Inventory, now: datetime) -> Applied:
        inventory = self._with_remembered(inventory)
        closed = bool(inventory.closed_namespaces)
        compiled = compile_policies(self.state.policies(), inventory, now)
        if not self._written:
            self._sweep()
        before = set(self._written)
        fresh = self._write_policies(compiled)
        mine = self._mine(inventory, compiled, closed)
        # Before the pods are read: one whose cgroup is made earlier is seen below, one whose is
        # made later is taken over by the kernel. Both wait for programs that are running.
        self.maps.expect(mine)
        self.maps.close_to_unknown(closed)
        pods = self._running(inventory)
        # What is left of a pod that ended stays under its policy; its address may be another's.
        ended = self.maps.ended()
        living = {
            c: pod for c, pod in pods.items() if pod and not pod.host_network and c not in ended
        }
        self._write_addresses(inventory, living)
        changed, unknown = self._assign(pods, compiled, closed, ended)
        if fresh or changed:
            self.maps.rejudge()
        if fresh or changed or before - set(self._written):
            kept = [(i, len(p.rule_ids)) for i, p in self._written.values()]
            self.maps.remove_policies(kept)
        here = {pod.workload for pod in living.values() if pod.workload}
        return Applied(
            sum(pod.workload in compiled for pod in living.values()),
            fresh,
            tuple(sorted(set(compiled) - here)),
            len(mine.keys() - {pod.uid for pod in pods.values() if pod}),
            unknown,
        )

    def _with_remembered(self, inventory: Inventory) -> Inventory:
        """``inventory`` and the running pods that it lacks and an earlier one had.

        An inventory may be poorer than the one before: a file, or a source that just started.
        """
        names, ended = self.maps.pod_names(), self.maps.ended()
        alive = {pod_uid(name) for cgroup, name in names.items() if cgroup not in ended}
        known = {pod.uid: pod for pod in inventory.pods if _is_known(pod)}
        kept = {p.uid: p for p in self.state.pods() if p.uid in alive and p.uid not in known}
        own = [
            pod
            for pod in known.values()
            if pod.uid in alive or (pod.node == inventory.node and not pod.until)
        ]
        self.state.remember_pods((*kept.values(), *own))
        if not kept:
            return inventory
        # First, so that an address that went on to another pod is that one's.
        others = [pod for pod in inventory.pods if pod.uid not in kept]
        return replace(inventory, pods=(*kept.values(), *others))

    def _running(self, inventory: Inventory) -> dict[int, Pod | None]:
        """Who every cgroup is that the kernel registered for a pod; None: not known yet."""
        by_uid = {pod.uid: pod for pod in inventory.pods if _is_known(pod)}
        return {c: by_uid.get(pod_uid(name) or "") for c, name in self.maps.pod_names().items()}

    def _mine(
        self, inventory: Inventory, compiled: Mapping[Workload, CompiledPolicy], closed: bool
    ) -> dict[str, PodEntry]:
        """The entries of this node's pods, by UID: of those with a policy; when closed, of all."""
        entries = {
            pod.uid: self._entry(pod, compiled)
            for pod in inventory.pods
            if pod.node == inventory.node and _is_known(pod) and not pod.until
        }
        return {uid: entry for uid, entry in entries.items() if closed or entry[0]}

    def _entry(self, pod: Pod | None, compiled: Mapping[Workload, CompiledPolicy]) -> PodEntry:
        own = pod.workload if pod and not pod.host_network else None
        policy = compiled.get(own) if own else None
        return pod_entry(self._written[policy.workload][0] if policy else 0, policy)

    def _sweep(self) -> None:
        """Delete what a write that failed, or a process that died in one, has left."""
        _, pods = self.maps.read("pods")
        _, expected = self.maps.read("expected")
        known = self.state.known()
        used = {int(p) for p in (*pods["policy"], *expected["policy"]) if p}
        # Without ids.json nobody knows the peer sets of what is in use: leave everything.
        if used <= known.keys():
            self.maps.remove_policies((policy, len(known[policy].rules)) for policy in used)

    def _write_policies(self, compiled: dict[Workload, CompiledPolicy]) -> int:
        known = self.state.known()
        fresh = 0
        for workload in set(self._written) - set(compiled):
            del self._written[workload]
        for workload, policy in sorted(compiled.items()):
            _, before = self._written.get(workload, (0, None))
            # The mode and the like stand in the pod's entry: only the tries need writing.
            if (
                before
                and replace(before, mode=policy.mode, established=policy.established) == policy
            ):
                self._written[workload] = (self._written[workload][0], policy)
                continue
            # Programs loaded anew count from 1, and rows of those before carry the ids known here.
            used = max((k.policy + len(k.rules) for k in known.values()), default=0)
            number = self.maps.write_policy(policy, least=used + 1)
            self._written[workload] = (number, policy)
            known[number] = Known(number, policy.rule_ids)
            fresh += 1
        if fresh:
            # The last few ids stay known: rows that they decided may not be drained yet.
            self.state.remember(sorted(known.values())[-4096:])
        return fresh

    def _assign(
        self,
        pods: Mapping[int, Pod | None],
        compiled: Mapping[Workload, CompiledPolicy],
        closed: bool,
        ended: set[int],
    ) -> tuple[int, tuple[Unknown, ...]]:
        """Point every pod at its policy; how many changed, and who stays denied as unknown."""
        keys, values = self.maps.read("pods")
        changed, unknown = 0, []
        for key, value in zip(keys, values, strict=True):
            cgroup, is_now = int(key), value.tolist()
            if cgroup not in pods:
                continue  # made after the names were read: seen at the next look
            pod = pods[cgroup]
            if not pod and closed and value["unknown"] and cgroup not in ended:
                unknown.append(self._unknown(cgroup))
                continue
            if is_now != (wanted := self._entry(pod, compiled)):
                self.maps.put("pods", cgroup, wanted)
                changed += 1
        return changed, tuple(sorted(unknown, key=lambda u: (-u.seconds, u.uid)))

    def _unknown(self, cgroup: int) -> Unknown:
        name = self.maps.get("pod_names", cgroup)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        text = bytes(name["name"]).decode(errors="replace")
        return Unknown(pod_uid(text) or text, (now - int(name["born_ns"])) / 1e9)

    def _write_addresses(self, inventory: Inventory, cgroups: dict[int, Pod]) -> None:
        wanted = {packed_address(a): c for c, pod in cgroups.items() for a in pod.addresses}
        for node in inventory.nodes:
            if node.name == inventory.node:
                wanted |= {
                    packed_address(a): 0
                    for a in node.addresses
                    if inventory.peer(a).kind is PeerKind.NODE
                }
        keys, values = self.maps.read("addresses")
        now = {k.tobytes(): int(v) for k, v in zip(keys, values, strict=True)}
        for address, cgroup in wanted.items():
            if now.get(address) != cgroup:
                self.maps.put("addresses", address, cgroup)
        for address in set(now) - set(wanted):
            self.maps.remove("addresses", address)


def _is_known(pod: Pod) -> bool:
    """Whether it is clear which policy the pod has: its owner may be read later than itself."""
    return pod.host_network or pod.workload is not None

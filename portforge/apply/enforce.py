"""Make the kernel of this node agree with the policies in force. The same call for the first
apply, for a pod that came later, for a rule that expired, and for a recorder that restarts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from portforge.apply.cgroups import pod_uid
from portforge.apply.compile import CompiledPolicy, compile_policies
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import packed_address
from portforge.apply.node import NodeMaps
from portforge.apply.state import Known, State
from portforge.errors import ApprovalError
from portforge.policy import Mode, PortPolicy, verify_approval
from portforge.schema import PeerKind, Workload

__all__ = ["Applied", "Enforcer", "approved"]


@dataclass(frozen=True)
class Applied:
    """What a call of :meth:`Enforcer.reconcile` did."""

    pods: int
    """Pods that have a policy now."""
    written: int
    """Policies whose entries were written anew."""
    absent: tuple[Workload, ...]
    """Workloads with a policy but without a pod on this node."""


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
            pods, _ = self.maps.read("pods")
            for pod in pods:
                self.maps.assign(int(pod), 0, None)
            self.maps.rejudge()
            self.maps.remove_policies(())
            self._written.clear()
            return len(pods)

    def _reconcile(self, inventory: Inventory, now: datetime) -> Applied:
        compiled = compile_policies(self.state.policies(), inventory, now)
        by_uid = {pod.uid: pod for pod in inventory.pods if not pod.host_network}
        cgroups = {
            cgroup: by_uid[uid]
            for cgroup, name in self.maps.pod_names().items()
            if (uid := pod_uid(name)) in by_uid and uid is not None
        }
        # What is left of a pod that ended stays under its policy; its address may be another's.
        ended = self.maps.ended()
        living = {c: pod for c, pod in cgroups.items() if c not in ended}
        self._write_addresses(inventory, living)
        if not self._written:
            self._sweep()
        fresh = self._write_policies(compiled)
        changed = self._assign(cgroups, compiled)
        if fresh or changed:
            self.maps.rejudge()
            kept = [(i, len(p.rule_ids)) for i, p in self._written.values()]
            self.maps.remove_policies(kept)
        here = {pod.workload for pod in living.values()}
        return Applied(
            sum(pod.workload in compiled for pod in living.values()),
            fresh,
            tuple(sorted(set(compiled) - here)),
        )

    def _sweep(self) -> None:
        """Delete what a write that failed, or a process that died in one, has left."""
        _, pods = self.maps.read("pods")
        known = self.state.known()
        used = {int(policy) for policy in pods["policy"] if policy}
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

    def _assign(self, cgroups: dict[int, Pod], compiled: dict[Workload, CompiledPolicy]) -> int:
        keys, values = self.maps.read("pods")
        now = {int(k): v for k, v in zip(keys, values, strict=True)}
        changed = 0
        for cgroup in now:
            pod = cgroups.get(cgroup)
            policy = compiled.get(pod.workload) if pod else None
            number = self._written[policy.workload][0] if policy else 0
            wanted = (
                (number, policy.mode, policy.established, policy.restricted) if policy else (0,) * 4
            )
            if tuple(now[cgroup])[:4] != tuple(int(x) for x in wanted):
                self.maps.assign(cgroup, number, policy)
                changed += 1
        return changed

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

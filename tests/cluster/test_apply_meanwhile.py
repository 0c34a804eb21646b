"""Applying while somebody else writes the same object: status does not matter, content does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from localcluster.control import ControlPlane

from portforge.kube._refused import RefusedError
from portforge.kube.apply import apply_policies, confirm, plan
from portforge.kube.client import connect
from portforge.kube.policies import from_object, read_policy
from portforge.policy import Mode, PortPolicy
from portforge.schema import Workload

from .people import GROUP, install_crds, person

PATH = f"{GROUP}/namespaces/default/portpolicies/web"
LATER = datetime(2099, 1, 1, tzinfo=UTC)
WEB = PortPolicy(
    namespace="default", name="web", workload=Workload("default", "Deployment", "web"), ingress=()
)


def test_status_written_meanwhile_is_no_conflict_and_a_change_is(api_server: ControlPlane) -> None:
    """The agents' status write made ``apply`` and ``confirm`` fail at random."""
    install_crds(api_server)
    admin = person(api_server, "admin", "system:masters")
    now = datetime.now(UTC).replace(microsecond=0)

    def say(nodes: int) -> None:
        said = admin.merge(f"{PATH}/status", {"status": {"nodes": nodes}})
        assert said.code == 200, said.message

    with connect(api_server.kubeconfig) as api:

        def enforce(meanwhile: Callable[[], object]) -> None:
            live = read_policy(api, "default", "web")
            planned = plan(WEB, live, user="ben", mode=Mode.ENFORCE, now=now, confirm_before=LATER)
            meanwhile()
            apply_policies(api, [planned])

        apply_policies(api, [plan(WEB, None, user="ana", mode=None, now=now)])
        enforce(lambda: say(1))
        live = read_policy(api, "default", "web")
        assert live
        assert live.policy
        assert live.policy.mode is Mode.ENFORCE
        say(2)
        confirm(api, live)
        assert from_object(admin.get(PATH).body).confirm_before is None
        with pytest.raises(RefusedError, match="somebody else changed it"):
            enforce(lambda: admin.merge(PATH, {"spec": {"egress": []}}))

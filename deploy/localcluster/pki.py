"""Certificates and kubeconfigs of a cluster that lives for an hour. Not for anything else."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["Pki"]


class Pki:
    """The authority of one cluster, below ``folder``. Made once; kept for users that come later."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self.server = folder, server
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = folder / "ca.pem"
        key = folder / "ca-key.pem"
        if key.exists():
            self._ca = trustme.CA.from_pem(self.authority.read_bytes(), key.read_bytes())
        else:
            self._ca = trustme.CA(organization_name="portforge local cluster")
            self._ca.cert_pem.write_to_path(self.authority)
            self._ca.private_key_pem.write_to_path(key)
            subprocess.run(
                ["openssl", "genrsa", "-out", folder / "accounts.pem", "2048"],
                check=True,
                capture_output=True,
            )

    @property
    def accounts(self) -> Path:
        """The key that signs ServiceAccounts' tokens."""
        return self.folder / "accounts.pem"

    def certificate(
        self, name: str, *addresses: str, common_name: str = "", group: str = ""
    ) -> tuple[Path, Path]:
        """Certificate and key, for a server at ``addresses`` or a user of ``group``."""
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        if not key.exists():
            made = self._ca.issue_cert(
                # A user's needs an address too: Go refuses an empty list of alternative names.
                *(addresses or ("user.invalid",)),
                common_name=common_name or name,
                organization_name=group or None,
                not_after=datetime.now(UTC) + timedelta(days=90),
            )
            made.cert_chain_pems[0].write_to_path(chain)
            made.private_key_pem.write_to_path(key)
        return chain, key

    def kubeconfig(self, user: str, group: str = "", namespace: str = "default") -> Path:
        """A kubeconfig of its own for ``user``, whom the API server knows by certificate."""
        name = "user-" + user.replace(":", "-")
        chain, key = self.certificate(name, common_name=user, group=group)
        path = self.folder / f"{name}.kubeconfig"

        def data(file: Path) -> str:
            return b64encode(file.read_bytes()).decode()

        cluster = {"server": self.server, "certificate-authority-data": data(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "clusters": [{"name": "local", "cluster": cluster}],
            "contexts": [
                {
                    "name": "local",
                    "context": {"cluster": "local", "user": user, "namespace": namespace},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": data(chain),
                        "client-key-data": data(key),
                    },
                }
            ],
        }
        path.write_text(json.dumps(content, indent=1))
        path.chmod(0o600)
        return path

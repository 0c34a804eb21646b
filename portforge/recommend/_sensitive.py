"""Ports that give away a host, a cluster or its data: the one list of them. Judges nothing.

Names are those of IANA's service registry where the port is registered
(https://www.iana.org/assignments/service-names-port-numbers) and end in ``*`` where the use is
custom and the registry knows the port under another name or not at all. Which ports are sensitive
is our own choice: who gets in there can run commands, read a store, or change the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from portforge.schema import Protocol

__all__ = ["SENSITIVE", "sensitive_name"]

_TCP = {
    # Remote shells and desktops
    22: "ssh",
    23: "telnet",
    512: "exec",
    513: "login",
    514: "shell",
    3389: "ms-wbt-server (RDP)",
    5900: "rfb (VNC)",
    5985: "wsman (WinRM)",
    5986: "wsmans (WinRM)",
    # Files and directories
    111: "sunrpc",
    135: "epmap (Microsoft RPC)",
    139: "netbios-ssn",
    389: "ldap",
    445: "microsoft-ds (SMB)",
    636: "ldaps",
    873: "rsync",
    2049: "nfs",
    3268: "msft-gc (LDAP global catalogue)",
    3269: "msft-gc-ssl",
    # Databases, caches, search, queues
    1433: "ms-sql-s",
    1521: "ncube-lm (Oracle)*",
    2181: "eforward (ZooKeeper)*",
    3306: "mysql",
    5432: "postgresql",
    5672: "amqp",
    5984: "couchdb",
    6379: "redis",
    6380: "Redis over TLS*",
    7000: "afs3-fileserver (Cassandra)*",
    8086: "InfluxDB*",
    8123: "ClickHouse*",
    9000: "cslistener (ClickHouse, MinIO)*",
    9042: "Cassandra*",
    9092: "XmlIpcRegSvc (Kafka)*",
    9200: "wap-wsp (Elasticsearch)*",
    9300: "vrace (Elasticsearch)*",
    11211: "memcache",
    15672: "RabbitMQ management*",
    26257: "CockroachDB*",
    27017: "MongoDB*",
    27018: "MongoDB*",
    50000: "Db2*",
    # The cluster and its hosts
    2375: "docker",
    2376: "docker-s",
    2379: "etcd-client",
    2380: "etcd-server",
    4194: "cAdvisor*",
    6443: "sun-sr-https (Kubernetes API)*",
    8200: "trivnet1 (Vault)*",
    8500: "fmtp (Consul)*",
    10250: "kubelet*",
    10255: "kubelet, read only*",
    10257: "kube-controller-manager*",
    10259: "kube-scheduler*",
}
_UDP = {
    69: "tftp",
    111: "sunrpc",
    161: "snmp",
    389: "ldap",
    623: "asf-rmcp (IPMI)",
    1434: "ms-sql-m",
    11211: "memcache",
}

SENSITIVE: Mapping[tuple[str, int], str] = MappingProxyType(
    {(str(Protocol.TCP), port): name for port, name in _TCP.items()}
    | {(str(Protocol.UDP), port): name for port, name in _UDP.items()}
)
"""(protocol, port) → name."""


def sensitive_name(protocol: str, *ports: int | None) -> str | None:
    """The name of the first port that is on the list; None where none is.

    Parameters
    ----------
    ports: a Service's port and that of the pod behind it, where both are known.

    >>> sensitive_name("TCP", 80, 5432)
    'postgresql'
    """
    found = (SENSITIVE.get((str(protocol), port)) for port in ports if port is not None)
    return next((name for name in found if name is not None), None)

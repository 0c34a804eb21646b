"""Rendered chart in, plain manifests out: sorted, without what speaks of Helm. For kustomize."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

HEAD = "# Written by scripts/kustomize from the chart; change that.\n"
ORDER = ("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role")


def plain(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without Helm's labels and hooks; CRDs first, then by kind and name.

    >>> one = {"kind": "Service", "metadata": {"name": "a", "labels": {"helm.sh/chart": "x-1"}}}
    >>> plain([one])
    [{'kind': 'Service', 'metadata': {'name': 'a'}}]
    """
    kept = []
    for document in documents:
        if "helm.sh/hook" in document["metadata"].get("annotations", {}):
            continue
        _strip(document)
        kept.append(document)
    return sorted(kept, key=lambda d: (_rank(d["kind"]), d["kind"], d["metadata"]["name"]))


def _rank(kind: str) -> int:
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _strip(value: object) -> None:
    if isinstance(value, list):
        for one in value:
            _strip(one)
    if not isinstance(value, dict):
        return
    labels = value.get("labels")
    if isinstance(labels, dict):
        labels.pop("helm.sh/chart", None)
        labels.pop("app.kubernetes.io/managed-by", None)
        if not labels:
            del value["labels"]
    for key, one in value.items():
        if isinstance(one, str) and "\n" in one:
            value[key] = LiteralScalarString(one)
        else:
            _strip(one)


def main(source: TextIO, target: TextIO) -> None:
    """Read documents from ``source``, write them to ``target``."""
    yaml = YAML(typ="rt")
    yaml.width = 4096
    yaml.explicit_start = True
    read = [d for d in YAML(typ="safe").load_all(source) if d]
    target.write(HEAD)
    yaml.dump_all(plain(read), target)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)

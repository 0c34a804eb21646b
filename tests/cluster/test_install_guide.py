"""docs/install.md, followed word for word on a real cluster, and what it promises on the way.

Every ``sh`` block is run, in order, but those marked ``<!-- not run: reason -->``. A comment
``<!-- exit 3 -->`` before a block names its exit code; a ``text`` block after it names lines that
it prints, in this order, with … for anything. What people do between two steps, such as waiting
for days, is in :data:`BETWEEN`. That each command does its work in full is for other tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusterdemo.shop import Shop
from localcluster.binaries import BINARIES
from localcluster.cluster import Cluster
from ruamel.yaml import YAML

from tests.cluster.release import ROOT, until

GUIDE = ROOT / "docs/install.md"
_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_SECTION = re.compile(r"^## (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of the guide."""

    section: str
    kind: str
    text: str
    mark: str = ""
    promised: str = ""

    @property
    def run(self) -> bool:
        return self.kind == "sh" and not self.mark.startswith("not run")

    @property
    def exit(self) -> int:
        return int(self.mark.removeprefix("exit ")) if self.mark.startswith("exit ") else 0


def blocks(guide: str) -> Iterator[Block]:
    """The blocks of ``guide``; a block of output belongs to the one right before it."""
    found = list(_FENCE.finditer(guide))
    for i, here in enumerate(found):
        if here["kind"] == "text":
            continue
        after = found[i + 1] if i + 1 < len(found) else None
        follows = after and after["kind"] == "text" and after.start() == here.end() + 1
        section = _SECTION.findall(guide, 0, here.start())[-1]
        yield Block(
            section,
            here["kind"],
            here["text"],
            here["mark"] or "",
            after["text"] if after and follows else "",
        )


def missing(promised: str, printed: str) -> str:
    """The first promised line that was not printed after those before it, or nothing."""
    place = 0
    for line in promised.splitlines():
        wanted = re.escape(line).replace("…", ".*")
        found = re.compile(rf"^.*{wanted}", re.MULTILINE).search(printed, place)
        if not found:
            return line
        place = found.end()
    return ""


def test_promises_are_looked_for_in_order() -> None:
    printed = "one of 3 nodes\ntwo\nthree"
    assert not missing("one of … nodes\nthree", printed)
    assert missing("three\ntwo", printed) == "two"
    assert missing("four", printed) == "four"


def test_little_is_left_out_and_with_a_reason() -> None:
    found = [b for b in blocks(GUIDE.read_text()) if b.kind == "sh"]
    assert all(re.fullmatch(r"(exit \d|not run: .+)?", b.mark) for b in found)
    left_out = [b.text for b in found if not b.run]
    assert len(left_out) == 4, left_out
    assert len(found) - len(left_out) >= 20


@dataclass
class Reader:
    """Somebody who follows the guide on ``cluster``."""

    cluster: Cluster
    folder: Path
    shop: Shop

    def __post_init__(self) -> None:
        (self.folder / "deploy").symlink_to(ROOT / "deploy")
        self.guide = list(blocks(GUIDE.read_text()))
        self.values = self.folder / "values.yaml"
        example = next(b.text for b in self.guide if b.kind == "yaml")
        self.values.write_text(json.dumps(self._for_this_machine(YAML(typ="safe").load(example))))

    def _for_this_machine(self, values: dict[str, Any]) -> dict[str, Any]:
        """The guide's values, with what this cluster needs: no registry, one disk, and haste."""
        for image in ("agent", "loader"):
            values["image"][image] = {"repository": f"localhost/portforge-{image}"}
        values["agent"] = {"extraArgs": ["--interval=1", "--rotate=5"]}
        for setting in self.cluster.chart_values:
            path, _, value = setting.partition("=")
            *way, last = path.split(".")
            place = values
            for step in way:
                place = place.setdefault(step, {})
            place[last] = value
        # What earlier tests recorded stays on the nodes, as the guide says.
        values["capture"]["hostPath"] = str(self.captured)
        return values

    @property
    def captured(self) -> Path:
        """Where this run's agents write."""
        return self.cluster.folder / "host" / f"guide-{os.getpid()}"

    def names(self) -> dict[str, str]:
        """What the guide has its reader fill in."""
        person = self.cluster.plane.pki.kubeconfig
        return {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            **{name.upper(): str(person(name)) for name in ("ana", "ben", "olga")},
            "VALUES": str(self.values),
            "APP": "shop",
            "POLICY": "deployment-web",
        }

    def type(self, block: Block) -> None:
        """Run it as it stands; its exit code and what it promised to print must be right."""
        path = f"{Path(sys.executable).parent}:{BINARIES}:{os.environ['PATH']}"
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=os.environ | self.names() | {"PATH": path, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=330,
        )
        told = f"## {block.section}\n{block.text}{done.stdout}"
        print(f"{told}[{done.returncode}, {time.monotonic() - started:.1f} s]\n")
        assert done.returncode == block.exit, told
        assert not missing(block.promised, done.stdout), told

    # What happens between the steps.

    def days_pass(self) -> None:
        """The application does all that it does, its job too, and the agents write it down."""
        self.shop.start()
        until("the CronJob", self._job_done, 100)
        self.shop.during(lambda: None, 20)
        time.sleep(15)  # until the agents have closed the file

    def _job_done(self) -> bool:
        seen = self.cluster.kubectl(
            *("-n", "shop", "get", "jobs", "-o", "jsonpath={.items[*].status.succeeded}")
        )
        return "1" in seen

    def intruder(self) -> None:
        """Somebody who broke in connects to what no policy allows; in Audit that works."""
        self.shop.plant()
        until("the backdoor", lambda: self.shop.backdoor()["connected"])
        time.sleep(15)  # until the agents have closed the file

    def enforced(self) -> None:
        """The application goes on, the intruder does not."""
        self.shop.plant()
        assert not self.shop.backdoor()["connected"]
        assert self.shop.ask(23) == {"ok": 23, "failed": 0}

    def lifted(self) -> None:
        """Nothing of ours is left in the kernel."""
        left = list(Path("/sys/fs/bpf/portforge").glob(f"{self.cluster.name}-node-*"))
        assert not left, left
        assert self.shop.backdoor()["connected"]
        assert self.shop.ask(23) == {"ok": 23, "failed": 0}


BETWEEN: dict[str, Callable[[Reader], None]] = {
    "6. Learn": Reader.days_pass,
    "8. Look at what would be denied": Reader.intruder,
    "10. The ways out": Reader.enforced,
    "11. Upgrade": Reader.enforced,
    "12. Uninstall": Reader.enforced,
}
"""Before the first command of a section."""


@pytest.fixture
def reader(cluster: Cluster, tmp_path: Path) -> Iterator[Reader]:
    """A reader on a cluster without the chart; whatever happens, it is without it afterwards."""
    reader = Reader(cluster, tmp_path, Shop(cluster.kubectl))
    try:
        yield reader
    finally:
        helm = [str(BINARIES / "helm"), "uninstall", "portforge", "-n", "portforge"]
        subprocess.run(
            [*helm, "--ignore-not-found", "--timeout=120s"],
            env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
            check=False,
        )
        cluster.kubectl("delete", "namespace", "portforge", "--ignore-not-found", "--timeout=90s")
        reader.shop.stop()
        shutil.rmtree(reader.captured, ignore_errors=True)


@pytest.mark.timeout(900)
def test_the_guide_works_word_for_word(reader: Reader) -> None:
    asked = next(b.text for b in reader.guide if b.section == "1. Names")
    assert re.findall(r"^export (\w+)=", asked, re.MULTILINE) == list(reader.names())
    section = ""
    for block in filter(lambda b: b.run, reader.guide):
        if block.section != section and block.section in BETWEEN:
            BETWEEN[block.section](reader)
        section = block.section
        reader.type(block)
    reader.lifted()

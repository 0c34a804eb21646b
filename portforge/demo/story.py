"""The demo's story: the whole loop on the shop, told with the real commands and checked.

Everything the reader sees run is the ``portforge`` command itself. What the servers, the client
and the intruder met is counted by them, not here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from portforge.capture import open_capture
from portforge.demo.application import Shop
from portforge.demo.pods import Node, sweep
from portforge.demo.telling import PORTFORGE, Telling, counted, delete, interruptible
from portforge.errors import PortforgeError

__all__ = ["Story", "record_dataset", "tell_without_kernel"]

NODE = "demo-node"


@dataclass
class Story(Telling):
    """One run of the demo, writing below ``folder``.

    Parameters
    ----------
    folder: where capture, policies and the notebook go; what an earlier run left is replaced.
    seconds: how long the application is watched.
    """

    folder: Path = Path("out/demo")
    seconds: float = 30.0

    def tell(self) -> bool:
        """Run it; True when everything went as promised. Cleans up after itself, always."""
        sweep()
        for name in ("capture", "enforced", "review", "state", "pods.yaml"):
            delete(self.folder / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with interruptible(), Node(name=NODE) as node, unloaded(node.name):
            node.write_inventory(self.inventory)
            shop = Shop(node)
            try:
                with self.recorder(node, "capture", rotate=300):
                    self._watch(shop)
                self.recommend(self.folder / "capture")
                self._approve()
                with self.recorder(node, "enforced", rotate=2):
                    self._audit(shop)
                    self._enforce(shop)
                    self._roll_back(shop)
            finally:
                shop.stop()
        self.notebook(self.folder / "capture")
        self._summary()
        return all(good for _, _, good in self.checks)

    @property
    def inventory(self) -> Path:
        """The file that says who is who, kept up to date by the test bed."""
        return self.folder / "pods.yaml"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "COLUMNS": str(self.console.width),
            "PORTFORGE_INVENTORY": str(self.inventory),
            "PORTFORGE_STATE": str(self.folder / "state"),
        }

    @contextmanager
    def recorder(self, node: Node, name: str, rotate: float) -> Iterator[None]:
        """The recorder, a process of its own, writing the capture ``name``."""
        words = ["record", "--capture", str(self.folder / name), "--kubepods", str(node.kubepods)]
        words += ["--interval", "1", "--rotate", str(rotate)]
        self.console.print(f"[dim]$ portforge {' '.join(words)} &[/]", soft_wrap=True)
        process = subprocess.Popen(
            [PORTFORGE, *words], env=self.environment(), stderr=subprocess.PIPE, text=True
        )
        try:
            self._wait_for_programs(node.name, process)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
            self.console.print(f"[dim]{(told.strip().splitlines() or [''])[-1]}[/]")
        if process.returncode:
            raise PortforgeError(f"the recorder ended with exit code {process.returncode}: {told}")

    def _wait_for_programs(self, node: str, process: subprocess.Popen[str]) -> None:
        from portforge.apply.node import NodeMaps, find_pins
        from portforge.errors import HostError

        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                with NodeMaps(find_pins(node)) as maps:
                    if maps.config()["ready"]:
                        return
            except (HostError, OSError):
                pass
            time.sleep(0.1)
        process.kill()
        raise PortforgeError(f"the recorder did not start: {process.communicate()[1].strip()}")

    def load(self, shop: Shop, seconds: float, text: str) -> dict[str, int]:
        """Let the client work for so long, with a bar; what it counted meanwhile."""
        before = shop.totals()
        columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(text, total=seconds)
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                progress.update(task, completed=seconds - left)
                time.sleep(min(0.25, left))
        return {name: count - before[name] for name, count in shop.totals().items()}

    def _watch(self, shop: Shop) -> None:
        self.say(
            "1. A small real application, watched",
            "nginx, a Python web app, redis, postgres, dnsmasq and a client, each in a pod of "
            "its own; an intruder that scans, a listener nobody uses, a job that runs once.",
        )
        started = shop.start()
        self.console.print(f"  started: {counted(started)}")
        half = self.seconds / 2
        self.load(shop, half, "the client works")
        self.console.print(f"  job 'report' ran once: {counted(shop.report())}")
        self.scan_before = shop.scan()
        self.console.print(f"  the intruder scans web: TCP {counted(self.scan_before['tcp'])}")
        served = self.load(shop, half, "the client works")
        self.check("the application answers while recorded", counted(served), not served["failed"])

    def recommend(self, capture: Path) -> None:
        """Learn the policies from ``capture``."""
        self.say("2. A policy for each workload, learned from what was answered")
        self.run("recommend", str(capture), "-o", str(self.folder / "review"))

    def _approve(self) -> None:
        self.say(
            "3. Approval",
            f"{self.seconds:.0f} seconds of traffic are far too little evidence, and portforge "
            "says so:",
        )
        policies = str(self.folder / "review" / "policies")
        self.run("approve", policies, "--by", "demo", expect=1)
        self.console.print(
            "For the demo only we accept that aloud. The intruder's own policy is left out: web "
            "must hold without its help."
        )
        (self.folder / "review" / "policies" / "shop" / "pod-intruder.yaml").unlink()
        self.run("approve", policies, "--by", "demo", "--insufficient-evidence-accepted")

    def _audit(self, shop: Shop) -> None:
        self.say("4. Audit: everything passes, what would have been denied is recorded")
        self.run("apply", str(self.folder / "review" / "policies"), "--mode", "audit")
        backdoor = shop.backdoor()
        held = shop.hold()
        shop.scan()
        served = self.load(shop, 6, "the client works")
        self.check("the application answers in Audit", counted(served), not served["failed"])
        self.check("the backdoor still opens in Audit", counted(backdoor), backdoor["connected"])
        self.check("a forbidden connection is open", counted(held), held["state"] == "open")
        rows = open_capture(self.folder / "enforced").flows()
        audited = rows[rows["verdict"] == "audited"]
        table = Table("workload", "direction", "port", "peer", "connections", box=None)
        names = ["workload", "direction", "port", "peer_workload", "peer_ip"]
        edges = audited.groupby(names, dropna=False, observed=True)["connections"].sum()
        shown = edges.sort_values(ascending=False, kind="stable").head(8).reset_index()
        for row in shown.to_dict("records"):
            peer = row["peer_workload"] if isinstance(row["peer_workload"], str) else row["peer_ip"]
            cells = (row["workload"], row["direction"], row["port"], peer, row["connections"])
            table.add_row(*map(str, cells))
        self.console.print(table)
        self.check(
            "would have been denied", f"{int(audited['connections'].sum())} connections on "
            f"{len(edges)} ports and peers", len(edges) > 0
        )  # fmt: skip

    def _enforce(self, shop: Shop) -> None:
        self.say("5. Enforce: the kernel refuses what was never needed")
        self.run("apply", str(self.folder / "review" / "policies"), "--mode", "enforce")
        served = self.load(shop, 6, "the client works")
        self.check("the application answers under load", counted(served), not served["failed"])
        asked = shop.ask(23)
        self.check("23 requests at once", counted(asked), asked["ok"] == 23)
        scan = shop.scan()["tcp"]
        self.check("the scan finds no open port", counted(scan), not scan["open"])
        backdoor = shop.backdoor()
        self.check("the backdoor is refused", counted(backdoor), not backdoor["connected"])
        until = time.monotonic() + 15
        while shop.held()["state"] == "open" and time.monotonic() < until:
            time.sleep(0.2)
        held = shop.held()
        self.check("the forbidden connection is cut", counted(held), held["state"] == "cut")
        self.run("status")

    def _roll_back(self, shop: Shop) -> None:
        self.say("6. Rollback: everything as before")
        self.run("rollback", "--all")
        asked = shop.ask(23)
        self.check("the application answers", counted(asked), asked["ok"] == 23)
        scan = shop.scan()["tcp"]
        same = scan["open"] >= self.scan_before["tcp"]["open"] and not scan["timeout"]
        self.check("the scan finds what it found before", counted(scan), same)
        backdoor = shop.backdoor()
        self.check("the backdoor opens again", counted(backdoor), backdoor["connected"])

    def notebook(self, capture: Path) -> None:
        """Render the analyst's notebook on ``capture``."""
        from portforge.demo.notebook import render_notebook

        self.say("7. The analyst's notebook on this capture")
        with self.console.status("running the notebook"):
            page = render_notebook(capture, self.folder / "notebook.html")
        self.console.print(f"  {page}")

    def _summary(self) -> None:
        self.summary()
        self.say("Where everything lies")
        for name in ("capture", "enforced", "review", "notebook.html"):
            self.console.print(f"  {self.folder / name}")


def tell_without_kernel(folder: Path, console: Console, capture: Path) -> None:
    """What is possible without root or BPF: recommend and the notebook, on a shipped capture."""
    story = Story(console, folder)
    folder.mkdir(parents=True, exist_ok=True)
    delete(folder / "review")
    story.recommend(capture)
    story.notebook(capture)


def record_dataset(folder: Path, console: Console, seconds: float) -> None:
    """Record the shop into ``folder``: the capture that is shipped."""
    sweep()
    work = folder.with_name(f".{folder.name}-new")
    delete(work)
    work.mkdir(parents=True)
    story = Story(console, work, seconds)
    try:
        with interruptible(), Node(name=NODE) as node, unloaded(node.name):
            node.write_inventory(story.inventory)
            shop = Shop(node)
            try:
                with story.recorder(node, "capture", rotate=seconds + 300):
                    story._watch(shop)
            finally:
                shop.stop()
        delete(folder / "v1")
        folder.mkdir(parents=True, exist_ok=True)
        (work / "capture" / "v1").rename(folder / "v1")
    finally:
        delete(work)


@contextmanager
def unloaded(node: str) -> Iterator[None]:
    """Nothing of ``node`` stays in the kernel after this, nor was there before."""
    from portforge_recorder.load import remove, versions

    def clear() -> None:
        for pins in versions(node):
            remove(pins)

    clear()
    try:
        yield
    finally:
        clear()

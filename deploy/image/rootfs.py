"""Copy some Debian packages, and what they depend on, into an empty root folder. No shell, no apt.

Runs in the build stage, under its python. ``rootfs.py OUT [--beyond PACKAGE...] -- PACKAGE...``:
``--beyond`` names packages whose files are there already, from a layer below.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

SKIPPED = frozenset(
    # Needed to install a package, not to run it; libnsl2 serves python's nis module alone.
    # Not tzdata: pyarrow needs its UTC, which is all of it that is copied.
    (
        "debconf",
        "debconf-2.0",
        "dpkg",
        "install-info",
        "libnsl2",
        "perl-base",
        "readline-common",
    )
)
UNUSED = re.compile(
    r"/usr/share/(?!doc/[^/]+/copyright$|zoneinfo/(Etc/)?UTC$)"
    r"|/__pycache__(/|$)"
    r"|/gconv/"
    r"|/usr/lib/python3[^/]*/(ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo|turtle\.py)"
    r"|/usr/(s?bin|lib/valgrind|lib/debug|include)/(?!python3)"
    r"|^/etc/(?!os-release|debian_version|nsswitch\.conf|passwd|group|ssl)"
    r"|^/var/"
)
MERGED = ("bin", "sbin", "lib", "lib64")
STATUS = "var/lib/dpkg/status.d"
EMPTY = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/local/bin", STATUS)
EXTRA = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")


def dpkg(*what: str) -> str:
    """The answer of dpkg-query."""
    return subprocess.run(["dpkg-query", *what], check=True, capture_output=True, text=True).stdout


def installed() -> dict[str, list[list[str]]]:
    """What each package, real or provided, depends on: a list of choices."""
    found: dict[str, list[list[str]]] = {}
    provided: dict[str, str] = {}
    fields = "${Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    for line in dpkg("-W", "-f", fields).splitlines():
        name, needs, provides = line.split("\t")
        found[name] = [
            [re.split(r"[ :(]", one.strip())[0] for one in need.split("|")]
            for need in needs.split(",")
            if need.strip()
        ]
        provided |= {re.split(r"[ :(]", p.strip())[0]: name for p in provides.split(",") if p}
    return {name: [[real]] for name, real in provided.items() if name not in found} | found


def closure(packages: list[str], needs: dict[str, list[list[str]]]) -> set[str]:
    """The packages and everything that they need to run."""
    done: set[str] = set()
    todo = list(packages)
    while todo:
        name = todo.pop()
        if name in done or name in SKIPPED:
            continue
        done.add(name)
        for choice in needs[name]:
            todo += [one for one in choice if one in needs][:1]
    return done


def copy(path: str, out: Path) -> None:
    """One file or link, below the root folder ``out``; its parents follow /usr."""
    source, target = Path(path), out / path.lstrip("/")
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and not target.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)


def main() -> None:
    """Make the root folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--beyond", nargs="*", default=[])
    parser.add_argument("packages", nargs="+")
    asked = parser.parse_args()
    needs = installed()
    wanted = closure(asked.packages, needs) - closure(asked.beyond, needs)
    for name in MERGED:
        folder = asked.out / "usr" / name
        folder.mkdir(parents=True, exist_ok=True)
        (asked.out / name).symlink_to(f"usr/{name}")
    for name in EMPTY:
        (asked.out / name).mkdir(parents=True, exist_ok=True)
    (asked.out / "tmp").chmod(0o1777)
    for name in sorted(wanted):
        try:
            files = dpkg("-L", name).splitlines()
        except subprocess.CalledProcessError:
            continue  # a name that another package provides
        for path in files:
            if not UNUSED.search(path):
                copy(path, asked.out)
        # Where scanners look in images without dpkg.
        (asked.out / STATUS / name).write_text(dpkg("-s", name))
    for path in () if asked.beyond else EXTRA:
        copy(path, asked.out)


if __name__ == "__main__":
    main()

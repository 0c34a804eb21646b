"""Copy the kernel headers that compiling bpf/ opens, and no others. Runs in the build stage.

Compiles as the loader does, under strace. Here the kernel may refuse the maps; by then the
compiler has read every header. The folders keep their places: the loader finds them as always.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from portforge_recorder import load

PLACE = "/usr/src/"
TRACE = ("strace", "-f", "-qq", "-y", "-e", "trace=openat,open", "-o")


def request() -> str:
    """What the loader is asked: true sources and flags; offsets of no kernel in particular."""
    sources = [load.sources() / name for name in load.SOURCES]
    text = "".join(one.read_text() for one in sources)
    names = set(re.findall(r"\bPF_\w+", text)) - set(re.findall(r"#define\s+(PF_\w+)", text))
    place, flags = load.headers()
    return json.dumps(
        {
            "sources": [str(one) for one in sources],
            "flags": [*flags, *(f"-D{name}=1" for name in sorted(names))],
            "headers": str(place),
            "programs": {},
            "maps": [],
            "folder": "/nowhere",
        }
    )


def main(out: Path) -> None:
    """Trace, then copy."""
    loader = Path(load.__file__).with_name("loader.py")
    trace = Path("/tmp/trace")  # noqa: S108
    done = subprocess.run(
        [*TRACE, str(trace), "/usr/bin/python3", str(loader)],
        input=request(),
        capture_output=True,
        text=True,
        check=False,
    )
    if re.search(r":\d+: (fatal )?error:", done.stderr):
        sys.exit(done.stderr)
    opened = {Path(name) for name in re.findall(rf"<({PLACE}[^>]+)>", trace.read_text())}
    files = sorted(one for one in opened if one.is_file())
    if not any(one.name == "bpf.h" for one in files):
        sys.exit(f"the compiler read no kernel headers:\n{done.stderr}")
    for one in files:
        target = out / one.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(one, target)
    # The loader gives these as -I; the compiler complains of none that is missing, but load.py
    # knows the headers by them.
    for flag in json.loads(request())["flags"]:
        if flag.startswith("-I"):
            (out / flag.removeprefix("-I/")).mkdir(parents=True, exist_ok=True)
    print(f"{len(files)} headers, {sum(one.stat().st_size for one in files) // 1024} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

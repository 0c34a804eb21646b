"""Compile with bcc, load, pin, exit. Run by the distribution's python: only it can import bcc.

Needs nothing but the standard library and bcc. Reads one JSON object on standard input:
``sources`` (files, joined in this order), ``flags``, ``headers`` (folder), ``programs``
({name: [type, attach type]}), ``maps`` (names) and ``folder`` (where to pin).
Answers with one line of JSON; the compiler's complaints go to standard error.
"""

import json
import os
import sys
from pathlib import Path

from bcc import BPF, lib  # type: ignore[import-untyped,attr-defined,unused-ignore]


def main() -> None:
    """Pin every map and every program under the folder that the request names."""
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    text = "#include <linux/in.h>\n" + "".join(
        f'#line 1 "{Path(p).name}"\n{Path(p).read_text()}' for p in request["sources"]
    )
    bpf = BPF(text=text, cflags=request["flags"])
    folder = Path(request["folder"])
    for name, (kind, attach_type) in request["programs"].items():
        function = bpf.load_func(name, kind, attach_type=attach_type)
        pin(function.fd, folder / "programs" / name)
    for name in request["maps"]:
        pin(lib.bpf_table_fd(bpf.module, name.encode()), folder / "maps" / name)
    print(json.dumps({"programs": len(request["programs"]), "maps": len(request["maps"])}))


def pin(fd: int, path: Path) -> None:
    """Pin, or raise with the kernel's reason."""
    if lib.bpf_obj_pin(fd, str(path).encode()) < 0:
        raise OSError(f"cannot pin {path}")


if __name__ == "__main__":
    main()

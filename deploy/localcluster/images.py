"""Images without a registry: built here from the distribution's packages, imported by the nodes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from localcluster.binaries import BINARIES, CACHE
from localcluster.processes import LocalClusterError

__all__ = ["IMAGES", "coredns", "from_packages", "pause", "portforge"]

IMAGES = CACHE / "images"
_PAUSE = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
/* Holds a pod's namespaces and collects its orphans, as registry.k8s.io/pause does. */
static void stop(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void)
{
	struct sigaction ends = {.sa_handler = stop}, child = {.sa_handler = reap};
	sigaction(SIGINT, &ends, 0);
	sigaction(SIGTERM, &ends, 0);
	sigaction(SIGCHLD, &child, 0);
	for (;;)
		pause();
}
"""


def pause() -> Path:
    """The archive of ``localhost/pause:1``."""

    def fill(folder: Path) -> str:
        (folder / "pause.c").write_text(_PAUSE)
        _run("gcc", "-Os", "-static", "-o", folder / "pause", folder / "pause.c")
        return 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n'

    return _archive("pause:1", _PAUSE, fill)


def coredns() -> Path:
    """The archive of ``localhost/coredns:1``, the cluster DNS."""

    def fill(folder: Path) -> str:
        shutil.copy2(BINARIES / "coredns", folder)
        return 'FROM scratch\nCOPY coredns /coredns\nENTRYPOINT ["/coredns"]\n'

    return _archive("coredns:1", str((BINARIES / "coredns").stat().st_size), fill)


def from_packages(name: str, packages: list[str], files: dict[str, str]) -> Path:
    """The archive of ``localhost/<name>``: Debian with ``packages`` and the text ``files``.

    Parameters
    ----------
    name: with a tag, such as ``shop:1``.
    files: path in the image to its content; below /usr/local/bin they can be run.
    """

    def fill(folder: Path) -> str:
        # Servers must not start while they are installed: there is no init here.
        _run(
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "bookworm",
            folder / "base.tar",
        )
        lines = ["FROM scratch", "ADD base.tar /"]
        for number, (path, text) in enumerate(sorted(files.items())):
            file = folder / f"file-{number}"
            file.write_text(text)
            file.chmod(0o755 if path.startswith("/usr/local/bin/") else 0o644)
            lines.append(f"COPY file-{number} {path}")
        return "\n".join(lines) + "\n"

    return _archive(name, repr((packages, sorted(files.items()))), fill)


def portforge() -> list[Path]:
    """The archives of this checkout's loader and agent; seconds when nothing has changed."""
    root = Path(__file__).parent.parent.parent
    output = root / "out" / "images"
    build = root / "deploy" / "image" / "build"
    _run(build, "--base", "auto", "--output", output)
    return sorted(output.glob("portforge-*.tar"))


def _archive(name: str, content: str, fill: Callable[[Path], str]) -> Path:
    """The archive of what ``fill`` puts together; from the cache when ``content`` is the same."""
    mark = hashlib.sha256(content.encode()).hexdigest()[:12]
    archive = IMAGES / f"{name.replace(':', '-')}-{mark}.tar"
    if archive.exists():
        return archive
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=IMAGES) as scratch:
        folder = Path(scratch)
        (folder / "Containerfile").write_text(fill(folder))
        image = f"localhost/{name}"
        new = folder / "image.tar"
        _run("buildah", "bud", "--isolation", "chroot", "--quiet", "--tag", image, folder)
        _run("buildah", "push", "--quiet", image, f"oci-archive:{new}:{image}")
        _run("buildah", "rmi", image)
        new.replace(archive)
    return archive


def _run(*words: str | Path) -> None:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
        raise LocalClusterError(f"{words[0]} failed:\n{last}")

"""The two images are built here, unpacked and run: what is in them, what is not, that they work."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from portforge_recorder import kubepods, load

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "deploy" / "image" / "build"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MEBIBYTE = 2**20
LOADER = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
"""The init container's capabilities; deploy/image/README.md says what each is for."""
NODE = "image-test"
UID = "5f0c1a52-9d1e-4f7a-8f0b-1d2c3b4a5968"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="building images and loading programs needs root"),
    pytest.mark.skipif(
        not all(map(which, ("buildah", "mmdebstrap", "runc"))),
        reason="needs buildah, mmdebstrap and runc",
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of both images; from the cache when nothing has changed."""
    folder = tmp_path_factory.mktemp("images")
    subprocess.run([BUILD, "--base", "auto", "--output", folder], check=True)
    return folder


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """The image's root file system in ``folder``; gives its configuration."""
    with tarfile.open(archive) as oci:

        def blob(digest: str) -> bytes:
            file = oci.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            return file.read()

        index = oci.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        config: dict[str, Any] = json.loads(blob(manifest["config"]["digest"]))
        for layer in manifest["layers"]:
            assert layer["mediaType"] == LAYER
            subprocess.run(["tar", "-xz", "-C", folder], input=blob(layer["digest"]), check=True)
    return config


class Image:
    """An unpacked image that runc runs as the chart does: read-only, root without capabilities."""

    def __init__(self, archive: Path, bundle: Path) -> None:
        self.root = bundle / "rootfs"
        self.root.mkdir(parents=True)
        self.bundle = bundle
        self.config = unpack(archive, self.root)["config"]

    def run(self, *command: str, capabilities: tuple[str, ...] = ()) -> str:
        """What ``command`` writes; the test ends when it fails."""
        (self.bundle / "config.json").unlink(missing_ok=True)
        subprocess.run(["runc", "spec"], cwd=self.bundle, check=True)
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["process"] |= {"terminal": False, "args": command, "env": self.config["Env"]}
        spec["process"]["noNewPrivileges"] = True
        kinds = ("bounding", "effective", "permitted")
        spec["process"]["capabilities"] = {kind: list(capabilities) for kind in kinds}
        spec["root"] = {"path": "rootfs", "readonly": True}
        # hostPID, as in the chart; the network is the pod's own.
        private = ("mount", "network", "ipc", "uts")
        spec["linux"]["namespaces"] = [{"type": kind} for kind in private]
        spec["linux"]["maskedPaths"] = spec["linux"]["readonlyPaths"] = []
        spec["linux"]["cgroupsPath"] = f"/{self.bundle.name}"
        spec["mounts"] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/run/lock", "type": "tmpfs", "source": "tmpfs"},
            bind("/sys", "/sys", "ro"),
            bind("/sys/fs/bpf", "/sys/fs/bpf", "rw"),
            bind("/sys/fs/cgroup", "/host/cgroup", "rw"),
        ]
        (self.bundle / "config.json").write_text(json.dumps(spec))
        done = subprocess.run(
            ["runc", "run", "--bundle", self.bundle, f"{self.bundle.name}-{os.getpid()}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def mebibytes(self) -> float:
        """Its size, unpacked."""
        files = (file.lstat() for file in self.root.rglob("*"))
        return sum(one.st_size for one in files) / MEBIBYTE


def bind(source: str, target: str, mode: str) -> dict[str, object]:
    """A mount for runc."""
    options = ["rbind", "rslave", mode]
    return {"destination": target, "type": "bind", "source": source, "options": options}


@pytest.fixture(scope="module")
def agent(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The agent's image."""
    return Image(archives / "portforge-agent.tar", tmp_path_factory.mktemp("image") / "agent")


@pytest.fixture(scope="module")
def loader(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The loader's image."""
    return Image(archives / "portforge-loader.tar", tmp_path_factory.mktemp("image") / "loader")


@pytest.fixture
def pods() -> Iterator[Path]:
    """A kubepods cgroup with one pod whose server was listening before."""
    top = kubepods.unified_cgroups() / NODE
    inside = top / "kubepods" / f"pod{UID}" / "c1"
    inside.mkdir(parents=True)
    server = subprocess.Popen(
        ["sh", "-c", f"echo $$ >{inside}/cgroup.procs; exec {NOBODY}", "sh", SERVER],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline()
        yield top / "kubepods"
    finally:
        server.kill()
        server.communicate()
        for pins in load.versions(NODE):
            load.remove(pins)
        for folder in (inside, inside.parent, top / "kubepods", top):
            folder.rmdir()


NOBODY = 'unshare -n setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 -c "$1"'
SERVER = """
import socket, time
with socket.socket() as s:
    s.bind(("0.0.0.0", 8080)); s.listen()
    print("listening", flush=True)
    time.sleep(600)
"""


def test_both_say_their_version_and_help_on_a_read_only_root(agent: Image, loader: Image) -> None:
    for image in (agent, loader):
        entry = image.config["Entrypoint"]
        assert image.run(*entry, "--version").startswith("portforge, version ")
        assert "Usage: portforge load" in image.run(*entry, "load", "--help")
        assert image.config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_agent_starts_without_what_analysts_use(agent: Image) -> None:
    modules = "portforge_recorder.agent, portforge_recorder.daemon, portforge_recorder.serve"
    code = f"import {modules}, portforge.cli.load, sys; print(*sorted(sys.modules))"
    loaded = agent.run("/usr/bin/python3", "-c", code).split()
    assert not {"pandas", "duckdb", "sklearn", "plotly", "bcc"} & set(loaded)


def test_the_agent_has_no_shell_no_package_manager_no_compiler(agent: Image) -> None:
    names = {file.name for file in agent.root.rglob("*") if not file.is_dir()}
    assert not names & {"sh", "bash", "dash", "apt", "dpkg", "pip", "cc", "gcc", "libbcc.so.0"}
    assert not [name for name in names if name.startswith(("libLLVM", "libclang"))]


def test_they_stay_small(agent: Image, loader: Image, archives: Path) -> None:
    assert agent.mebibytes() < 270
    assert loader.mebibytes() < 500
    assert (archives / "portforge-agent.tar").stat().st_size < 85 * MEBIBYTE
    assert (archives / "portforge-loader.tar").stat().st_size < 175 * MEBIBYTE


def test_the_loader_compiles_loads_and_takes_the_snapshot(loader: Image, pods: Path) -> None:
    entry = (*loader.config["Entrypoint"], "load", "--node", NODE)
    place = ("--cgroups", "/host/cgroup", "--pod-uid", UID)
    first = json.loads(loader.run(*entry, *place, capabilities=LOADER))
    assert first["adopted"] is False
    assert (first["pods"], first["namespaces"], first["listeners"]) == (1, 1, 1)
    assert first["problem"] is None
    assert Path(first["kubepods"]).name == pods.name
    second = json.loads(loader.run(*entry, *place, capabilities=LOADER))
    assert (second["adopted"], second["pins"]) == (True, first["pins"])


@pytest.mark.usefixtures("pods")
def test_the_agent_adopts_what_the_loader_loaded_with_bpf_alone(
    loader: Image, agent: Image
) -> None:
    place = ("--node", NODE, "--cgroups", "/host/cgroup", "--pod-uid", UID)
    loaded = json.loads(
        loader.run(*loader.config["Entrypoint"], "load", *place, capabilities=LOADER)
    )
    said = agent.run("/usr/bin/python3", "-c", ADOPT, capabilities=("CAP_BPF",))
    assert said.split() == [loaded["programs"], "1"]


ADOPT = f"""
from pathlib import Path
from portforge.apply.node import NodeMaps
from portforge_recorder import load
pins = load.load("{NODE}", load.find_kubepods(root=Path("/host/cgroup"), pod_uid="{UID}"))
with NodeMaps(pins) as maps:
    maps.configure(generation=maps.config()["generation"] + 1)
    print(pins.name, maps.config()["ready"])
"""

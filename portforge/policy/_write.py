"""Files written whole or not at all. The text is ``_yaml``'s."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from portforge.errors import WriteError
from portforge.policy._model import PortPolicy
from portforge.policy._read import parse
from portforge.policy._yaml import canonical, emitter, to_yaml

__all__ = ["replace_files", "with_approvals", "write_policies"]

_SEPARATOR = "---\n"


def _staged(file: Path, text: str) -> Path:
    """Write ``text`` beside ``file`` and wait for the disk to have it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if file.exists():
            temporary.chmod(file.stat().st_mode & 0o7777)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write every file under a temporary name, then rename them all.

    Until all are on the disk none has changed; each rename is atomic. A symbolic link is
    followed: its target is what changes.

    Raises
    ------
    WriteError: the disk is full or a folder cannot be written; nothing was changed.
    """
    staged: dict[Path, Path] = {}
    file = Path()
    try:
        for file, text in ((name.resolve(), text) for name, text in texts.items()):
            file.parent.mkdir(parents=True, exist_ok=True)
            staged[file] = _staged(file, text)
        for file in list(staged):
            staged[file].rename(file)
            del staged[file]
    except OSError as wrong:
        raise WriteError(
            f"cannot be written: {(wrong.strerror or str(wrong)).lower()}",
            place=str(file),
            remedy="check free space and permissions of its folder, then run this again",
        ) from wrong
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def with_approvals(text: str, before: Sequence[PortPolicy], after: Sequence[PortPolicy]) -> str:
    """The file ``text``, which holds ``before``, with the approvals of ``after``.

    A canonical file stays canonical; in any other, comments and order are kept.
    """
    whole = _SEPARATOR.join(map(to_yaml, after))
    if text == _SEPARATOR.join(map(to_yaml, before)):
        return whole
    yaml = emitter()
    yaml.preserve_quotes = True
    kept = [document for document in yaml.load_all(text) if document is not None]
    for document, policy in zip(kept, after, strict=True):
        document["spec"]["approval"] = canonical(policy)["spec"]["approval"]
    out = StringIO()
    yaml.dump_all(kept, out)
    edited = out.getvalue()
    # What is approved must be what is read: rather lose a comment than that.
    return edited if parse(edited) == list(after) else whole


def write_policies(policies: Iterable[PortPolicy], folder: Path) -> list[Path]:
    """Write each policy to ``<folder>/<namespace>/<name>.yaml`` and say where they lie.

    Other files in ``folder`` are left alone.

    Raises
    ------
    WriteError: nothing half-written is left.
    """
    texts = {folder / p.namespace / f"{p.name}.yaml": to_yaml(p) for p in policies}
    replace_files(texts)
    return sorted(texts)

"""System calls on pinned BPF objects, through the distribution's libbpf. No layout, no policy.

Thin over ``libbpf.so.1`` by ctypes: a file descriptor in, bytes out. Every failure is an
``OSError`` with the kernel's errno. Not for compiling programs: bcc does that, in the loader.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from portforge.errors import HostError

__all__ = [
    "Ring",
    "attach_cgroup",
    "attach_raw_tracepoint",
    "clear",
    "delete",
    "detach",
    "insert",
    "link_attached",
    "lookup",
    "map_capacity",
    "map_id",
    "map_sizes",
    "open_pin",
    "opened",
    "pin",
    "program_runs",
    "read_all",
    "update",
    "wait_for_programs",
]

_BATCH = 8192
_MEMBARRIER_CMD_GLOBAL = 1
_BPF_NOEXIST, _BPF_LINK_TYPE_CGROUP = 1, 3
_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}


@cache
def _lib() -> c.CDLL:
    try:
        lib = c.CDLL("libbpf.so.1", use_errno=True)
    except OSError as missing:
        raise HostError(
            "libbpf is missing", place="libbpf.so.1", remedy="install the package libbpf1"
        ) from missing
    lib.bpf_link_create.argtypes = [c.c_int, c.c_int, c.c_int, c.c_void_p]
    count = c.POINTER(c.c_uint32)
    lib.bpf_map_lookup_batch.argtypes = [c.c_int, *(c.c_void_p,) * 4, count, c.c_void_p]
    lib.ring_buffer__new.restype = c.c_void_p
    lib.ring_buffer__new.argtypes = [c.c_int, c.c_void_p, c.c_void_p, c.c_void_p]
    lib.ring_buffer__consume.argtypes = [c.c_void_p]
    lib.ring_buffer__free.argtypes = [c.c_void_p]
    lib.bpf_map_delete_batch.argtypes = [c.c_int, c.c_char_p, count, c.c_void_p]
    return lib


def _done(result: int, what: str) -> int:
    """``result``, or the kernel's error as OSError."""
    if result < 0:
        number = -result if result < -1 else c.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def open_pin(path: Path) -> int:
    """A file descriptor of the object pinned at ``path``; the caller closes it."""
    return _done(_lib().bpf_obj_get(str(path).encode()), str(path))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The object pinned at ``path``, closed at the end."""
    fd = open_pin(path)
    try:
        yield fd
    finally:
        os.close(fd)


def pin(fd: int, path: Path) -> None:
    """Pin ``fd`` at ``path``, which must lie on a bpffs."""
    _done(_lib().bpf_obj_pin(fd, str(path).encode()), str(path))


def attach_cgroup(program: int, cgroup: int, attach_type: int) -> int:
    """A link of ``program`` to the cgroup with descriptor ``cgroup``; the caller pins it."""
    return _done(_lib().bpf_link_create(program, cgroup, attach_type, None), "attach to cgroup")


def attach_raw_tracepoint(name: str, program: int) -> int:
    """A link of ``program`` to a raw tracepoint; the caller pins it."""
    return _done(_lib().bpf_raw_tracepoint_open(name.encode(), program), f"attach to {name}")


def detach(link: int) -> None:
    """End a link to a cgroup now; a pin that is removed goes some time later."""
    _done(_lib().bpf_link_detach(link), "detach")


def lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value under ``key``, None when there is none."""
    value = c.create_string_buffer(value_size)
    result = _lib().bpf_map_lookup_elem(fd, key, value)
    if result < 0 and errno.ENOENT in (-result, c.get_errno()):
        return None
    _done(result, "look up")
    return value.raw


def _info(fd: int) -> list[int]:
    """The first words of ``struct bpf_map_info``, ``bpf_link_info`` or ``bpf_prog_info``."""
    info = (c.c_uint32 * 64)()
    length = c.c_uint32(c.sizeof(info))
    _done(_lib().bpf_obj_get_info_by_fd(fd, info, c.byref(length)), "object info")
    return list(info)


def map_sizes(fd: int) -> tuple[int, int]:
    """Bytes of a key and of a value. The kernel opens a pinned map of any size without a word."""
    _, _, key, value = _info(fd)[:4]  # struct bpf_map_info: type, id, key_size, value_size
    return key, value


def map_capacity(fd: int) -> int:
    """How many entries a map takes at most."""
    return _info(fd)[4]


def program_runs(fd: int) -> tuple[int, int]:
    """Nanoseconds and runs of a program so far; zeros unless kernel.bpf_stats_enabled is on."""
    info = _info(fd)
    # struct bpf_prog_info: run_time_ns and run_cnt at bytes 192 and 200
    return info[48] | info[49] << 32, info[50] | info[51] << 32


def map_id(fd: int) -> int:
    """The number of the map in the kernel."""
    return _info(fd)[1]


def link_attached(fd: int) -> bool:
    """False: detached by hand, or its cgroup was removed. Tracepoints stay."""
    kind, _, _, _, low, high = _info(fd)[:6]  # type, id, prog_id, padding, cgroup_id
    return kind != _BPF_LINK_TYPE_CGROUP or bool(low or high)


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set ``key`` to ``value``, whether or not it was there."""
    _done(_lib().bpf_map_update_elem(fd, key, value, c.c_uint64(0)), "update")


def insert(fd: int, key: bytes, value: bytes) -> bool:
    """Set ``key`` to ``value``; False when it was there, which stays."""
    result = _lib().bpf_map_update_elem(fd, key, value, c.c_uint64(_BPF_NOEXIST))
    if result < 0 and errno.EEXIST in (-result, c.get_errno()):
        return False
    _done(result, "insert")
    return True


def delete(fd: int, key: bytes) -> bool:
    """Delete ``key``; False when it was not there."""
    result = _lib().bpf_map_delete_elem(fd, key)
    if result < 0 and errno.ENOENT in (-result, c.get_errno()):
        return False
    _done(result, "delete")
    return True


def read_all(fd: int, key_size: int, value_size: int, batch: int = _BATCH) -> tuple[bytes, bytes]:
    """Every key and every value of a map, each joined in one run of bytes.

    A bucket larger than the batch makes the kernel answer ENOSPC: the batch is doubled.
    """
    keys_read: list[bytes] = []
    values_read: list[bytes] = []
    position, has_position = c.create_string_buffer(max(key_size, 8)), False
    while True:
        keys = c.create_string_buffer(key_size * batch)
        values = c.create_string_buffer(value_size * batch)
        count = c.c_uint32(batch)
        result = _lib().bpf_map_lookup_batch(
            fd,
            position if has_position else None,
            position,
            keys,
            values,
            c.byref(count),
            None,
        )
        number = -result if result < -1 else (c.get_errno() if result < 0 else 0)
        if number == errno.ENOSPC:
            batch *= 2
            continue
        if number not in (0, errno.ENOENT):
            raise OSError(number, f"read map: {os.strerror(number)}")
        keys_read.append(keys.raw[: count.value * key_size])
        values_read.append(values.raw[: count.value * value_size])
        if number == errno.ENOENT:
            return b"".join(keys_read), b"".join(values_read)
        has_position = True


def clear(fd: int, keys: bytes, key_size: int) -> None:
    """Delete each of ``keys``, joined in one run of bytes; those that are not there are passed by.

    In batches: 50,000 keys take a fifth of the time of one call for each (docs/measured.md).
    The kernel stops at a key that is missing and says how far it came.
    """
    start, end = 0, len(keys) // key_size
    while start < end:
        count = c.c_uint32(min(_BATCH, end - start))
        part = keys[start * key_size : (start + count.value) * key_size]
        result = _lib().bpf_map_delete_batch(fd, part, c.byref(count), None)
        start += count.value
        if result < 0 and errno.ENOENT in (-result, c.get_errno()):
            start += 1
        else:
            _done(result, "delete")


_SAMPLE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_size_t)


class Ring:
    """The reader of a ring buffer map; there may be only one. The caller keeps ``fd`` open."""

    def __init__(self, fd: int) -> None:
        self._records: list[bytes] = []
        self._most = 0
        self._sample = _SAMPLE(self._take)
        self._ring = _lib().ring_buffer__new(fd, self._sample, None, None)
        if not self._ring:
            number = c.get_errno()
            raise OSError(number, f"ring buffer: {os.strerror(number)}")

    def _take(self, _: int | None, record: int, size: int) -> int:
        self._records.append(c.string_at(record, size))
        # Below 0 it stops here; this record is counted as read.
        return 0 if len(self._records) < self._most else -errno.EAGAIN

    def read(self, most: int) -> list[bytes]:
        """At most ``most`` of the records that wait; does not wait itself."""
        self._most = most
        result = _lib().ring_buffer__consume(self._ring)
        records, self._records = self._records, []
        if result != -errno.EAGAIN:
            _done(result, "read ring buffer")
        return records

    def close(self) -> None:
        """Unmap; the map stays."""
        _lib().ring_buffer__free(self._ring)


def wait_for_programs() -> None:
    """Return when every program that was running has ended (``membarrier(2)``, global: RCU)."""
    libc = c.CDLL(None, use_errno=True)
    number = _SYS_MEMBARRIER[os.uname().machine]
    _done(libc.syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0), "membarrier")

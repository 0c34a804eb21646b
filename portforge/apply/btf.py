"""Facts of the running kernel from its BTF: offsets of members, values of enums. Read-only.

Through libbpf, which reads ``/sys/kernel/btf/vmlinux``. Members of unnamed structures and unions
count as members of what holds them, as in C.
"""

from __future__ import annotations

import ctypes as c
import os
from functools import cached_property

from portforge.apply.libbpf import _lib
from portforge.errors import HostError

__all__ = ["KernelTypes"]

_STRUCT, _UNION, _ENUM = 4, 5, 6


class _Type(c.Structure):
    _fields_ = (("name_off", c.c_uint32), ("info", c.c_uint32), ("size", c.c_uint32))


class _Member(c.Structure):
    _fields_ = (("name_off", c.c_uint32), ("type", c.c_uint32), ("offset", c.c_uint32))


class _Value(c.Structure):
    _fields_ = (("name_off", c.c_uint32), ("value", c.c_int32))


class KernelTypes:
    """The types of the running kernel.

    Raises
    ------
    HostError: the kernel carries no BTF.
    """

    @cached_property
    def _btf(self) -> int:
        lib = _lib()
        lib.btf__load_vmlinux_btf.restype = c.c_void_p
        lib.btf__type_by_id.restype = c.c_void_p
        lib.btf__type_by_id.argtypes = [c.c_void_p, c.c_uint32]
        lib.btf__name_by_offset.restype = c.c_char_p
        lib.btf__name_by_offset.argtypes = [c.c_void_p, c.c_uint32]
        lib.btf__find_by_name_kind.argtypes = [c.c_void_p, c.c_char_p, c.c_uint32]
        found = lib.btf__load_vmlinux_btf()
        if not found:
            raise HostError(
                f"the kernel {os.uname().release} carries no type information (BTF)",
                place="/sys/kernel/btf/vmlinux",
                remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF",
            )
        return int(found)

    def _name(self, offset: int) -> str:
        return str(_lib().btf__name_by_offset(self._btf, offset).decode())

    def _find(self, name: str, kind: int) -> int:
        number = int(_lib().btf__find_by_name_kind(self._btf, name.encode(), kind))
        if number < 0:
            raise HostError(f"this kernel has no type {name}", remedy="a kernel from 6.1 on has it")
        return number

    def _members(self, number: int) -> tuple[int, int, int]:
        """Kind, count and address of the members of type ``number``."""
        address = _lib().btf__type_by_id(self._btf, number)
        info = _Type.from_address(address).info
        return (info >> 24) & 0x1F, info & 0xFFFF, address + c.sizeof(_Type)

    def _offset(self, number: int, member: str) -> int | None:
        kind, count, address = self._members(number)
        if kind not in (_STRUCT, _UNION):
            return None
        for i in range(count):
            entry = _Member.from_address(address + i * c.sizeof(_Member))
            here = (entry.offset & 0xFFFFFF) // 8
            name = self._name(entry.name_off)
            if name == member:
                return int(here)
            inner = self._offset(entry.type, member) if not name else None
            if inner is not None:
                return int(here + inner)
        return None

    def offset(self, struct: str, *members: str) -> int:
        """The first of ``members`` that ``struct`` has, in bytes from its start."""
        number = self._find(struct, _STRUCT)
        for member in members:
            found = self._offset(number, member)
            if found is not None:
                return found
        raise HostError(f"struct {struct} has no {' or '.join(members)}", remedy="report it")

    def enum(self, name: str, value: str) -> int:
        """The number of ``value`` in the enum ``name``."""
        _, count, address = self._members(self._find(name, _ENUM))
        for i in range(count):
            entry = _Value.from_address(address + i * c.sizeof(_Value))
            if self._name(entry.name_off) == value:
                return int(entry.value)
        raise HostError(f"enum {name} has no {value}", remedy="a kernel from 6.1 on has it")

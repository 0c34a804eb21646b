"""The node agent: load the BPF programs, attribute, drain, write Parquet, enforce.

Needs root, Linux and the ``node`` extra. It shares with the library only
:mod:`portforge.schema` (what a row is) and :mod:`portforge.apply` (what a map entry is).
"""

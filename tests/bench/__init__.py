"""Measurements. Each script prints the tables that stand in docs/measured.md."""

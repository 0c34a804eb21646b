"""Makes this folder importable, so that every test can ``from flow_rows import row``."""

"""The demo's shop on a real cluster, and the story of `make demo-cluster`."""

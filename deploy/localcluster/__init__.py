"""A real Kubernetes of several nodes on this machine, for the demo and the tests.

Each node is a network namespace with its own containerd, kubelet and kube-proxy; the control plane
runs beside them. Nothing is simulated. For trying Port Policy Forge, not for running anything else.
"""

"""The light test bed and the demo application. No Kubernetes, no BPF: those watch it from outside.

``pods`` makes a node of test pods (network namespaces, veths, cgroups laid out as the kubelet
does), ``application`` starts a small real shop in it, ``story`` tells what happens to it.
"""

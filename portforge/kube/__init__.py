"""The edge to a cluster's API server, for the command line and for the agent.

``client`` connects and asks, ``watch`` follows a collection. Not for what a policy means
(:mod:`portforge.policy`) nor for what is in force on a node (the recorder).
"""

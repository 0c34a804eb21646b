"""Port Policy Forge: watch which ports workloads need, prove it, close the rest.

The public names of the library are those in ``__all__`` of its modules; this file holds
only the version. Start at :mod:`portforge.capture` to read traffic, :mod:`portforge.recommend`
to learn a policy from it, and :mod:`portforge.policy` for what a policy is.
"""

__version__ = "0.1.0"

"""PortPolicy to map entries (pure), then to this node's maps.

``layout`` is contract 3 in Python, ``inventory`` who has which address, ``compile`` the pure
function from policies to entries, ``libbpf`` the system calls, ``node`` this node's pinned maps.
"""

"""The policies of the tests of faults and upgrades, and the echo pods; texts, nothing else."""

ECHO = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: echo, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: localhost/shop:1
        imagePullPolicy: IfNotPresent
        command: [python3, /opt/shop/client.py, listen, --port=8081]
        securityContext: {runAsUser: 65534, runAsGroup: 65534}
"""
_HEAD = """\
apiVersion: portforge.dev/v1alpha1
kind: PortPolicy
metadata: {{namespace: shop, name: {name}}}
spec:
  workload: {{kind: {kind}, name: {workload}}}
"""
_DNS = """\
  - {id: out-udp-53, protocol: UDP, port: 53}
  - {id: out-tcp-53, protocol: TCP, port: 53}
"""
POLICIES = {
    # A pod on every node and no other purpose: the change whose arrival is measured.
    "daemonset-echo": _HEAD.format(name="daemonset-echo", kind="DaemonSet", workload="echo")
    + "  ingress: []\n",
    "deployment-web": _HEAD.format(name="deployment-web", kind="Deployment", workload="web")
    + """\
  ingress:
  - id: in-tcp-8000
    protocol: TCP
    port: 8000
    peers:
    - workload: {namespace: shop, kind: Deployment, name: frontend}
  egress:
"""
    + _DNS
    + """\
  - id: out-tcp-5432
    protocol: TCP
    port: 5432
    peers:
    - workload: {namespace: shop, kind: Deployment, name: postgres}
  - id: out-tcp-6379
    protocol: TCP
    port: 6379
    peers:
    - workload: {namespace: shop, kind: StatefulSet, name: redis}
""",
    "statefulset-redis": _HEAD.format(
        name="statefulset-redis", kind="StatefulSet", workload="redis"
    )
    + """\
  ingress:
  - id: in-tcp-6379
    protocol: TCP
    port: 6379
    peers:
    - workload: {namespace: shop, kind: Deployment, name: web}
  egress: []
""",
}

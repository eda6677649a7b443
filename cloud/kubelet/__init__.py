"""The kubelet of every edge node, served in the cloud: what a cluster's API server connects to for logs, exec, attach and
port-forward, and what metrics-server reads.  No node needs an open port.

serve.py         all of it together
settings.py      where it listens, and what Node objects say of it
auth.py          who asks, and whether the cluster lets them
serving_cert.py  the certificate that is served, where the cluster signs it
server.py        the paths of the kubelet's API, to cloud/node_api and its tunnel
figures.py       /stats/summary, /metrics/resource and /pods (pure)
ports.py         a port for all nodes, and one for each where that is wanted
"""

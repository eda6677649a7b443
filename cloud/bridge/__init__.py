"""A real Kubernetes cluster instead of the standalone API.

credentials.py  where the cluster is and who we are there, from a kubeconfig or from the pod that we run in
client.py       the few requests that are needed, each bounded
kinds.py        what is mirrored, and how it is asked for
wanted.py       which objects some edge needs (pure)
merging.py      whether what the cluster says is news to CLUSTER (pure)
mirror.py       lists and watches into CLUSTER
appends.py      what it writes there, against other replicas
writer.py       writes of the cloud's cores to the cluster, and their answers into CLUSTER
leases.py       the Lease of each node, renewed while it beats
tokens.py       the service account tokens of pods on edges, asked for and kept fresh
staying.py      the tolerations with which a pod lives through a cut link, and why this way (pure)
stays.py        gives them to the pods
election.py     who leads, by the cluster's Lease beside the log's
bridge.py       all of it together
"""

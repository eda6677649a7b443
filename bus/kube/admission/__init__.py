"""What a write must pass before it is stored, beside the rules of its kind (Kubernetes "Admission Control").

base.py      the contract
accounts.py  service accounts of pods: they exist, and their tokens are mounted
limits.py    limit ranges
priority.py  priority classes
tolerations.py  how long a pod stays on a node that can't be reached
quota.py     resource quotas; usage.py counts, reserved.py keeps what is on its way
"""

"""What a write must pass before it is stored, beside the rules of its kind (Kubernetes "Admission Control").

base.py      the contract
accounts.py  service accounts of pods: they exist, and their tokens are mounted
"""

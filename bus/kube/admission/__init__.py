"""What a write must pass before it is stored, beside the rules of its kind (Kubernetes "Admission Control").

base.py   the contract
"""

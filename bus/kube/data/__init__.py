"""Data that the API reads: made by ops/kube_data.py, never by hand."""

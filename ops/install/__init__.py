"""Skerry in a Kubernetes cluster: what is made there, from one source.

``objects.py`` says what there is; the command (``skerry install``), the plain manifests beside this file and the Helm chart
in ``ops/helm`` are made from it, and a test holds the three together.
"""

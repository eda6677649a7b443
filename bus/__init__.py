"""The bus: connection, log, replica, stores, outbox, identity, hub, and the Kubernetes API over a replica.

Imports schemas only.  Nothing is imported here, so that a node loads only what it uses.
"""

"""Hollow nodes and the fleet benchmarks: what the sync costs at a size that no lab has machines for.

A hollow node is a node's real replica, outbox, reports and link on a store in memory, and a runtime that runs nothing.
Thousands of them share a process; hub and cloud are the real ones and can't tell.
"""

"""Connections for a process that is thousands of nodes (``ops.fleet``): the protocol, and little memory.

nats-py gives each connection three tasks and each subscription a task, a queue and a limit of its own: a hundred kilobytes
a node.  A real node has one connection and wants what that buys; a bench with a hundred thousand of them wants the bytes.
What the hub sees is the same.
"""

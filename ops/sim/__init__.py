"""The seeded simulation: hub log, cloud and edges in one thread, in virtual time, with faults drawn by the seed.

What decides in production decides here: the cores (replica, dispatcher, reports, pods, twins, clones), the API's rules and
its storage, the outbox, the node's state, and the code that writes a replica to its store.  What is modelled is around them:
the log, the wire, the clocks, the disks, the container engine, the mappers.  The checkers look only at the log, the stores
and the engines, and work out by themselves what must be there.

One seed is one run, bit for bit: no real time, no threads, no asyncio, one random generator for each concern and each step.
What it found, and how to use it: docs/SIMULATION.md.
"""

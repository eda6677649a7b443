"""The seeded simulation: hub log, cloud and edges in one thread, in virtual time, with faults drawn by the seed.

What decides in production decides here: the cores (replica, dispatcher, reports, pods), and the code that writes a replica's
and a node's state to its store.  What is modelled is around them: the log, the wire, the clock, the container engine.  The
checkers look only at the log, the stores and the engine, and work out by themselves what must be there.

One seed is one run, bit for bit: no real time, no threads, no asyncio, one random generator for each concern.
"""

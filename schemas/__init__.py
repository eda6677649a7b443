"""What is said on the bus: events, subjects, resources, and nothing that does anything.

Imports nothing of ours.  Everything here is pure: no clock, no I/O, no randomness (callers pass them in).
"""

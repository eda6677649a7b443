"""Mappers: processes on a node that speak with devices.  One engine, one folder a protocol.

``driver`` is what a driver must do, ``engine`` does everything else once for all of them, ``conformance`` is how a driver
proves that it fits.  Start with README.md.
"""

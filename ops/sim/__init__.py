"""Seeded simulation: the real cores of cloud and edge on a model of the hub, with everything that can go wrong going wrong.

One seed is one run, down to the last random number: virtual time, no threads, no sockets, no clock.  What runs is the code
that decides in production (dispatcher, reports, replica, pods, the API's rules, the outbox's and the replica's writing);
what is modelled is what surrounds it (the log, links, container engines, and the rims' loops).  The checkers look from
outside, at the log and the stores alone.
"""

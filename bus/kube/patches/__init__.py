"""The patches that clients send, each a pure function of the current object and the patch.

jsonpatch.py   RFC 6902        merge.py    RFC 7386
strategic.py   Kubernetes' strategic merge patch        apply.py   server-side apply, over fieldsets.py
managers.py    who owns what after any other write
"""

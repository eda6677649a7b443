"""Who may say what: nkeys, JWTs, credentials, join tokens, and the node's side of joining.

The hub runs nats-server in operator mode.  Everything is signed here, in Python, with keys that ``bus.hub.init`` made;
no ``nsc`` and no account server is needed.
"""

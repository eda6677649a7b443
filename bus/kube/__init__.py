"""A Kubernetes API over anything that can list, watch and (maybe) write: the standalone API, and a node's own list-watch.

storage.py    what is needed underneath (Reader, Storage), and the errors of it
registry.py   the API's rules without HTTP: create, update, patch, delete, defaults, validation, status errors
server.py     HTTP: discovery, verbs, watch, tables
"""

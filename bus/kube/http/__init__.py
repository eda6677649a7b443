"""The registry over HTTP, one small file a matter.

paths.py        what a request is about              bodies.py      what it carries, within limits
negotiation.py  in which form it wants the answer    answers.py     how an answer is written
discovery.py    what is served                       openapi.py     and of which types
reading.py      get and list                         watching.py    watch
writing.py      create, update, patch, delete
fairness.py     whose turn it is                     metrics.py      what Prometheus is told
"""

"""What ``kubectl get`` shows: rows made by the server (API concepts, "Receiving resources as Tables").

columns.py    a column, the table, and what most kinds show     text.py       ages, lists, words for nothing
pods.py       the one kind whose status is a story              core.py       the other built-in kinds
devices.py    devices with their twins                          jsonpath.py   columns of custom resources
"""

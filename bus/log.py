"""The log: append with an expectation, read the last state, follow.  The only module that knows JetStream's headers.

    last()    state, not history: the last event of every subject under a filter, complete up to a sequence
    follow()  everything from a sequence on, in batches, each sequence once, with our own gap check
    append()  one event; ``expect`` is optimistic concurrency, the event's id makes a retry harmless

(to be filled in by its owner; the signatures are what others build on)
"""

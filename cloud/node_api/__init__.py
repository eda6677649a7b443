"""Subresources of pods that live on their node: log, exec, attach, portforward.  A pod's name finds its node, the tunnel
reaches it; no node needs an open port."""

"""A device without a device: scripted readings and scripted faults, for trying manifests, demos and tests of everything
above a driver.  ``script`` is what can be scripted."""

from mappers.virtual.driver import VirtualDriver

__all__ = ["VirtualDriver"]

"""Modbus TCP (and RTU frames over TCP or a serial line), with a simulator: ``python -m mappers.modbus.simulator``."""

from mappers.modbus.driver import ModbusDriver

__all__ = ["ModbusDriver"]

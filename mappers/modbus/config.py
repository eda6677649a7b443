"""What a Modbus device and its properties are configured with: KubeEdge's v1beta1 names, read as its samples write them.

Device (protocol.configData), TCP ``{ip: 172.17.0.3, port: 1502, slaveID: 1}`` or a serial line
``{slaveID: 1, serialPort: /dev/ttyS0, baudRate: 9600, dataBits: 8, parity: even, stopBits: 1}``; older manifests nest these
in ``tcp:`` or ``com:``.  ``timeout`` is milliseconds.  Property (visitors.configData)
``{register: HoldingRegister, offset: 2, limit: 1, scale: 0.1, isSwap: false, isRegisterSwap: false, dataType: int16}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.devices import cycle_ms

Register = Literal["CoilRegister", "DiscreteInputRegister", "InputRegister", "HoldingRegister"]
DataType = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string", "bool"]
REGISTERS: tuple[Register, ...] = ("CoilRegister", "DiscreteInputRegister", "InputRegister", "HoldingRegister")
TIMEOUT_MS_DEFAULT = 2000  # a gateway in front of a slow serial line answers within one second
TIMEOUT_MS_MAX = 8000  # below the engine's own limit for a call, so that the driver's words are the ones that are told
READ_REGISTERS_MAX = 125  # Modbus application protocol 1.1b3, 6.3 and 6.4
READ_BITS_MAX = 2000  # same, 6.1 and 6.2
PARITY = {"none": "N", "even": "E", "odd": "O"}


class Config(BaseModel):
    # Unknown fields are other people's (KubeEdge's samples carry some): a typo in a required one is still an error.
    model_config = ConfigDict(frozen=True, extra="ignore")


class DeviceConfig(Config):
    """Either ``ip`` (TCP) or ``serialPort``."""

    ip: str = Field(default="", validation_alias=AliasChoices("ip", "host", "address"))
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = Field(
        default=1, validation_alias=AliasChoices("slaveID", "slaveId", "slaveid", "unitID", "unitId", "unit")
    )
    framing: Literal["socket", "rtu"] = Field(default="socket", description="rtu: serial frames through a plain gateway")
    serial_port: str = Field(default="", validation_alias=AliasChoices("serialPort", "serial_port"))
    baud_rate: Annotated[int, Field(ge=50, le=4_000_000)] = Field(default=9600, validation_alias="baudRate")
    data_bits: Literal[5, 6, 7, 8] = Field(default=8, validation_alias="dataBits")
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = Field(default=1, validation_alias="stopBits")
    timeout_ms: int = Field(default=TIMEOUT_MS_DEFAULT, validation_alias=AliasChoices("timeout", "timeoutMs"))

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, raw: Any) -> Any:
        """``tcp:`` and ``com:`` of older manifests, beside the flat fields (which win)."""
        if not isinstance(raw, Mapping):
            return raw
        flat: dict[str, Any] = {}
        for nested in ("com", "tcp"):
            inner = raw.get(nested)
            if isinstance(inner, Mapping):
                flat.update(inner)
        flat.update({k: v for k, v in raw.items() if k not in ("com", "tcp")})
        return flat

    @field_validator("timeout_ms", mode="after")
    @classmethod
    def _timeout(cls, value: int) -> int:
        return min(cycle_ms(value, "timeout")[0], TIMEOUT_MS_MAX) if value else TIMEOUT_MS_DEFAULT

    @model_validator(mode="after")
    def _reachable(self) -> DeviceConfig:
        if not self.ip and not self.serial_port:
            raise ValueError("either ip (Modbus TCP) or serialPort (Modbus RTU) is needed")
        return self

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}" if self.ip else self.serial_port


class VisitorConfig(Config):
    """``limit`` is the number of registers (or coils); 0 means what the data type needs."""

    register_type: Register = Field(validation_alias="register")
    offset: Annotated[int, Field(ge=0, le=65535)]
    limit: Annotated[int, Field(ge=0, le=READ_REGISTERS_MAX)] = 0
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    is_swap: bool = Field(default=False, validation_alias="isSwap", description="the bytes of each register")
    is_register_swap: bool = Field(default=False, validation_alias="isRegisterSwap", description="the registers")
    data_type: str = Field(default="", validation_alias="dataType")

    @field_validator("register_type", mode="before")
    @classmethod
    def _register(cls, value: object) -> object:
        """Also ``Holding``, ``holdingregister``."""
        if isinstance(value, str):
            for name in REGISTERS:
                if value.lower() in (name.lower(), name.lower().removesuffix("register")):
                    return name
        return value

    @field_validator("scale", mode="after")
    @classmethod
    def _scale(cls, value: float) -> float:
        return value or 1.0  # KubeEdge's Go type writes an absent scale as 0

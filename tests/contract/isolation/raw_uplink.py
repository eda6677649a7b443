"""A hostile leaf that plays JetStream: the hub asks it for its telemetry stream, and it delivers whatever it likes.

Source: nats-server's server/stream.go (setupSourceConsumer, processInboundSourceMsg) and client.go (the "@" in an
acknowledgement's subject that carries the message's own), read; ADR-8 for the acknowledgement's form."""

from __future__ import annotations

import asyncio
import json
import time

from tests.contract.isolation.raw_leaf import RawLeaf

ANSWER_S = 60.0


class Uplink:
    """What the hub fetches from ``leaf``.  ``deliver`` any subject, as the next of the stream."""

    def __init__(self, leaf: RawLeaf, prefix: str) -> None:
        self._leaf, self._prefix = leaf, prefix
        self._to, self._name, self._taken = "", "", 0
        self.seq = self._delivered = 0
        self.asked = 0
        leaf.interested(f"{prefix}.api.CONSUMER.CREATE.TELEMETRY.>")

    async def fetched(self) -> None:
        """Returns when the hub has asked, and has its answer."""
        async with asyncio.timeout(ANSWER_S):
            while not self.answer() and not self._to:
                await asyncio.sleep(0.02)

    def answer(self) -> bool:
        """Answers what was asked since the last time; whether anything was."""
        heard, before = self._leaf.heard[self._taken :], self.asked
        self._taken += len(heard)
        for h in heard:
            if not h.subject.startswith(f"{self._prefix}.api.CONSUMER.CREATE.TELEMETRY."):
                continue
            config = json.loads(h.payload)["config"]
            self._to, self._name, self._delivered = config["deliver_subject"], config["name"], 0
            self.asked += 1
            told = {
                "type": "io.nats.jetstream.api.v1.consumer_create_response", "stream_name": "TELEMETRY", "name": self._name,
                "config": config, "created": "2026-01-01T00:00:00Z", "num_pending": 0,
                "delivered": {"consumer_seq": 0, "stream_seq": self.seq}, "ack_floor": {"consumer_seq": 0, "stream_seq": 0},
            }  # fmt: skip
            self._leaf.lmsg(h.reply, json.dumps(told).encode())
        return self.asked > before

    def deliver(self, subject: str, payload: bytes) -> None:
        self.seq += 1
        self._delivered += 1
        ack = f"$JS.ACK.TELEMETRY.{self._name}.1.{self.seq}.{self._delivered}.{time.time_ns()}.0@{subject}"
        self._leaf.lmsg(self._to, payload, reply=ack)

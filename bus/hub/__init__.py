"""The hub: making it (init), its accounts and streams, and nats-server as a supervised child; also a node's leaf server."""

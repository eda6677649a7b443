"""KubeEdge's resource definitions (Apache-2.0), the authority for what ours look like on the wire."""

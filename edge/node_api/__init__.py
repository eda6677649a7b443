"""What a kubelet serves to the API server, served through the tunnel: logs, exec, attach, port-forward."""

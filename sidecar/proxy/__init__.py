"""The proxy: outbound calls of the pod, to upstreams that the rules folder declares."""

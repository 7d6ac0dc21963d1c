"""The cache: each pod's own memory, and Redis, which all pods share."""

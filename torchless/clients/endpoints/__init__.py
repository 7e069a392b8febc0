"""The endpoints of one service: discovery, health checks, circuit breakers and load balancing."""

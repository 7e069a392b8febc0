"""Typed async gRPC clients, one a capability: what a program without torch calls the services with."""

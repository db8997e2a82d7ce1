"""The part of containerd's gRPC interface that a migration speaks (spec containerd-services)."""

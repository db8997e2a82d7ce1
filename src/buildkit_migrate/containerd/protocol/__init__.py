"""The part of containerd's gRPC interface that a migration uses (spec containerd-services)."""

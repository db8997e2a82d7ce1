"""Values as BuildKit and containerd store them: record keys, Go-compatible JSON, times, numbers."""

"""The three containerd services that a migration needs: content store, snapshotter, lease manager."""

"""Views over the columns of each database of a root: records, containerd's metadata, snapshots, caches.

A view is made of a `bolt.Bucket`; it reads the file once, front to back. All of them are read-only, and raise
CorruptDatabaseError at a damaged page.
"""

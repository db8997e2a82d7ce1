/* Names in the stores that a plan reads and writes. */
#ifndef BKM_NAMES_H
#define BKM_NAMES_H

#define BUCKET_MAIN "_main"
#define BUCKET_INDEX "_index"
#define BUCKET_EXTERNAL "_external"

#define KEY_PARENT "cache.parent"
#define KEY_DIFF_ID "cache.diffID"
#define KEY_BLOB "cache.blob"
#define KEY_CHAIN "cache.chainID"
#define KEY_BLOB_CHAIN "cache.blobChainID"
#define KEY_SNAPSHOT "cache.snapshot"
#define KEY_MEDIA_TYPE "cache.mediatype"
#define KEY_BLOB_SIZE "cache.blobsize"
#define KEY_EQUAL_MUTABLE "cache.equalMutable"
#define KEY_BLOB_MAPPING "blobmapping.blob"
#define KEY_COMMITTED "snapshot.committed"

#define INDEX_CHAIN "chainid:"
#define INDEX_BLOB_CHAIN "blobchainid:"
#define INDEX_SEPARATOR "::"

/* Of containerd's database, and of the snapshotter's. */
#define BUCKET_SCHEMA "v1"
#define BUCKET_CONTENT "content"
#define BUCKET_BLOB "blob"
#define BUCKET_SNAPSHOTS "snapshots"
#define BUCKET_LEASES "leases"
#define BUCKET_LABELS "labels"

#define FIELD_NAME "name"
#define FIELD_PARENT "parent"
#define FIELD_KIND "kind"
#define FIELD_SIZE "size"
#define FIELD_CREATED "createdat"
#define FIELD_UPDATED "updatedat"

#define LABEL_ROOT "containerd.io/gc.root"
#define LABEL_FLAT "containerd.io/gc.flat"
#define LABEL_EXPIRE "containerd.io/gc.expire"

#endif

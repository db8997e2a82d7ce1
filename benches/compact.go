// Command compact does with bbolt for Go what bench_compact.py compares with.
//
//	compact full FILE BYTES      a file of about BYTES, filled in the order of the keys
//	compact little FILE BYTES    the same, in which only 500 keys are left
//	compact compact SRC DST      what the command `bbolt compact` does; prints how many seconds it takes
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The default of `bbolt compact`.
const txMaxSize = 65536

// Bytes of a transaction that fills a file.
const batch = 64 << 20

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: compact full|little FILE BYTES | compact compact SRC DST")
		os.Exit(2)
	}
	if os.Args[1] == "compact" {
		began := time.Now()
		compact(os.Args[2], os.Args[3])
		fmt.Println(time.Since(began).Seconds())
		return
	}
	size, err := strconv.Atoi(os.Args[3])
	must(err)
	fill(os.Args[2], size, os.Args[1] == "little")
}

func fill(path string, size int, empty bool) {
	db, err := bolt.Open(path, 0600, nil)
	must(err)
	defer db.Close()
	value := bytes.Repeat([]byte("v"), 200)
	put := func(name string, from, to int) {
		must(db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte(name))
			must(err)
			for ; from < to; from++ {
				must(bucket.Put([]byte(fmt.Sprintf("key %012d", from)), value))
			}
			return nil
		}))
	}
	put("kept", 0, 500)
	// Pages that are filled in the order of the keys are half full.
	keys := size / 2 / (len(value) + 32)
	for from := 0; from < keys; from += batch / len(value) {
		put("many", from, min(keys, from+batch/len(value)))
	}
	if empty {
		must(db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("many")) }))
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func compact(from, to string) {
	info, err := os.Stat(from)
	must(err)
	src, err := bolt.Open(from, 0400, &bolt.Options{ReadOnly: true})
	must(err)
	defer src.Close()
	dst, err := bolt.Open(to, info.Mode(), nil)
	must(err)
	defer dst.Close()
	must(bolt.Compact(dst, src, txMaxSize))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

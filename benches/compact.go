// Command compact does with bbolt for Go what bench_compact.py compares with.
//
//	compact grow FILE BYTES     a file of about BYTES in which only a few hundred keys are left
//	compact compact SRC DST     what the command `bbolt compact` does, and how many seconds it takes
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

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: compact grow FILE BYTES | compact compact SRC DST")
		os.Exit(2)
	}
	if os.Args[1] == "grow" {
		size, err := strconv.Atoi(os.Args[3])
		must(err)
		grow(os.Args[2], size)
		return
	}
	began := time.Now()
	compact(os.Args[2], os.Args[3])
	fmt.Println(time.Since(began).Seconds())
}

func grow(path string, size int) {
	db, err := bolt.Open(path, 0600, nil)
	must(err)
	defer db.Close()
	value := bytes.Repeat([]byte("v"), 1000)
	must(db.Update(func(tx *bolt.Tx) error {
		kept, err := tx.CreateBucket([]byte("kept"))
		must(err)
		for i := 0; i < 500; i++ {
			must(kept.Put([]byte(fmt.Sprintf("key %08d", i)), value))
		}
		return nil
	}))
	for written := 0; written < size; written += 64 << 20 {
		must(db.Update(func(tx *bolt.Tx) error {
			gone, err := tx.CreateBucketIfNotExists([]byte("gone"))
			must(err)
			gone.FillPercent = 1
			for i := 0; i < 64<<20; i += len(value) {
				must(gone.Put([]byte(fmt.Sprintf("key %012d", written+i)), value))
			}
			return nil
		}))
	}
	must(db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("gone")) }))
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

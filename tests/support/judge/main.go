// Command judge says what bbolt itself thinks of a file, and makes and changes files with it.
//
//	judge check FILE                   bbolt's consistency check and the rules that later versions added
//	judge time FILE                    nanoseconds that the consistency check takes
//	judge dump FILE                    every bucket, key and value as JSON lines, in key order
//	judge update FILE SEED N           N random transactions, then the comparison with a model and the check
//	judge make FILE SEED N PAGESIZE [nofreelistsync] [arrayfreelist|mapfreelist]
//
// It prints OK or one line for each error. Exit status: 0, 1 for a bad file, 2 for a wrong call.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

const childEnv = "BKM_JUDGE_CHILD"

// bbolt panics on bad files, some of them in a goroutine of its own where nobody can recover. So the work is
// done in a child process, and its last words become a line of output.
func main() {
	if os.Getenv(childEnv) != "" {
		os.Exit(run(os.Args[1:]))
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = os.Stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return
	}
	for _, line := range strings.Split(stderr.String(), "\n") {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			fmt.Println(line)
			os.Exit(1)
		}
	}
	os.Stderr.Write(stderr.Bytes())
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	fmt.Println(err)
	os.Exit(1)
}

func run(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: judge check|time|dump|update|make FILE ...")
		return 2
	}
	var errs []string
	path := args[1]
	switch args[0] {
	case "check":
		errs = view(path, check)
	case "time":
		errs = view(path, timeCheck)
		if len(errs) == 0 {
			return 0
		}
	case "dump":
		errs = view(path, dump)
		if len(errs) == 0 {
			return 0
		}
	case "update":
		errs = update(path, number(args, 2), int(number(args, 3)))
	case "make":
		errs = makeFile(path, number(args, 2), int(number(args, 3)), int(number(args, 4)), args[5:])
	default:
		fmt.Fprintln(os.Stderr, "unknown command:", args[0])
		return 2
	}
	if len(errs) > 0 {
		fmt.Println(strings.Join(errs, "\n"))
		return 1
	}
	fmt.Println("OK")
	return 0
}

func number(args []string, i int) int64 {
	n, err := strconv.ParseInt(args[i], 10, 64)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func view(path string, fn func(tx *bolt.Tx, path string) []string) (errs []string) {
	db, err := bolt.Open(path, 0600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return []string{err.Error()}
	}
	defer db.Close()
	must(db.View(func(tx *bolt.Tx) error {
		errs = fn(tx, path)
		return nil
	}))
	return errs
}

// rootOf gives the root bucket, which bbolt shows only in this way.
func rootOf(tx *bolt.Tx) *bolt.Bucket { return tx.Cursor().Bucket() }

func check(tx *bolt.Tx, path string) []string {
	errs := []string{}
	for err := range tx.Check() {
		errs = append(errs, err.Error())
	}
	if len(errs) > 0 {
		return errs // the tree may not be fit for the walks below
	}
	errs = append(errs, checkPages(tx, path)...)
	return append(errs, checkOrder(rootOf(tx), nil)...)
}

// timeCheck prints how long bbolt's own check takes, alone.
func timeCheck(tx *bolt.Tx, _ string) (errs []string) {
	began := time.Now()
	for err := range tx.Check() {
		errs = append(errs, err.Error())
	}
	fmt.Println(time.Since(began).Nanoseconds())
	return errs
}

// checkPages tests what bbolt from 1.3.7 on asserts: each page bears its own number and exactly one type.
func checkPages(tx *bolt.Tx, path string) (errs []string) {
	file, err := os.Open(path)
	must(err)
	defer file.Close()
	pageSize := int64(tx.DB().Info().PageSize)
	for id := 0; ; id++ {
		info, err := tx.Page(id)
		must(err)
		if info == nil {
			return errs
		}
		if info.Type == "free" {
			continue
		}
		head := make([]byte, 16)
		_, err = file.ReadAt(head, int64(id)*pageSize)
		must(err)
		if !bytes.Equal(head[:8], []byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), 0, 0, 0, 0}) {
			errs = append(errs, fmt.Sprintf("page %d: says that it is page %x", id, head[:8]))
		}
		if flags := int(head[8]) | int(head[9])<<8; flags != 1 && flags != 2 && flags != 4 && flags != 16 {
			errs = append(errs, fmt.Sprintf("page %d: flags %#x", id, flags))
		}
		id += info.OverflowCount
	}
}

// checkOrder walks all keys and looks each one up: a wrong branch page hides keys from the search.
func checkOrder(b *bolt.Bucket, path []string) (errs []string) {
	var last []byte
	must(b.ForEach(func(k, v []byte) error {
		if len(k) == 0 || (last != nil && bytes.Compare(last, k) >= 0) {
			errs = append(errs, fmt.Sprintf("bucket %q: key %q after %q", path, k, last))
		}
		last = k
		if v != nil && b.Get(k) != nil {
			return nil
		}
		if child := b.Bucket(k); v == nil && child != nil {
			errs = append(errs, checkOrder(child, append(path[:len(path):len(path)], string(k)))...)
		} else {
			errs = append(errs, fmt.Sprintf("bucket %q: key %q is not found", path, k))
		}
		return nil
	}))
	return errs
}

type line struct {
	Path     []string `json:"path"`
	Key      *string  `json:"key,omitempty"`
	Value    *string  `json:"value,omitempty"`
	Sequence uint64   `json:"sequence,omitempty"`
	Inline   bool     `json:"inline,omitempty"`
}

func dump(tx *bolt.Tx, _ string) []string {
	out := json.NewEncoder(os.Stdout)
	dumpBucket(out, rootOf(tx), []string{})
	return nil
}

func dumpBucket(out *json.Encoder, b *bolt.Bucket, path []string) {
	must(out.Encode(line{Path: path, Sequence: b.Sequence(), Inline: b.Root() == 0}))
	must(b.ForEach(func(k, v []byte) error {
		key := base64.StdEncoding.EncodeToString(k)
		if v == nil {
			dumpBucket(out, b.Bucket(k), append(path[:len(path):len(path)], key))
			return nil
		}
		value := base64.StdEncoding.EncodeToString(v)
		return out.Encode(line{Path: path, Key: &key, Value: &value})
	}))
}

// model is what a bucket should hold.
type model struct {
	sequence uint64
	values   map[string]string
	buckets  map[string]*model
}

func newModel() *model {
	return &model{values: map[string]string{}, buckets: map[string]*model{}}
}

func load(b *bolt.Bucket) *model {
	m := newModel()
	m.sequence = b.Sequence()
	must(b.ForEach(func(k, v []byte) error {
		if v == nil {
			m.buckets[string(k)] = load(b.Bucket(k))
		} else {
			m.values[string(k)] = string(v)
		}
		return nil
	}))
	return m
}

func (m *model) compare(b *bolt.Bucket, path string) (errs []string) {
	if b.Sequence() != m.sequence {
		errs = append(errs, fmt.Sprintf("%q: sequence %d, not %d", path, b.Sequence(), m.sequence))
	}
	count := 0
	must(b.ForEach(func(k, v []byte) error {
		count++
		if v == nil {
			if child := m.buckets[string(k)]; child == nil {
				errs = append(errs, fmt.Sprintf("%q: bucket %q should not be there", path, k))
			} else {
				errs = append(errs, child.compare(b.Bucket(k), path+"/"+string(k))...)
			}
		} else if want, ok := m.values[string(k)]; !ok || want != string(v) {
			errs = append(errs, fmt.Sprintf("%q: wrong value of %q", path, k))
		}
		return nil
	}))
	if want := len(m.values) + len(m.buckets); count != want {
		errs = append(errs, fmt.Sprintf("%q: %d keys, not %d", path, count, want))
	}
	return errs
}

// deletable spares large buckets, and those with two buckets inside: DeleteBucket of bbolt 1.3 skips the second
// one if the outer bucket was changed in the same transaction, and its pages leak.
func (m *model) deletable() bool {
	for _, child := range m.buckets {
		if !child.deletable() {
			return false
		}
	}
	return len(m.values) < 100 && len(m.buckets) < 2
}

// writer makes random changes to a database and to its model.
type writer struct {
	rnd      *rand.Rand
	pageSize int
	model    *model
}

func (w *writer) bytes(n int) []byte {
	data := make([]byte, n)
	w.rnd.Read(data)
	return data
}

func (w *writer) key() []byte {
	if w.rnd.Intn(20) == 0 {
		return w.bytes(1 + w.rnd.Intn(600))
	}
	return w.bytes(1 + w.rnd.Intn(40))
}

func (w *writer) value() []byte {
	switch w.rnd.Intn(30) {
	case 0:
		return w.bytes(w.rnd.Intn(4 * w.pageSize))
	case 1, 2:
		return w.bytes(w.rnd.Intn(w.pageSize))
	default:
		return w.bytes(w.rnd.Intn(120))
	}
}

// existing gives some key, now and then the first or last one: these are the keys that branch pages repeat.
func (w *writer) existing(b *bolt.Bucket) (k, v []byte) {
	c := b.Cursor()
	switch w.rnd.Intn(5) {
	case 0:
		return c.First()
	case 1:
		return c.Last()
	}
	if k, v = c.Seek(w.key()); k == nil {
		k, v = c.First()
	}
	return k, v
}

// descend goes down to a random bucket.
func (w *writer) descend(b *bolt.Bucket, m *model) (*bolt.Bucket, *model, bool) {
	top := true
	for {
		k, v := w.existing(b)
		if k == nil || v != nil || (!top && w.rnd.Intn(3) == 0) {
			return b, m, top
		}
		b, m, top = b.Bucket(k), m.buckets[string(k)], false
	}
}

func (w *writer) change(root *bolt.Bucket) {
	b, m, top := w.descend(root, w.model)
	op := w.rnd.Intn(100)
	if top || op < 10 {
		name := w.key()
		if m.buckets[string(name)] == nil && b.Get(name) == nil {
			_, err := b.CreateBucket(name)
			must(err)
			m.buckets[string(name)] = newModel()
		}
		return
	}
	switch {
	case op < 15:
		if k, v := w.existing(b); k != nil && v == nil && m.buckets[string(k)].deletable() {
			name := string(k)
			must(b.DeleteBucket([]byte(name)))
			delete(m.buckets, name)
		}
	case op < 20:
		m.sequence = w.rnd.Uint64() >> 1
		must(b.SetSequence(m.sequence))
	case op < 65:
		w.put(b, m, w.key())
	case op < 75:
		if k, v := w.existing(b); v != nil {
			w.put(b, m, append([]byte{}, k...))
		}
	case op < 95:
		if k, v := w.existing(b); v != nil {
			w.remove(b, m, k)
		}
	default:
		for i := w.rnd.Intn(60); i > 0; i-- {
			if k, v := w.existing(b); v != nil {
				w.remove(b, m, k)
			}
		}
	}
}

func (w *writer) put(b *bolt.Bucket, m *model, key []byte) {
	if m.buckets[string(key)] != nil {
		return
	}
	value := w.value()
	must(b.Put(key, value))
	m.values[string(key)] = string(value)
}

func (w *writer) remove(b *bolt.Bucket, m *model, key []byte) {
	name := string(key)
	must(b.Delete([]byte(name)))
	delete(m.values, name)
}

func (w *writer) transactions(db *bolt.DB, n int) {
	for ; n > 0; n-- {
		must(db.Update(func(tx *bolt.Tx) error {
			for i := w.rnd.Intn(12); i >= 0; i-- {
				w.change(rootOf(tx))
			}
			return nil
		}))
	}
}

func (w *writer) verdict(db *bolt.DB) (errs []string) {
	must(db.View(func(tx *bolt.Tx) error {
		errs = append(check(tx, db.Path()), w.model.compare(rootOf(tx), "")...)
		return nil
	}))
	return errs
}

func update(path string, seed int64, n int) []string {
	db, err := bolt.Open(path, 0600, &bolt.Options{NoSync: true})
	if err != nil {
		return []string{err.Error()}
	}
	defer db.Close()
	w := &writer{rnd: rand.New(rand.NewSource(seed)), pageSize: db.Info().PageSize}
	must(db.View(func(tx *bolt.Tx) error {
		w.model = load(rootOf(tx))
		return nil
	}))
	w.transactions(db, n)
	return w.verdict(db)
}

// makeFile fills four top-level buckets with about n keys, then deletes ranges of them so that pages come free.
func makeFile(path string, seed int64, n, pageSize int, flags []string) []string {
	options := &bolt.Options{NoSync: true, PageSize: pageSize}
	for _, flag := range flags {
		switch flag {
		case "nofreelistsync":
			options.NoFreelistSync = true
		case "arrayfreelist":
			options.FreelistType = bolt.FreelistArrayType
		case "mapfreelist":
			options.FreelistType = bolt.FreelistMapType
		default:
			panic("unknown flag " + flag)
		}
	}
	db, err := bolt.Open(path, 0600, options)
	must(err)
	defer db.Close()
	w := &writer{rnd: rand.New(rand.NewSource(seed)), pageSize: pageSize, model: newModel()}
	names := []string{"empty", "flat", "rows", "sequence"}
	must(db.Update(func(tx *bolt.Tx) error {
		for _, name := range names {
			_, err := tx.CreateBucket([]byte(name))
			must(err)
			w.model.buckets[name] = newModel()
		}
		w.model.buckets["sequence"].sequence = 41
		return tx.Bucket([]byte("sequence")).SetSequence(41)
	}))
	for done := 0; done < n; {
		must(db.Update(func(tx *bolt.Tx) error {
			flat, rows := tx.Bucket([]byte("flat")), tx.Bucket([]byte("rows"))
			for i := 0; i < 100 && done < n; i++ {
				w.put(flat, w.model.buckets["flat"], w.key())
				row, m := w.row(rows)
				for j := w.rnd.Intn(6); j > 0; j-- {
					w.put(row, m, w.key())
					done++
				}
				done++
			}
			return nil
		}))
	}
	must(db.Update(func(tx *bolt.Tx) error {
		flat, m := tx.Bucket([]byte("flat")), w.model.buckets["flat"]
		doomed := [][]byte{}
		c := flat.Cursor()
		for k, _ := c.Seek([]byte{0x40}); k != nil && k[0] < 0x80; k, _ = c.Next() {
			doomed = append(doomed, append([]byte{}, k...))
		}
		for _, k := range doomed {
			w.remove(flat, m, k)
		}
		return nil
	}))
	w.transactions(db, 20)
	return w.verdict(db)
}

// row makes a new bucket in b, every fourth time with a bucket and a sequence in it.
func (w *writer) row(b *bolt.Bucket) (*bolt.Bucket, *model) {
	parent := w.model.buckets["rows"]
	name := w.bytes(25)
	row, err := b.CreateBucket(name)
	must(err)
	m := newModel()
	parent.buckets[string(name)] = m
	if w.rnd.Intn(4) == 0 {
		inner, err := row.CreateBucket([]byte("inner"))
		must(err)
		m.buckets["inner"] = newModel()
		m.buckets["inner"].sequence = uint64(w.rnd.Intn(1000))
		must(inner.SetSequence(m.buckets["inner"].sequence))
		w.put(inner, m.buckets["inner"], w.key())
	}
	return row, m
}

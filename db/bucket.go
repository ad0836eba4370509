package db

import (
	"encoding/json"
	"fmt"
	"maps"

	"go.etcd.io/bbolt"
)

// Bucket is a named map of JSON values of one type. Buckets are made by their first key.
type Bucket[T any] struct {
	d    *DB
	name string
}

// In gives the bucket of that name.
func In[T any](d *DB, name string) Bucket[T] { return Bucket[T]{d: d, name: name} }

// Put adds to the batch that key has the value v.
func (b Bucket[T]) Put(batch *Batch, key string, v T) {
	data, err := json.Marshal(v)
	if err != nil {
		batch.err = fmt.Errorf("encode %s %q for the database: %w", b.name, key, err)
		return
	}
	batch.ops = append(batch.ops, op{b.name, key, data})
}

// Delete adds to the batch that key is gone. An unknown key is no error.
func (b Bucket[T]) Delete(batch *Batch, key string) {
	batch.ops = append(batch.ops, op{b.name, key, nil})
}

// Get reads one value.
func (b Bucket[T]) Get(key string) (v T, found bool, err error) {
	b.d.mu.Lock()
	data, here := b.d.pending[b.name][key]
	b.d.mu.Unlock()
	if here && data == nil {
		return v, false, nil
	}
	if !here {
		err = b.d.view(func(tx *bbolt.Tx) error {
			if bb := tx.Bucket([]byte(b.name)); bb != nil {
				data = append(data, bb.Get([]byte(key))...)
			}
			return nil
		})
		if err != nil || data == nil {
			return v, false, err
		}
	}
	v, err = b.decode(key, data)
	return v, err == nil, err
}

// Each calls f for each pair, in no order, until f fails. f may commit changes.
func (b Bucket[T]) Each(f func(key string, v T) error) error {
	all := map[string][]byte{}
	b.d.mu.Lock()
	newer := maps.Clone(b.d.pending[b.name])
	b.d.mu.Unlock()
	err := b.d.view(func(tx *bbolt.Tx) error {
		bb := tx.Bucket([]byte(b.name))
		if bb == nil {
			return nil
		}
		return bb.ForEach(func(k, v []byte) error {
			all[string(k)] = append([]byte{}, v...)
			return nil
		})
	})
	if err != nil {
		return err
	}
	maps.Copy(all, newer)
	for key, data := range all {
		if data == nil {
			continue
		}
		v, err := b.decode(key, data)
		if err != nil {
			return err
		}
		if err := f(key, v); err != nil {
			return err
		}
	}
	return nil
}

func (b Bucket[T]) decode(key string, data []byte) (v T, err error) {
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("read database %s: %s %q is damaged: %w", b.d.path, b.name, key, err)
	}
	return v, nil
}

// view reads from bbolt; a damaged page, on which bbolt panics, becomes an error.
func (d *DB) view(f func(*bbolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read database %s: the file is damaged: %v", d.path, r)
		}
	}()
	if err := d.bolt.View(f); err != nil {
		return fmt.Errorf("read database %s: %w", d.path, err)
	}
	return nil
}

package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// A long reader makes a new partition wait; nobody else may have to wait behind it.
func TestPartitionsGiveWayToALongReader(t *testing.T) {
	pool := pgtest.New(t)
	st := store.New(pool)
	reader, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), `SELECT count(*) FROM messages`); err != nil {
		t.Fatal(err)
	}
	if made, err := st.EnsurePartitions(t.Context(), 9); err == nil {
		t.Errorf("%d partitions were made beside a reader that holds the table", made)
	}
	// The lock is no longer asked for: a writer does not wait.
	if _, err := pool.Exec(t.Context(), `SET LOCAL lock_timeout = '1s'; LOCK TABLE messages IN ROW EXCLUSIVE MODE`); err != nil {
		t.Errorf("a writer beside the reader: %v", err)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, err := st.EnsurePartitions(t.Context(), 9)
	if err != nil || made != 6 { // two days more, three tables
		t.Errorf("after the reader: %d made, %v; want 6", made, err)
	}
	if made, err := st.EnsurePartitions(t.Context(), 9); err != nil || made != 0 {
		t.Errorf("again: %d made, %v", made, err)
	}
}

// A connection that is lost at the commit leaves open whether it was made, and the caller is told so.
func TestALostCommitIsNotTakenForNothingStored(t *testing.T) {
	pool := pgtest.New(t)
	st := store.New(pool)
	err := st.InTxWithin(t.Context(), time.Second, func(tx pgx.Tx) error {
		_, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend($1::integer, 5000)`, tx.Conn().PgConn().PID())
		return err
	})
	if !errors.Is(err, store.ErrCommitUnknown) || !store.Unavailable(err) {
		t.Errorf("a lost connection at the commit: %v", err)
	}
	refused := st.InTxWithin(t.Context(), time.Second, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SELECT 1/0`)
		return err
	})
	if refused == nil || errors.Is(refused, store.ErrCommitUnknown) || store.Unavailable(refused) {
		t.Errorf("a refused statement: %v", refused)
	}
}

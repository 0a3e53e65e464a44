package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestAlertID(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC)
	id := store.AlertID("100", "security", at, true, []byte("v"))
	for name, same := range map[string]bool{
		"again":         store.AlertID("100", "security", at, true, []byte("v")) == id,
		"another zone":  store.AlertID("100", "security", at.In(time.FixedZone("x", 3600)), true, []byte("v")) == id,
		"without time":  store.AlertID("100", "security", at, false, []byte("v")) == store.AlertID("100", "security", at.Add(-time.Hour), false, []byte("v")),
		"another WABA":  store.AlertID("101", "security", at, true, []byte("v")) != id,
		"another field": store.AlertID("100", "account_update", at, true, []byte("v")) != id,
		"a second on":   store.AlertID("100", "security", at.Add(time.Second), true, []byte("v")) != id,
		"another value": store.AlertID("100", "security", at, true, []byte("w")) != id,
		"another day":   store.AlertID("100", "security", at, false, []byte("v")) != store.AlertID("100", "security", at.Add(time.Second), false, []byte("v")),
	} {
		if !same {
			t.Errorf("%s: taken for the other", name)
		}
	}
}

func TestAlertsAreKeptOnceAndForNinetyDays(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	put := func(a store.Alert) bool {
		t.Helper()
		var fresh map[uuid.UUID]bool
		inTx(t, s, func(tx pgx.Tx) (err error) {
			fresh, err = s.PutAlerts(t.Context(), tx, []store.Alert{a, a})
			return err
		})
		return fresh[a.ID]
	}
	day := 24 * time.Hour
	now := time.Now().Truncate(time.Microsecond)
	old := store.Alert{ID: uuid.New(), At: now.Add(-91 * day), WABAID: "100", Field: "security", Event: "PIN_CHANGED"}
	young := store.Alert{ID: uuid.New(), At: now.Add(-89 * day), WABAID: "100", Field: "security", Event: "PIN_CHANGED"}
	if !put(old) || !put(young) || put(old) {
		t.Error("what is new is not told from what is known")
	}
	earlier := young
	earlier.At = young.At.Add(-time.Hour) // heard of by another process first
	if put(earlier) {
		t.Error("the same notice is taken for a new one")
	}
	if err := s.SweepAccountNews(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	left, err := s.ListAlerts(t.Context(), store.AlertFilter{Limit: 10})
	if err != nil || len(left) != 1 || left[0].ID != young.ID || !left[0].At.Equal(earlier.At) {
		t.Errorf("%+v, %v", left, err)
	}
}

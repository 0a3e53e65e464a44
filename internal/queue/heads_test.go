package queue

import (
	"context"
	"maps"
	"testing"
	"time"

	"wagate/internal/pgtest"
)

func TestPlacedJobs(t *testing.T) {
	pool := pgtest.New(t)
	past := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	insert(t, pool,
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: past},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: past.Add(24 * time.Hour)},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: past, At: past.Add(24 * time.Hour)},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3},
	)
	var available, scheduled, ahead int
	for _, j := range jobs(t, pool) {
		switch {
		case j.State == "scheduled" && j.ScheduledAt.Equal(past.Add(24*time.Hour)):
			scheduled++
		case j.State == "available" && j.Queue == "lane-1" && j.Kind == Kind && j.MaxAttempts == maxAttempts:
			available++
			if j.ScheduledAt.After(time.Now()) {
				ahead++
			}
		}
	}
	if available != 3 || scheduled != 1 || ahead != 0 {
		t.Errorf("%d available, %d scheduled, %d in the future", available, scheduled, ahead)
	}
}

// A placed job that wakes its lane is told exactly as one that River inserts.
func TestAPlacedJobWakesItsLane(t *testing.T) {
	pool := pgtest.New(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	var schema string
	if err := conn.QueryRow(t.Context(), `SELECT current_schema()`).Scan(&schema); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `LISTEN "`+schema+`.river_insert"`); err != nil {
		t.Fatal(err)
	}
	place := time.Now().Add(-time.Second)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: place}) // nobody is told
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 3})               // by River
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 3, Place: place, Wake: true},
		Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 4, Place: place, Wake: true})
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "3", Priority: 3, Place: place, Wake: true})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var told []string
	for range 3 {
		n, err := conn.Conn().WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, n.Payload)
	}
	if told[0] != `{"queue": "lane-2"}` || told[1] != told[0] || told[2] != `{"queue": "lane-3"}` {
		t.Errorf("told %q", told)
	}
}

func TestHeads(t *testing.T) {
	pool := pgtest.New(t)
	i, err := NewInserter(pool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	at := func(seconds int) time.Time {
		return time.Now().Truncate(time.Second).Add(-time.Hour + time.Duration(seconds)*time.Second)
	}
	first := at(2)
	insert(t, pool,
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: at(1)}, // claimed below
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: at(3)},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3, Place: first},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 2, Place: at(9)},
		Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 3, At: time.Now().Add(time.Hour)},
	)
	claim(t, pool, jobs(t, pool)[0].ID, "worker-a")
	heads, now, err := i.Heads(t.Context(), pool, []HeadOf{{"1", 3}, {"1", 4}, {"2", 3}, {"3", 3}})
	if err != nil || now.IsZero() {
		t.Fatal(heads, now, err)
	}
	if len(heads) != 1 || !heads[HeadOf{"1", 3}].Equal(first) {
		t.Errorf("heads %v, want %s", heads, first)
	}
	counted := map[string]int{}
	for what, c := range map[string]struct {
		of    HeadOf
		limit int
	}{
		"all": {HeadOf{"1", 3}, 10}, "up to the limit": {HeadOf{"1", 3}, 2}, "the priorities before": {HeadOf{"1", 2}, 10},
		"for later": {HeadOf{"2", 3}, 10}, "none": {HeadOf{"3", 4}, 10},
	} {
		if counted[what], err = i.Runnable(t.Context(), pool, c.of, c.limit); err != nil {
			t.Fatal(err)
		}
	}
	if want := map[string]int{"all": 3, "up to the limit": 2, "the priorities before": 1, "for later": 0, "none": 0}; !maps.Equal(counted, want) {
		t.Errorf("runnable %v, want %v", counted, want)
	}
}

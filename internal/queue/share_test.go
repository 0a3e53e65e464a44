package queue

import (
	"testing"
	"time"

	"wagate/internal/pgtest"
)

// Jobs of a lower priority go first, as many as asked for and the oldest, and only where higher ones wait.
func TestPromote(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	var sends []Send
	for range 5 {
		sends = append(sends, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 4}, Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 4})
	}
	sends = append(sends, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3})
	insert(t, pool, sends...)
	// What is to be promoted came later than what waits before it.
	exec(t, pool, `UPDATE river_job SET scheduled_at = scheduled_at - interval '1 hour' WHERE priority = 3`)
	n, err := c.Promote(t.Context(), pool, []Starved{{"1", 4, 2}, {"2", 4, 2}, {"1", 3, 2}, {"3", 4, 2}})
	if err != nil || n != 2 {
		t.Fatalf("promoted %d, %v; want 2 of lane 1", n, err)
	}
	var head time.Time
	for _, r := range jobs(t, pool) {
		if r.Queue == "lane-1" && r.Priority == 3 {
			head = r.ScheduledAt
		}
	}
	first := 0
	for i, r := range jobs(t, pool) {
		if r.Priority != 1 {
			continue
		}
		first++
		if !r.ScheduledAt.Before(head) {
			t.Errorf("promoted to %v, behind the head of the lane at %v", r.ScheduledAt, head)
		}
		if r.Queue != "lane-1" || i > 2 {
			t.Errorf("promoted job %d of %s, want the two oldest of lane-1", i, r.Queue)
		}
	}
	if first != 2 {
		t.Errorf("%d jobs have the first priority", first)
	}
	if n, err := c.Promote(t.Context(), pool, nil); err != nil || n != 0 {
		t.Errorf("of nothing: %d, %v", n, err)
	}
}

func TestInsertAtAPlace(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 2})
	head := jobs(t, pool)[0].ScheduledAt
	ahead, behind := newID(t), newID(t)
	insert(t, pool,
		Send{MessageID: behind, PhoneNumberID: "1", Priority: 2, Place: head.AddDate(0, 0, 1)},
		Send{MessageID: ahead, PhoneNumberID: "1", Priority: 2, Place: head.Add(-1000)})
	c, runs, _ := start(t, pool)
	open(t, c, "1", 1)
	for i, want := range []string{ahead.String(), "", behind.String()} {
		r := next(t, runs, "a run")
		if want != "" && r.job.MessageID.String() != want {
			t.Errorf("run %d is of another message", i)
		}
		r.verdict <- Settled()
	}
	for _, j := range jobs(t, pool) {
		if j.MaxAttempts != maxAttempts || j.Kind != Kind {
			t.Errorf("a placed job is %+v", j)
		}
	}
}

package callback

import (
	"net/http"
	"testing"
	"time"
)

// An event that is to be tried again much later costs one job then, and not one for each event that comes meanwhile.
func TestALaterAttemptIsOneJob(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, func(n int, _ got) int {
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	r.d.retry = func(int) time.Duration { return time.Hour }
	r.d.idle = 0
	id, _ := r.subscribe(e.URL)
	r.accepted(r.accept(""))
	r.run(r.d, id)
	const others = 20
	for range others {
		r.accepted(r.accept(""))
		r.run(r.d, id)
	}
	e.next(t, others)
	if n := scalar[int](r, `SELECT count(*) FROM river_job WHERE scheduled_at > now() + interval '1 minute'`); n > 1 {
		t.Errorf("%d jobs wait for one attempt", n)
	}
	if n, err := r.store.MendCallbacks(t.Context()); n != 0 || err != nil {
		t.Errorf("%d endpoints had no job: %v", n, err)
	}
	before := scalar[int](r, `SELECT count(*) FROM river_job`)
	r.exec(`UPDATE callback_events SET next_at = now() WHERE delivered_at IS NULL`)
	r.exec(`UPDATE callback_endpoints SET due_at = now()`)
	if n, err := r.store.MendCallbacks(t.Context()); n != 0 || err != nil {
		t.Errorf("%d endpoints are said to have had no job, though theirs was to come now: %v", n, err)
	}
	if n := scalar[int](r, `SELECT count(*) FROM river_job`) - before; n != 1 {
		t.Errorf("%d jobs, now that the attempt is due", n)
	}
	r.run(r.d, id)
	e.next(t, 1)
}

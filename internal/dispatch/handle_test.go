package dispatch

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/queue"
	"wagate/internal/store"
)

// How each end of a try is recorded, and what the job is told.
func TestEndsOfATry(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		answer  string
		after   string // Retry-After, so that no pause ends during the test
		retries int    // before
		want    messageRow
		job     string
		event   string
		paused  scopeKey
	}{
		{name: "accepted", status: 200, want: messageRow{Status: "accepted", WAMID: "wamid.1"}, job: "completed", event: "try.accepted"},
		{name: "throttled phone", status: 400, answer: graphError(130429), after: "4", want: messageRow{Status: "queued", Throttles: 1}, event: "try.throttled", paused: phoneKey},
		{name: "throttled WABA", status: 400, answer: graphError(80007), after: "60", want: messageRow{Status: "queued", Throttles: 1}, event: "try.throttled", paused: wabaKey},
		{name: "throttled app", status: 400, answer: graphError(4), after: "60", want: messageRow{Status: "queued", Throttles: 1}, event: "try.throttled", paused: appKey},
		{name: "throttled pair", status: 400, answer: graphError(131056), want: messageRow{Status: "queued", Throttles: 1}, job: "completed", event: "try.throttled"},
		{name: "paused template", status: 400, answer: graphError(132015), want: messageRow{Status: "queued", Throttles: 1}, job: "completed", event: "try.throttled", paused: scopeKey{"template", testWABA + ":order/en_US"}},
		{name: "transient", status: 408, answer: "{}", want: messageRow{Status: "queued", Retries: 1}, job: "running", event: "try.transient"},
		{name: "transient for the last time", status: 408, answer: "{}", retries: 7, want: messageRow{Status: "failed", Retries: 7}, job: "completed", event: "try.refused"},
		{name: "refused", status: 400, answer: graphError(131026), want: messageRow{Status: "failed", ErrorCode: 131026}, job: "completed", event: "try.refused"},
		{name: "token ended", status: 401, answer: graphError(190), want: messageRow{Status: "failed", ErrorCode: 190}, job: "completed", event: "try.refused", paused: wabaKey},
		{name: "nobody knows", status: 500, answer: graphError(131000), want: messageRow{Status: "unknown", ErrorCode: 131000, UnknownReason: "unknown_outcome"}, job: "completed", event: "try.unknown"},
		{name: "no Graph body", status: 502, answer: "bad gateway", want: messageRow{Status: "unknown", UnknownReason: "http_5xx"}, job: "completed", event: "try.unknown"},
		{name: "cut after the request", want: messageRow{Status: "unknown", UnknownReason: "eof"}, job: "completed", event: "try.unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := newAPI(t, false)
			server.status, server.answer, server.retryAfter = c.status, c.answer, c.after
			r := newRig(t, newPool(t), "worker-a", server.URL)
			r.own(t)
			id := r.accept(t, func(m *store.NewMessage) { m.TemplateName, m.TemplateLanguage = "order", "en_US" })
			exec(t, r.pool, `UPDATE messages SET retries = $1::integer`, c.retries)
			v := r.run(t, id)
			m := read(t, r.pool, id)
			if m.Status != c.want.Status || m.WAMID != c.want.WAMID || m.Retries != c.want.Retries || m.Throttles != c.want.Throttles ||
				m.ErrorCode != c.want.ErrorCode || m.UnknownReason != c.want.UnknownReason || m.Try != 1 || m.SlotAt != nil {
				t.Errorf("%+v, want %+v", m, c.want)
			}
			if m.Status == "failed" && m.ErrorTitle == "" {
				t.Error("failed without a title")
			}
			if (m.SettleBy != nil) != (m.Status == "unknown") {
				t.Errorf("%s, to be settled by %v", m.Status, m.SettleBy)
			}
			wantEvents(t, r.pool, id, c.event)
			switch c.job {
			case "":
				wantGivenBack(t, r.pool, id) // behind a long pause
			default:
				wantJobs(t, r.pool, id, c.job)
			}
			if (v == queue.Settled()) != (c.job != "running") {
				t.Errorf("verdict %+v", v)
			}
			if b := r.backoffs[c.paused]; (b != nil) != (c.paused != scopeKey{}) {
				t.Errorf("paused %v, want %v", r.backoffs, c.paused)
			}
			if n := len(server.seen()); n != 1 {
				t.Errorf("%d POSTs, want one", n)
			}
		})
	}
}

// Without a connection nothing is known to be wrong with the message: its WABA waits, and it loses no try of its budget.
func TestNobodyListens(t *testing.T) {
	server := newAPI(t, false)
	server.Close()
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	id := r.accept(t)
	r.run(t, id)
	wantQueued(t, r.pool, id)
	if m := read(t, r.pool, id); m.Retries != 0 || m.Throttles != 0 {
		t.Errorf("%+v", m)
	}
	if r.backoffs[wabaKey] == nil {
		t.Error("the WABA is not paused")
	}
	wantEvents(t, r.pool, id, "try.transient")
}

// What is seen of a message before it gets a slot.
func TestHandleLooksAtTheMessageFirst(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	r.cfg.RecipientAllow = []string{"1202"}
	set := func(sql string) uuid.UUID {
		id := r.accept(t)
		exec(t, r.pool, sql+` WHERE id = $1::uuid`, id)
		return id
	}
	for _, c := range []struct {
		name, sql, status, event string
	}{
		{"run again with an open try", `UPDATE messages SET status = 'sending', try = 1, slot_at = clock_timestamp()`, "unknown", "try.unknown"},
		{"run again without its slot", `UPDATE messages SET status = 'sending', try = 1, slot_at = NULL`, "unknown", "try.unknown"},
		{"expired", `UPDATE messages SET expires_at = clock_timestamp() - interval '1 minute'`, "expired", "expired"},
		{"recipient not allowed", `UPDATE messages SET recipient = '+4930120202'`, "failed", "failed"},
		{"body that is none", `UPDATE messages SET body = 'none'`, "failed", "failed"},
		{"delivered", `UPDATE messages SET status = 'delivered'`, "delivered", ""},
		{"cancelled", `UPDATE messages SET status = 'cancelled'`, "cancelled", ""},
		{"unknown", `UPDATE messages SET status = 'unknown'`, "unknown", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := set(c.sql)
			if v := r.run(t, id); v != queue.Settled() {
				t.Errorf("verdict %+v", v)
			}
			if m := read(t, r.pool, id); m.Status != c.status || m.SlotAt != nil {
				t.Errorf("%+v", m)
			}
			wantJobs(t, r.pool, id, "completed")
			if c.event == "" {
				wantEvents(t, r.pool, id)
			} else {
				wantEvents(t, r.pool, id, c.event)
			}
		})
	}
	t.Run("without its message", func(t *testing.T) {
		id := set(`DELETE FROM messages`)
		if v := r.run(t, id); v != queue.Settled() {
			t.Errorf("verdict %+v", v)
		}
		wantJobs(t, r.pool, id, "completed")
	})
	if n := server.conns.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}

	// The next try of a message that waits again has a number of its own.
	id := set(`UPDATE messages SET try = 3, retries = 2`)
	if v := r.run(t, id); v != queue.Settled() {
		t.Errorf("verdict %+v", v)
	}
	if m := read(t, r.pool, id); m.Status != "accepted" || m.Try != 4 {
		t.Errorf("%+v", m)
	}
}

// telling is a log of which only is told that a line came.
type telling chan struct{}

// Write implements io.Writer.
func (c telling) Write(p []byte) (int, error) {
	select {
	case c <- struct{}{}:
	default:
	}
	return len(p), nil
}

// An outcome waits in memory while the database is away.
func TestAnOutcomeWaitsForTheDatabase(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	job := r.tried(t)
	told := make(telling, 1)
	r.log = slog.New(slog.NewTextHandler(told, nil))
	exec(t, r.pool, `ALTER TABLE wamids RENAME TO away`)
	done := make(chan queue.Verdict, 1)
	go func() {
		done <- r.finish(bounded(t), ending{ref: job.Ref(), outcome: accepted(job.MessageID, 1, "wamid.one")})
	}()
	select {
	case <-told:
	case v := <-done:
		t.Fatalf("verdict %+v without the database", v)
	}
	if m := read(t, r.pool, job.MessageID); m.Status != "sending" {
		t.Errorf("%+v", m)
	}
	exec(t, r.pool, `ALTER TABLE away RENAME TO wamids`)
	select {
	case v := <-done:
		if v != queue.Settled() {
			t.Errorf("verdict %+v", v)
		}
	case <-time.After(patience):
		t.Fatal("not recorded after the table came back")
	}
	if m := read(t, r.pool, job.MessageID); m.Status != "accepted" || m.WAMID != "wamid.one" {
		t.Errorf("%+v", m)
	}
	wantJobs(t, r.pool, job.MessageID, "completed")
}

// One outcome that the database refuses holds nobody else's up.
func TestABadRowStandsAlone(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	good, bad := r.tried(t), r.tried(t)
	refused := accepted(bad.MessageID, 1, "wamid.bad\x00")
	results, err := r.recordEndings(t.Context(), []ending{
		{ref: bad.Ref(), outcome: refused}, {ref: good.Ref(), outcome: accepted(good.MessageID, 1, "wamid.good")},
	})
	if err != nil || results[0].Err == nil || results[1].Err != nil {
		t.Fatalf("%+v, %v", results, err)
	}
	if m := read(t, r.pool, good.MessageID); m.Status != "accepted" || m.WAMID != "wamid.good" {
		t.Errorf("%+v", m)
	}
	wantJobs(t, r.pool, good.MessageID, "completed")
	if m := read(t, r.pool, bad.MessageID); m.Status != "sending" {
		t.Errorf("%+v", m)
	}
	wantJobs(t, r.pool, bad.MessageID, "running")
}

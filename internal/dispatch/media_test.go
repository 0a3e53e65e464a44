package dispatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// library is a store of media whose uploads end as they are told.
type library struct {
	store *store.Store
	calls atomic.Int32
	// end gives how an attempt ends, from 1.
	end func(ctx context.Context, attempt int) error
}

// Upload implements Media.
func (l *library) Upload(ctx context.Context, _ string, at store.MediaAt, token string) error {
	if token != "opened" {
		return errors.New("another token")
	}
	if err := l.end(ctx, int(l.calls.Add(1))); err != nil {
		return fmt.Errorf("uploading: %w", err)
	}
	return l.store.KeepMediaUpload(ctx, at, "777")
}

// mediaRig is a rig that owns its WABAs, and a media.
func mediaRig(t *testing.T, end func(ctx context.Context, attempt int) error) (*rig, *library, uuid.UUID) {
	t.Helper()
	r := newRig(t, newPool(t), "worker-a", nowhere)
	l := &library{store: r.store, end: end}
	r.cfg.Media = l
	r.own(t)
	id := message.NewID(time.Now())
	sum := sha256.Sum256(id[:])
	if _, err := r.store.PutMedia(t.Context(), store.Media{ID: id, Owner: "shop", SHA256: sum[:], MIMEType: "image/png", Size: 1, Blob: id.String()}); err != nil {
		t.Fatal(err)
	}
	return r, l, id
}

// naming accepts a message that names a media.
func (r *rig) naming(t *testing.T, media uuid.UUID) uuid.UUID {
	t.Helper()
	return r.accept(t, func(m *store.NewMessage) {
		m.Type, m.Media = "image", []uuid.UUID{media}
		m.Body = fmt.Appendf(nil, `{"to":"+12025550101","type":"image","image":{"id":%q}}`, media)
	})
}

func (r *rig) held(t *testing.T, id uuid.UUID) (value string, left time.Duration) {
	t.Helper()
	var until time.Time
	err := r.pool.QueryRow(t.Context(), `SELECT value, until FROM holds WHERE message_id = $1::uuid AND kind = 'media'`, id).Scan(&value, &until)
	if err != nil {
		return "", 0
	}
	return value, time.Until(until)
}

// wantBack says that the message was held and has a new job, at its place in the lane.
func wantBack(t *testing.T, r *rig, id uuid.UUID) {
	t.Helper()
	j := wantJobs(t, r.pool, id, "completed", "available")
	if j[1].Priority != j[0].Priority || !j[1].ScheduledAt.Equal(j[0].ScheduledAt) {
		t.Errorf("back at priority %d, %v; its place was %d, %v", j[1].Priority, j[1].ScheduledAt, j[0].Priority, j[0].ScheduledAt)
	}
}

func TestOneUploadForAllThatWait(t *testing.T) {
	going := make(chan struct{})
	r, l, media := mediaRig(t, func(ctx context.Context, _ int) error {
		select {
		case <-going:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var ids []uuid.UUID
	var wg sync.WaitGroup
	for range 6 {
		id := r.naming(t, media)
		ids = append(ids, id)
		wg.Go(func() { r.run(t, id) })
	}
	wg.Wait()
	looks := 0
	for _, id := range ids {
		value, left := r.held(t, id)
		if value != media.String() || left > laterLook+time.Minute {
			t.Errorf("held by %q for %v", value, left)
		}
		if left < time.Minute {
			looks++
		}
		wantQueued(t, r.pool, id)
		wantJobs(t, r.pool, id, "completed")
	}
	if looks != 1 {
		t.Errorf("%d messages look again soon, want one", looks)
	}
	close(going)
	for _, id := range ids {
		eventually(t, "a new job", func() bool { return len(jobsOf(t, r.pool, id)) == 2 })
		wantBack(t, r, id)
	}
	if n := l.calls.Load(); n != 1 {
		t.Errorf("%d uploads", n)
	}
	// With the upload over, the message goes on with Meta's id.
	one := &run{ln: r.laneOf(testPhone), msg: store.Outbound{ID: ids[0], Type: "image", Body: fmt.Appendf(nil, `{"image":{"id":%q}}`, media)}}
	if _, done := r.mediaReady(t.Context(), one); done || one.media[media.String()] != "777" {
		t.Errorf("done %v, %v", done, one.media)
	}
}

// A message that asks while the upload runs and is held after it has ended is not forgotten.
func TestAHoldThatComesAfterTheEndOfItsUpload(t *testing.T) {
	r, _, media := mediaRig(t, func(context.Context, int) error { return nil })
	id := r.naming(t, media)
	at := store.MediaAt{ID: media, PhoneNumberID: testPhone}
	w := r.uploads.ask(r.Dispatcher, r.laneOf(testPhone), at, time.Now())
	eventually(t, "the end of the upload", func() bool { return r.uploads.over(at) })
	if !w.running {
		t.Fatalf("%+v", w)
	}
	// As awaitUpload goes on from here.
	one := &run{ln: r.laneOf(testPhone), job: claim(t, r.pool, id, "worker-a"), msg: store.Outbound{ID: id, Priority: 2}}
	r.park(t.Context(), one, store.HoldMedia, media.String(), time.Now().Add(time.Hour))
	if w.running && r.uploads.over(at) {
		r.releaseMedia(t.Context(), testWABA, at)
	}
	wantBack(t, r, id)
}

func TestAnUploadThatIsRefusedEndsItsMessages(t *testing.T) {
	refused := &sender.UploadError{HTTPStatus: 400, Err: &cloudapi.Error{Code: 100, Title: "Invalid parameter", Details: "no such type"}}
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"refused":                  {refused, 100},
		"gone":                     {store.ErrMediaGone, CodeMediaGone},
		"refused without a reason": {&sender.UploadError{HTTPStatus: 413}, CodeMediaNotUploaded},
	} {
		t.Run(name, func(t *testing.T) {
			r, l, media := mediaRig(t, func(context.Context, int) error { return c.err })
			first, second := r.naming(t, media), r.naming(t, media)
			r.run(t, first)
			eventually(t, "the first released", func() bool { return len(jobsOf(t, r.pool, first)) == 2 })
			r.run(t, first)
			r.run(t, second)
			for _, id := range []uuid.UUID{first, second} {
				if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != c.code || m.ErrorTitle == "" || m.Try != 0 {
					t.Errorf("%+v", m)
				}
				wantEvents(t, r.pool, id, "failed")
			}
			if n := l.calls.Load(); n != 1 {
				t.Errorf("%d uploads", n)
			}
		})
	}
}

func TestAnUploadThatDidNotGoThroughIsTriedAgain(t *testing.T) {
	r, l, media := mediaRig(t, func(_ context.Context, attempt int) error {
		if attempt < 3 {
			return &sender.UploadError{HTTPStatus: 503}
		}
		return nil
	})
	id := r.naming(t, media)
	r.run(t, id)
	eventually(t, "a new job", func() bool { return len(jobsOf(t, r.pool, id)) == 2 })
	if n := l.calls.Load(); n != 3 {
		t.Errorf("%d attempts", n)
	}
	wantQueued(t, r.pool, id)
}

// The end of the process cuts an upload off, and what waits looks again soon.
func TestTheEndOfTheProcessEndsUploads(t *testing.T) {
	began := make(chan struct{})
	r, _, media := mediaRig(t, func(ctx context.Context, _ int) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	})
	id := r.naming(t, media)
	r.run(t, id)
	<-began
	r.uploads.close()
	if value, left := r.held(t, id); value != media.String() || left > firstLook+5*time.Second {
		t.Errorf("held by %q for %v", value, left)
	}
	wantQueued(t, r.pool, id)
}

// A worker without a store of media fails nothing: its operator has forgotten a setting.
func TestAWorkerWithoutAStoreHoldsWhatNeedsOne(t *testing.T) {
	r, _, media := mediaRig(t, nil)
	r.cfg.Media = nil
	id := r.naming(t, media)
	r.run(t, id)
	if value, left := r.held(t, id); value != media.String() || left > storeless+5*time.Second {
		t.Errorf("held by %q for %v", value, left)
	}
	wantQueued(t, r.pool, id)
}

func TestWhatFollowsFromAFailedUpload(t *testing.T) {
	r, _, _ := mediaRig(t, nil)
	ln := r.laneOf(testPhone)
	meta := func(code, status int) error {
		return &sender.UploadError{HTTPStatus: status, Err: &cloudapi.Error{Code: code, Message: "no"}}
	}
	for name, c := range map[string]struct {
		err    error
		failed int // code, 0 for another attempt
		counts bool
		rest   time.Duration // at least
	}{
		"the database":               {errors.New("away"), 0, false, 0},
		"no connection":              {&sender.UploadError{Cause: &net.OpError{Op: "dial", Err: errors.New("refused")}}, 0, false, 0},
		"cut off":                    {&sender.UploadError{Cause: &net.OpError{Op: "read", Err: errors.New("reset")}}, 0, true, 0},
		"no management call":         {&store.SpentError{Until: time.Now().Add(time.Hour)}, 0, false, 30 * time.Minute},
		"429":                        {&sender.UploadError{HTTPStatus: 429, Wait: 5 * time.Minute}, 0, false, 5 * time.Minute},
		"a proxy's 502":              {&sender.UploadError{HTTPStatus: 502}, 0, true, 0},
		"management calls throttled": {meta(80008, 400), 0, false, throttledUpload},
		"throughput":                 {meta(130429, 400), 0, false, throttledUpload},
		"Meta's own fault":           {meta(131000, 500), 0, true, 0},
		"a bad file":                 {meta(131053, 400), 131053, false, 0},
		"a bad parameter":            {meta(100, 400), 100, false, 0},
	} {
		v := r.judgeUpload(t.Context(), ln, fmt.Errorf("uploading: %w", c.err))
		failed := 0
		if v.failed != nil {
			failed = v.failed.ErrorCode
		}
		if failed != c.failed || v.counts != c.counts || v.rest < c.rest {
			t.Errorf("%s: %+v, fails with %d", name, v, failed)
		}
		if _, paused := ln.waba.line.Blocked(testPhone, time.Now()); paused {
			t.Fatalf("%s: the lane is paused", name)
		}
	}
	// An ended token stops everything of the WABA, and costs no message its life.
	if v := r.judgeUpload(t.Context(), ln, meta(190, 401)); v.failed != nil || v.rest < firstLook {
		t.Errorf("%+v", v)
	}
	if _, paused := ln.waba.line.Blocked(testPhone, time.Now()); !paused {
		t.Error("the WABA goes on with an ended token")
	}
}

// Where the fallback template goes, its media are put up and not the message's: those may be what cannot be.
func TestTheFallbackNeedsItsOwnMediaOnly(t *testing.T) {
	sent := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		raw, _ := io.ReadAll(q.Body)
		sent <- string(raw)
		_, _ = fmt.Fprintf(w, taking, 1)
	}))
	t.Cleanup(server.Close)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	going := make(chan struct{})
	r.cfg.Media = &library{store: r.store, end: func(ctx context.Context, _ int) error {
		select {
		case <-going:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	r.own(t)
	var media [2]uuid.UUID
	for i := range media {
		media[i] = message.NewID(time.Now())
		sum := sha256.Sum256(media[i][:])
		if _, err := r.store.PutMedia(t.Context(), store.Media{ID: media[i], Owner: "shop", SHA256: sum[:], MIMEType: "image/png", Size: 1, Blob: media[i].String()}); err != nil {
			t.Fatal(err)
		}
	}
	named := func(m *store.NewMessage) {
		withFallback("utility")(m)
		m.Type, m.Media = "image", media[:]
		m.Body = fmt.Appendf(nil, `{"to":"+12025550101","type":"image","image":{"id":%q},"gateway":{"fallback_template":{"name":"hello","language":{"code":"en"},`+
			`"components":[{"type":"header","parameters":[{"type":"image","image":{"id":%q}}]}]}}}`, media[0], media[1])
	}
	first := r.accept(t, named)
	r.run(t, first)
	if value, _ := r.held(t, first); value != media[0].String() {
		t.Errorf("the message waits for %q", value)
	}
	going <- struct{}{}
	eventually(t, "the upload", func() bool { return len(jobsOf(t, r.pool, first)) == 2 })

	r.closedFor(t, "+12025550101")
	id := r.accept(t, named)
	r.run(t, id)
	wantGivenBack(t, r.pool, id)
	exec(t, r.pool, `DELETE FROM media_uploads`)
	r.run(t, id)
	if value, _ := r.held(t, id); value != media[1].String() {
		t.Errorf("the fallback waits for %q", value)
	}
	going <- struct{}{}
	eventually(t, "the upload", func() bool { return len(jobsOf(t, r.pool, id)) == 3 })
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "accepted" {
		t.Errorf("%+v", m)
	}
	if body := <-sent; !strings.Contains(body, `"image":{"id":"777"}`) || strings.Contains(body, media[0].String()) {
		t.Error(body)
	}
}

// However many files one WABA has to put up, and however slow that is, another's first ones have their turn.
func TestOneWABAsUploadsLeaveRoomForAnothers(t *testing.T) {
	u := newUploads()
	busy, quiet := &wabaUploads{}, &wabaUploads{}
	now := time.Now()
	fly := func(of *wabaUploads) bool {
		if !u.room(of, now) {
			return false
		}
		of.running++
		u.flights[store.MediaAt{ID: message.NewID(now)}] = &flight{waba: of, running: true}
		return true
	}
	n := 0
	for ; n <= maxFlights && fly(busy); n++ {
	}
	if n != maxFlightsOfWABA {
		t.Errorf("%d flights of one WABA, want %d", n, maxFlightsOfWABA)
	}
	for of := (&wabaUploads{}); len(u.flights) < maxFlights; of.running = 0 { // of others
		fly(of)
	}
	for n = 0; n <= maxFlights && fly(quiet); n++ {
	}
	if n != leastFlights {
		t.Errorf("%d flights of another while all are taken, want %d", n, leastFlights)
	}
	// What has ended makes room, also of those that were kept to be remembered.
	for _, f := range u.flights {
		u.end(f, func() {})
	}
	if !fly(quiet) || len(u.flights) != 1 {
		t.Errorf("%d flights remembered", len(u.flights))
	}
}

// An upload may wait long for its turn. If the lane was paused meanwhile, or has another owner, it costs no call.
func TestAnUploadLooksAgainWhenItIsItsTurn(t *testing.T) {
	r, l, media := mediaRig(t, func(context.Context, int) error { return nil })
	ln := r.laneOf(testPhone)
	slots := make(chan struct{}, 1)
	r.uploads.wabas[testWABA] = &wabaUploads{slots: slots}
	slots <- struct{}{} // another's
	id := r.naming(t, media)
	r.run(t, id)
	if v := r.judgeUpload(t.Context(), ln, &sender.UploadError{HTTPStatus: 401, Err: &cloudapi.Error{Code: 190, Message: "no"}}); v.failed != nil {
		t.Errorf("%+v", v)
	}
	<-slots
	eventually(t, "the end of the upload", func() bool {
		r.uploads.mu.Lock()
		defer r.uploads.mu.Unlock()
		f := r.uploads.flights[store.MediaAt{ID: media, PhoneNumberID: testPhone}]
		return f == nil || !f.running
	})
	if n := l.calls.Load(); n != 0 {
		t.Errorf("%d calls in a pause", n)
	}
	wantQueued(t, r.pool, id)
}

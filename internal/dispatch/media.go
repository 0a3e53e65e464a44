package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/batch"
	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/policy"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

const (
	// CodeMediaGone is of a message that names a media that is not there any more, or whose file is not.
	CodeMediaGone = 900_000_010
	// CodeMediaNotUploaded is of a message whose media the Cloud API has not taken, without a word of its own, however often it was tried.
	CodeMediaNotUploaded = 900_000_011
)

const (
	// uploadsAtOnce bounds the uploads of a worker at a time, uploadsAtOnceOfWABA those of one WABA.
	uploadsAtOnce       = 8
	uploadsAtOnceOfWABA = 2
	// maxFlights bounds the uploads that are remembered, those that wait for their turn or rest included, maxFlightsOfWABA those of one
	// WABA that are under way or wait. A WABA with less than leastFlights always gets one: another's files are not in its way.
	maxFlights       = 4096
	maxFlightsOfWABA = 1024
	leastFlights     = 16
	// uploadAttempts bounds the attempts that Meta answered with an error, or that were cut off. Others cost nothing.
	uploadAttempts = 8
	uploadBackoff  = time.Minute
	// failureKept is how long an upload that is of no use is not tried again: what waits for it fails with it meanwhile.
	failureKept = time.Minute
	// firstLook is how long the first message that waits for an upload is held before it looks again: after the end of this
	// process it makes the next owner upload. laterLook is that of the others, which the end of the upload releases.
	firstLook = 30 * time.Second
	laterLook = 10 * time.Minute
	// throttledUpload is how long an upload rests after a throttle that does not say how long, storeless how long a worker without a
	// store of media holds messages.
	throttledUpload = time.Minute
	storeless       = time.Minute
)

// Media puts media up at the Cloud API.
type Media interface {
	// Upload makes one attempt, and remembers Meta's id in the database. Errors, wrapped: store.ErrMediaGone, *store.SpentError,
	// *sender.UploadError; any other is no answer of Meta's.
	Upload(ctx context.Context, wabaID string, at store.MediaAt, token string) error
}

// flight is an upload that is under way, rests, or has failed.
type flight struct {
	waba    *wabaUploads
	running bool
	// looks is when another message is to be the first that looks again.
	looks time.Time
	// rests is up to when no attempt is made.
	rests time.Time
	// failed, with what of the outcome concerns the error, holds until until.
	failed *store.Outcome
	until  time.Time
}

// uploads are the uploads of a worker, one at a time of each media at each phone number.
type uploads struct {
	ctx    context.Context //nolint:containedctx // the life of the dispatcher, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu      sync.Mutex
	closed  bool
	flights map[store.MediaAt]*flight
	wabas   map[string]*wabaUploads
	told    time.Time // when it was said that there is no store
}

// wabaUploads are those of a WABA.
type wabaUploads struct {
	slots chan struct{}
	// running are its flights that are; of uploads.mu.
	running int
}

func newUploads() *uploads {
	u := &uploads{slots: make(chan struct{}, uploadsAtOnce), flights: map[store.MediaAt]*flight{}, wabas: map[string]*wabaUploads{}}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	return u
}

// close cuts the uploads off and waits for their ends.
func (u *uploads) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.cancel()
	u.wg.Wait()
}

// namesMedia says whether messages of a type may name media.
func namesMedia(kind string) bool {
	switch kind {
	case "text", "reaction", "location", "contacts":
		return false
	}
	return true
}

// mediaReady finds out under which ids Meta has the media that the message names by ours, and has them uploaded where it has
// them not. done says that the job is dealt with: the message waits without one, or has failed.
func (d *Dispatcher) mediaReady(ctx context.Context, r *run) (v queue.Verdict, done bool) {
	if !namesMedia(r.msg.Type) {
		return v, false
	}
	body := r.msg.Body
	if r.msg.FallbackUsed {
		if body, _ = cloudapi.FallbackBody(body); body == nil {
			return v, false // what builds the request says what is wrong with it
		}
	}
	// Of the message that goes only: the other may name what cannot be uploaded.
	refs := slices.DeleteFunc(content.Media(body), func(ref content.MediaRef) bool { return ref.Fallback })
	if len(refs) == 0 {
		return v, false
	}
	ids := make(map[string]store.MediaAt, len(refs))
	var want []store.MediaAt
	for _, ref := range refs {
		id, err := uuid.Parse(ref.ID)
		if err != nil {
			continue // it has the form of one
		}
		if _, seen := ids[ref.ID]; !seen {
			ids[ref.ID] = store.MediaAt{ID: id, PhoneNumberID: r.ln.phone}
			want = append(want, ids[ref.ID])
		}
	}
	found, err := d.metaIDs.Do(ctx, want)
	if err != nil {
		return d.later(ctx, r.job, err), true
	}
	r.media = make(map[string]string, len(ids))
	for name, at := range ids {
		r.media[name] = found[at]
	}
	for _, at := range want {
		if found[at] == "" {
			return d.awaitUpload(ctx, r, at), true
		}
	}
	return v, false
}

func (d *Dispatcher) lookMetaIDs(ctx context.Context, set [][]store.MediaAt) ([]batch.Result[map[store.MediaAt]string], error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var all []store.MediaAt
	for _, at := range set {
		all = append(all, at...)
	}
	found, err := d.store.MetaIDs(ctx, all)
	if err != nil {
		return nil, err
	}
	out := make([]batch.Result[map[store.MediaAt]string], len(set))
	for i := range out {
		out[i].Out = found // read only
	}
	return out, nil
}

// awaitUpload ends the job of a message whose media Meta does not have, and holds it until it does. Where nobody uploads the media,
// that begins.
func (d *Dispatcher) awaitUpload(ctx context.Context, r *run, at store.MediaAt) queue.Verdict {
	now := time.Now()
	w := d.uploads.ask(d, r.ln, at, now)
	if w.failed != nil {
		o := *w.failed
		o.ID, o.Try, o.At = r.msg.ID, r.msg.Try, now
		return d.finish(ctx, ending{ref: r.job.Ref(), outcome: &o, run: r})
	}
	v := d.park(ctx, r, store.HoldMedia, at.ID.String(), d.cfg.Owner.DBTime(w.until))
	if w.running && d.uploads.over(at) {
		// It has ended meanwhile, and released what was held before this one.
		d.releaseMedia(ctx, r.ln.waba.id, at)
	}
	return v
}

// wait is what a message that needs an upload has to do.
type wait struct {
	// until is how long it is held at the most.
	until time.Time
	// running says that the upload is under way: its end releases the message.
	running bool
	// failed is why it is of no use to wait.
	failed *store.Outcome
}

// ask says how a message waits for an upload, which is begun where need be.
func (u *uploads) ask(d *Dispatcher, ln *lane, at store.MediaAt, now time.Time) wait {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d.cfg.Media == nil {
		if now.Sub(u.told) >= storeless {
			u.told = now
			d.log.Error("messages name media, and this worker has no store of them: they wait until WAGATE_MEDIA is set", "media", at.ID, "phone_number_id", at.PhoneNumberID)
		}
		return wait{until: now.Add(storeless)}
	}
	f := u.flights[at]
	switch {
	case f != nil && f.failed != nil && now.Before(f.until):
		return wait{failed: f.failed}
	case f != nil && f.running:
	case f != nil && now.Before(f.rests):
		return wait{until: f.rests.Add(rand.N(time.Second))} //nolint:gosec // jitter, no secret
	default:
		token := ln.waba.token.Load()
		of := u.wabas[ln.waba.id]
		if of == nil {
			of = &wabaUploads{slots: make(chan struct{}, uploadsAtOnceOfWABA)}
			u.wabas[ln.waba.id] = of
		}
		if token == nil || u.closed || !u.room(of, now) {
			return wait{until: now.Add(throttledUpload/2 + rand.N(throttledUpload/2))} //nolint:gosec // jitter, no secret
		}
		f = &flight{waba: of, running: true}
		of.running++
		u.flights[at] = f
		u.wg.Go(func() { d.fly(u.ctx, f, ln, at, of.slots) })
	}
	if now.Before(f.looks) {
		return wait{until: now.Add(laterLook), running: true}
	}
	f.looks = now.Add(firstLook)
	return wait{until: f.looks, running: true}
}

// room says whether there is room for another flight of a WABA, and forgets those that are over. u.mu is held.
func (u *uploads) room(of *wabaUploads, now time.Time) bool {
	if len(u.flights) >= maxFlights {
		for at, f := range u.flights {
			if !f.running && !now.Before(f.rests) && !now.Before(f.until) {
				delete(u.flights, at)
			}
		}
	}
	return of.running < leastFlights || (of.running < maxFlightsOfWABA && len(u.flights) < maxFlights)
}

// over says that an upload is not under way and does not rest: what waits for it can go on, or fail.
func (u *uploads) over(at store.MediaAt) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.flights[at]
	return f == nil || (!f.running && !time.Now().Before(f.rests))
}

// verdict is what follows from one attempt at an upload.
type verdict struct {
	// failed is set when another attempt is of no use.
	failed *store.Outcome
	// counts says that the attempt counts against uploadAttempts.
	counts bool
	// rest is the least time until another attempt; 0 leaves it to the backoff.
	rest time.Duration
}

// fly uploads a media, with as many attempts as it is worth, and then lets go what waits for it.
func (d *Dispatcher) fly(ctx context.Context, f *flight, ln *lane, at store.MediaAt, slots chan struct{}) {
	rest := func(d0 time.Duration) { d.uploads.end(f, func() { f.rests = time.Now().Add(d0) }) }
	for attempt, counted := 0, 0; ; attempt++ {
		err := d.attemptUpload(ctx, ln, at, slots)
		if ctx.Err() != nil || errors.Is(err, errNotNow) {
			// What waits looks again by itself: when the pause is over, or with the next owner.
			rest(firstLook)
			return
		}
		if err == nil {
			d.metrics.uploads.WithLabelValues("uploaded").Inc()
			d.uploads.end(f, func() { delete(d.uploads.flights, at) })
			d.releaseMedia(ctx, ln.waba.id, at)
			return
		}
		v := d.judgeUpload(ctx, ln, err)
		if v.counts {
			counted++
		}
		if v.failed == nil && counted >= uploadAttempts {
			v.failed = uploadFailure(err)
		}
		if v.failed != nil {
			d.metrics.uploads.WithLabelValues("failed").Inc()
			d.log.WarnContext(ctx, "a media cannot be uploaded; what waits for it fails", "media", at.ID, "phone_number_id", at.PhoneNumberID, "attempts", attempt+1, "err", err)
			d.uploads.end(f, func() { f.failed, f.until = v.failed, time.Now().Add(failureKept) })
			d.releaseMedia(ctx, ln.waba.id, at)
			return
		}
		d.metrics.uploads.WithLabelValues("retried").Inc()
		backoff := min(time.Second<<min(attempt, 6), uploadBackoff)
		wait := max(v.rest, backoff/2+rand.N(backoff/2+1)) //nolint:gosec // jitter, no secret
		d.log.WarnContext(ctx, "a media was not uploaded, will be tried again", "media", at.ID, "phone_number_id", at.PhoneNumberID, "wait", wait, "err", err)
		if wait > uploadBackoff {
			// Whoever looks again then begins anew.
			rest(min(wait, laterLook))
			return
		}
		if pause(ctx, wait) != nil {
			rest(firstLook)
			return
		}
	}
}

// end ends a flight, with what else changes at that moment.
func (u *uploads) end(f *flight, change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f.running = false
	f.waba.running--
	change()
}

// errNotNow is of an attempt that was not made: the lease is lost, or the lane paused.
var errNotNow = errors.New("not now")

// attemptUpload makes one attempt when it is its turn, unless it is of no use by then: others may have taken long.
func (d *Dispatcher) attemptUpload(ctx context.Context, ln *lane, at store.MediaAt, slots chan struct{}) error {
	for _, s := range []chan struct{}{slots, d.uploads.slots} {
		select {
		case s <- struct{}{}:
			defer func() { <-s }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if until, paused := ln.waba.line.Blocked(ln.phone, time.Now()); ln.waba.lease.Lost() || (paused && time.Until(until) > closeForPause) {
		return errNotNow
	}
	token := ln.waba.token.Load()
	if token == nil {
		return errors.New("the WABA has no access token")
	}
	start := time.Now()
	err := d.cfg.Media.Upload(ctx, ln.waba.id, at, *token)
	d.metrics.uploadTime.Observe(time.Since(start).Seconds())
	return err
}

// judgeUpload says what follows from an attempt that has failed. Where Meta refuses everything of a scope until somebody mends
// it, that pauses, as after a try.
func (d *Dispatcher) judgeUpload(ctx context.Context, ln *lane, err error) verdict {
	if errors.Is(err, store.ErrMediaGone) {
		return verdict{failed: &store.Outcome{Status: "failed", Event: "failed", ErrorCode: CodeMediaGone, ErrorScope: "message", ErrorTitle: "The media is not there any more"}}
	}
	if spent, ok := errors.AsType[*store.SpentError](err); ok {
		return verdict{rest: max(spent.Until.Sub(d.cfg.Owner.DBTime(time.Now())), time.Second)}
	}
	up, ok := errors.AsType[*sender.UploadError](err)
	if !ok {
		return verdict{} // the database or the store of media
	}
	if up.Err == nil {
		switch {
		case up.HTTPStatus == 0:
			return verdict{counts: !unconnected(err)}
		case up.HTTPStatus == 429:
			return verdict{rest: max(up.Wait, throttledUpload)}
		case up.HTTPStatus >= 400 && up.HTTPStatus < 500 && up.HTTPStatus != 408:
			return verdict{failed: uploadFailure(err)}
		}
		return verdict{counts: true, rest: up.Wait}
	}
	re := policy.React(policy.Input{Code: up.Err.Code, Subcode: up.Err.Subcode, HTTPStatus: up.HTTPStatus, Now: time.Now()})
	switch {
	case re.Message == policy.Again && re.Free:
		return verdict{rest: max(up.Wait, re.Wait, throttledUpload)}
	case re.Message == policy.Again, re.Message == policy.Unknown: // an upload that was made twice does no harm
		return verdict{counts: true, rest: max(up.Wait, re.Wait)}
	case re.Pause != nil:
		if key, ok := keyOf(ln, &store.Outbound{}, re.Scope); ok {
			d.pause(ctx, ln, key, *re.Pause, sender.Outcome{Err: up.Err, Wait: up.Wait}, time.Now())
			return verdict{rest: max(up.Wait, firstLook)}
		}
	}
	return verdict{failed: uploadFailure(err)}
}

// unconnected says that no connection was had: it is not the media's fault.
func unconnected(err error) bool {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// uploadFailure is what messages fail with whose media the Cloud API does not take.
func uploadFailure(err error) *store.Outcome {
	o := &store.Outcome{Status: "failed", Event: "failed", ErrorCode: CodeMediaNotUploaded, ErrorScope: "message", ErrorTitle: "The media could not be uploaded"}
	up, ok := errors.AsType[*sender.UploadError](err)
	if !ok || up.Err == nil {
		o.ErrorDetails = clean(err.Error())
		return o
	}
	e := up.Err
	o.ErrorCode, o.ErrorSubcode = e.Code, e.Subcode
	o.ErrorDetails = clean("The upload of its media was refused: " + firstOf(e.Details, e.UserMsg, e.Message))
	if title := clean(firstOf(e.Title, e.Message)); title != "" {
		o.ErrorTitle = title
	}
	if rule, known := cloudapi.Lookup(e.Code, e.Subcode); known {
		o.ErrorScope = string(rule.Scope)
	}
	return o
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// releaseMedia lets what is held for an upload go on. What it cannot release looks again by itself, later.
func (d *Dispatcher) releaseMedia(ctx context.Context, wabaID string, at store.MediaAt) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for {
		n := 0
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			holds, err := d.store.ReleaseMedia(ctx, tx, wabaID, at, releaseAtOnce)
			n = len(holds)
			if err != nil {
				return err
			}
			return d.putBack(ctx, tx, holds)
		})
		switch {
		case err != nil && ctx.Err() != nil:
			d.log.WarnContext(ctx, "messages that waited for an upload were not released; they look again within minutes", "media", at.ID, "err", err)
			return
		case err != nil:
			_ = pause(ctx, time.Second) // ctx says when to give up
		case n < releaseAtOnce:
			d.poke()
			return
		}
	}
}

// pause waits, or gives the error of ctx.
func pause(ctx context.Context, wait time.Duration) error {
	return waitUntil(ctx, time.Now().Add(wait))
}

// renewMedia gives a message whose media Meta could not use the one more try that a new upload is worth; false when it has had it.
func (d *Dispatcher) renewMedia(ctx context.Context, r *run, began time.Time) bool {
	var renewed map[uuid.UUID]bool
	err := d.untilRecorded(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return d.store.InTx(ctx, func(tx pgx.Tx) (err error) {
			renewed, err = d.store.RenewMedia(ctx, tx, []store.Renewal{{MessageID: r.msg.ID, PhoneNumberID: r.ln.phone, TriedAt: d.cfg.Owner.DBTime(began)}})
			return err
		})
	})
	return err == nil && renewed[r.msg.ID]
}

package dispatch

import (
	"context"
	"math/rand/v2"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/limiter"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// throttleSource marks the pauses that answers of Meta set.
const throttleSource = "throttle"

type scopeKey struct{ scope, value string }

// backoff is where a scope stands in its exponential backoff.
type backoff struct {
	level int
	since time.Time // when the newest pause was set
	until time.Time
	kept  bool // the newest pause lies in the database
}

// backoffOf gives the first wait and the bound of a scope's backoff, by what the code table says to do.
func backoffOf(action cloudapi.Action) (base, limit time.Duration) {
	switch action {
	case cloudapi.ActionRetryAfterWindow:
		return time.Minute, time.Hour // hourly budgets: a second more or less is nothing
	case cloudapi.ActionPausePhone:
		return time.Hour, 24 * time.Hour // spam: the phone rests for hours
	case cloudapi.ActionPauseWABA, cloudapi.ActionFailConfig:
		return time.Minute, time.Hour // until an operator mends it
	default:
		return time.Second, time.Minute
	}
}

// keyOf gives the scope that pauses, and false when only the message itself waits.
func keyOf(ln *lane, scope cloudapi.Scope) (scopeKey, bool) {
	switch scope {
	case cloudapi.ScopePhone:
		return scopeKey{"phone", ln.phone}, true
	case cloudapi.ScopeWABA, cloudapi.ScopeToken, cloudapi.ScopePlatform:
		return scopeKey{"waba", ln.waba.id}, true
	case cloudapi.ScopeApp:
		if app := ln.waba.appID.Load(); app != nil && *app != "" {
			return scopeKey{"app", *app}, true
		}
		return scopeKey{"waba", ln.waba.id}, true
	default:
		return scopeKey{}, false
	}
}

// throttled pauses the scope of a throttle answer and gives the time the message waits. It costs the message no retry.
func (d *Dispatcher) throttled(ctx context.Context, ln *lane, msg store.Outbound, out sender.Outcome, began time.Time) time.Duration {
	d.metrics.throttles.WithLabelValues(string(out.Scope)).Inc()
	if out.Scope == cloudapi.ScopePair {
		// Meta's advice for the pair limit: 4^n seconds, for this recipient alone.
		n := min(msg.Throttles, 5)
		return max(time.Duration(1<<(2*n))*time.Second, out.Wait)
	}
	key, ok := keyOf(ln, out.Scope)
	if !ok {
		base, limit := backoffOf(out.Action)
		return max(jitter(base, limit, msg.Throttles), out.Wait)
	}
	return behindPause(time.Until(d.pause(ctx, ln, key, out, began)))
}

// refused pauses the scope of a refusal that says that nothing of that scope can be sent: a token that ended, a locked
// account, an unregistered phone number. What was under way when the refusal came fails too; the rest waits.
func (d *Dispatcher) refused(ctx context.Context, ln *lane, out sender.Outcome, began time.Time) {
	switch {
	case out.Err == nil:
		return
	case out.Action == cloudapi.ActionPauseWABA, out.Action == cloudapi.ActionPausePhone:
	case out.Action == cloudapi.ActionFailConfig && out.Scope == cloudapi.ScopeToken:
	case out.Action == cloudapi.ActionFailConfig && out.Scope == cloudapi.ScopePhone && out.Err.Code != codeNotAllowed:
	default:
		return // a setting that concerns some messages only
	}
	if key, ok := keyOf(ln, out.Scope); ok {
		until := d.pause(ctx, ln, key, out, began)
		d.log.ErrorContext(ctx, "paused: the Cloud API refuses everything of this scope until an operator mends it",
			"scope", key.scope, "id", key.value, "code", out.Err.Code, "until", until)
	}
}

// codeNotAllowed refuses one recipient of a test number, although its scope in the table is the phone.
const codeNotAllowed = 131030

// disconnected pauses the WABA when no connection to the Cloud API can be had: that costs the messages no try.
func (d *Dispatcher) disconnected(ctx context.Context, ln *lane, out sender.Outcome, began time.Time) (time.Duration, bool) {
	switch out.Reason {
	case "dns", "dial", "tls":
	default:
		return 0, false
	}
	if began.IsZero() {
		began = time.Now()
	}
	out.Action = cloudapi.ActionRetryBackoff
	return behindPause(time.Until(d.pause(ctx, ln, scopeKey{"waba", ln.waba.id}, out, began))), true
}

// pause sets or lengthens the pause of a scope. Answers to tries that began before the newest pause belong to the same
// throttle and raise nothing.
func (d *Dispatcher) pause(ctx context.Context, ln *lane, key scopeKey, out sender.Outcome, began time.Time) time.Time {
	now := time.Now()
	d.mu.Lock()
	b := d.backoffs[key]
	if b == nil {
		b = &backoff{}
		d.backoffs[key] = b
	}
	if b.until.After(now) || began.Before(b.since) {
		until := b.until
		d.mu.Unlock()
		return until
	}
	base, limit := backoffOf(out.Action)
	b.until = now.Add(max(jitter(base, limit, b.level), out.Wait))
	b.since, b.kept = now, false
	b.level++
	kept := store.Pause{Scope: key.scope, Value: key.value, Source: throttleSource, Level: b.level, Until: d.cfg.Owner.DBTime(b.until), Reason: "throttled by the Cloud API"}
	until := b.until
	d.reblock()
	d.mu.Unlock()
	d.poke()
	if out.Err != nil {
		kept.Code, kept.Reason = out.Err.Code, clean(out.Err.Title)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.store.Throttled(ctx, kept); err != nil {
		d.log.WarnContext(ctx, "a pause was not kept in the database; it holds in this process", "err", err)
		return until
	}
	d.mu.Lock()
	b.kept = true
	d.mu.Unlock()
	d.log.InfoContext(ctx, "paused after a throttle", "scope", key.scope, "id", key.value, "code", kept.Code, "level", kept.Level, "until", until)
	return until
}

// jitter is exponential backoff with full jitter, never under a twentieth of the base.
func jitter(base, limit time.Duration, level int) time.Duration {
	top := limit
	if level < 20 {
		top = min(base<<level, limit)
	}
	return base/20 + rand.N(top) //nolint:gosec // jitter, no secret
}

// reblock puts the pauses in force into every line: each scope's longest. d.mu is held.
func (d *Dispatcher) reblock() {
	end := func(scope, value string) time.Time {
		if b := d.backoffs[scopeKey{scope, value}]; b != nil {
			return b.until
		}
		return time.Time{}
	}
	for _, w := range d.wabas {
		until := latest(end("waba", w.id), end("all", ""))
		if app := w.appID.Load(); app != nil {
			until = latest(until, end("app", *app))
		}
		w.line.Update(func(b *limiter.Budget, _ time.Time) {
			b.BlockWABA(until)
			for _, ln := range w.lanes {
				b.BlockPhone(ln.phone, end("phone", ln.phone))
			}
		})
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// succeeded resets the backoff of every scope the accepted try was in, once its pause is over.
func (d *Dispatcher) succeeded(ctx context.Context, ln *lane, began time.Time) {
	keys := [3]scopeKey{{"phone", ln.phone}, {"waba", ln.waba.id}}
	if app := ln.waba.appID.Load(); app != nil {
		keys[2] = scopeKey{"app", *app}
	}
	for _, key := range keys {
		d.mu.RLock()
		known := d.backoffs[key] != nil
		d.mu.RUnlock()
		if !known {
			continue
		}
		d.mu.Lock()
		b := d.backoffs[key]
		over := b != nil && !b.until.After(began)
		if over {
			delete(d.backoffs, key)
		}
		d.mu.Unlock()
		if !over {
			continue
		}
		if err := d.store.Lift(ctx, key.scope, key.value, throttleSource, d.cfg.Owner.DBTime(began)); err != nil {
			d.log.WarnContext(ctx, "an ended pause was not removed", "err", err)
		}
	}
}

// applyPauses brings in what other workers, operators and earlier owners set, and lifts what was lifted. The list was
// read at readAt or a little later; what was set here since is newer than it. d.mu is held.
func (d *Dispatcher) applyPauses(pauses []store.Pause, readAt time.Time) {
	ahead := d.cfg.Owner.DBTime(readAt).Sub(readAt) // database time less local time
	listed := make(map[scopeKey]store.Pause, len(pauses))
	for _, p := range pauses {
		key := scopeKey{p.Scope, p.Value}
		was := listed[key]
		p.Until, p.Level = latest(p.Until.Add(-ahead), was.Until), max(p.Level, was.Level)
		listed[key] = p
	}
	for key, p := range listed {
		b := d.backoffs[key]
		if b == nil {
			b = &backoff{since: readAt, kept: true}
			d.backoffs[key] = b
		}
		b.level = max(b.level, p.Level)
		switch {
		case !b.kept: // its own row is still to come, or never came
			b.until = latest(b.until, p.Until)
		case !b.since.After(readAt):
			b.until = p.Until
		}
	}
	for key, b := range d.backoffs {
		if _, ok := listed[key]; !ok && b.kept && !b.since.After(readAt) {
			delete(d.backoffs, key)
		}
	}
	d.reblock()
}

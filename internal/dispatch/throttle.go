package dispatch

import (
	"context"
	"math/rand/v2"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/limiter"
	"wagate/internal/policy"
	"wagate/internal/sender"
	"wagate/internal/store"
)

type scopeKey struct{ scope, value string }

// backoff is where a scope stands in its exponential backoff.
type backoff struct {
	level int
	since time.Time // when the newest pause was set
	until time.Time
	kept  bool // the newest pause lies in the database
	code  int
	// weight is the base of the newest pause: an answer with a graver one counts although a lighter pause runs.
	weight time.Duration
}

// farAhead stands for the end of a pause that lasts until it is lifted.
const farAhead = 365 * 24 * time.Hour

// keyOf gives the scope that pauses, and false when only the message itself waits.
func keyOf(ln *lane, msg *store.Outbound, scope cloudapi.Scope) (scopeKey, bool) {
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
	case cloudapi.ScopeTemplate:
		return scopeKey{store.HoldTemplate, templateValue(msg)}, msg.TemplateName != ""
	case cloudapi.ScopeFlow:
		id := cloudapi.FlowID(msg.Body)
		return scopeKey{store.HoldFlow, ln.waba.id + ":" + id}, id != ""
	default:
		return scopeKey{}, false
	}
}

// throttled pauses the scope of a throttle answer. Where only this message and those like it wait, it gives their hold.
func (d *Dispatcher) throttled(ctx context.Context, r *run, out sender.Outcome, re policy.Reaction, began time.Time) *store.Hold {
	d.metrics.throttles.WithLabelValues(string(re.Scope)).Inc()
	d.slow(ctx, r, out, re)
	if key, ok := keyOf(r.ln, &r.msg, re.Scope); ok && re.Pause != nil {
		d.pause(ctx, r.ln, key, *re.Pause, out, began)
		if selective(key.scope) {
			h := d.holdFor(r, key.scope, key.value, time.Time{})
			return &h
		}
		return nil // it waits at the head of its lane
	}
	wait := max(re.Wait, out.Wait, time.Second)
	until := time.Now().Add(wait)
	r.ln.waba.line.Update(func(b *limiter.Budget, now time.Time) {
		// The others to this recipient wait as well: as if it had used all of its burst then.
		b.LoadPair(r.ln.phone, r.msg.User, until.Add(time.Duration(r.ln.pairBurst.Load()-1)*time.Duration(r.ln.pairNanos.Load())), now)
	})
	h := d.holdFor(r, store.HoldPair, r.msg.User, d.cfg.Owner.DBTime(until))
	return &h
}

// slow lowers the rate in force of a scope whose throughput was refused. An hourly budget pauses instead.
func (d *Dispatcher) slow(ctx context.Context, r *run, out sender.Outcome, re policy.Reaction) {
	var scope, value string
	var slowed limiter.Slowed
	var ok bool
	r.ln.waba.line.Update(func(b *limiter.Budget, now time.Time) {
		switch {
		case re.Slow && re.Scope == cloudapi.ScopePhone:
			scope, value = "phone", r.ln.phone
			slowed, ok = b.SlowPhone(r.ln.phone, now)
		case re.SlowIfPerSecond && re.Scope == cloudapi.ScopeWABA && r.ln.waba.perSecond.Load() && out.Wait == 0:
			scope, value = "waba", r.ln.waba.id
			slowed, ok = b.SlowWABA(now)
		}
	})
	if ok {
		d.keepRate(ctx, scope, value, slowed, codeOf(out))
	}
}

func (d *Dispatcher) keepRate(ctx context.Context, scope, value string, s limiter.Slowed, code int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.store.KeepRate(ctx, scope, value, s.Ceiling, code, d.cfg.Owner.DBTime(s.At)); err != nil {
		d.log.WarnContext(ctx, "a slowed rate was not kept in the database; it holds in this process", "scope", scope, "id", value, "err", err)
	}
	d.log.InfoContext(ctx, "slowed down after a throttle", "scope", scope, "id", value, "code", code, "ceiling", s.Ceiling)
}

func codeOf(out sender.Outcome) int {
	if out.Err == nil {
		return 0
	}
	return out.Err.Code
}

// refused does what a final refusal asks for beyond its message: a scope of which nothing can be sent pauses (a token
// that ended, a locked account, an unregistered phone number), or a template is off.
func (d *Dispatcher) refused(ctx context.Context, r *run, out sender.Outcome, re policy.Reaction, began time.Time) {
	if re.Pause == nil {
		return
	}
	key, ok := keyOf(r.ln, &r.msg, re.Scope)
	if !ok {
		return
	}
	until := d.pause(ctx, r.ln, key, *re.Pause, out, began)
	if re.Alert {
		d.log.ErrorContext(ctx, "paused: the Cloud API refuses everything of this scope until an operator mends it",
			"scope", key.scope, "id", key.value, "code", codeOf(out), "until", until)
	}
}

// disconnected pauses the WABA when no connection to the Cloud API can be had: that costs the messages no try.
func (d *Dispatcher) disconnected(ctx context.Context, ln *lane, out sender.Outcome, began time.Time) bool {
	switch out.Reason {
	case "dns", "dial", "tls":
	default:
		return false
	}
	if began.IsZero() {
		began = time.Now()
	}
	d.pause(ctx, ln, scopeKey{"waba", ln.waba.id}, policy.Pause{Base: time.Second, Limit: time.Minute}, out, began)
	return true
}

// heed slows a scope down that Meta's usage headers call nearly used up.
func (d *Dispatcher) heed(r *run, out sender.Outcome) {
	if out.AppUsage <= 0 && out.WABAUsage <= 0 {
		return
	}
	r.ln.waba.line.Update(func(b *limiter.Budget, now time.Time) {
		if out.AppUsage > 0 {
			b.UsageApp(out.AppUsage, now)
		}
		if out.WABAUsage > 0 {
			b.UsageWABA(out.WABAUsage, now)
		}
	})
}

// pause sets or lengthens the pause of a scope. Answers to tries that began before the newest pause belong to the same
// throttle and raise nothing.
func (d *Dispatcher) pause(ctx context.Context, ln *lane, key scopeKey, p policy.Pause, out sender.Outcome, began time.Time) time.Time {
	now := time.Now()
	d.mu.Lock()
	b := d.backoffs[key]
	if b == nil {
		b = &backoff{}
		d.backoffs[key] = b
	}
	weight := p.Base
	if p.UntilLifted {
		weight = farAhead
	}
	if (b.until.After(now) || began.Before(b.since)) && weight <= b.weight {
		until := b.until
		d.mu.Unlock()
		return until
	}
	end := now.Add(max(p.Delay(b.level, out.Wait, d.cfg.BackoffMax, rand.Int64N), out.Wait))
	if p.UntilLifted {
		end = now.Add(farAhead)
	}
	b.until = latest(b.until, end)
	b.since, b.weight, b.kept, b.code = now, weight, false, codeOf(out)
	b.level++
	kept := store.Pause{Scope: key.scope, Value: key.value, Source: store.ThrottleSource, Level: b.level, Until: d.cfg.Owner.DBTime(end), Reason: "throttled by the Cloud API"}
	if p.UntilLifted {
		kept.Until = time.Time{}
	}
	until := b.until
	d.reblock()
	d.probe(key)
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

// probe lets one try go first when the pause of a scope ends, and the others after it was answered. d.mu is held.
func (d *Dispatcher) probe(key scopeKey) {
	for _, w := range d.wabas {
		app := w.appID.Load()
		whole := (key.scope == "waba" && key.value == w.id) || (key.scope == "app" && app != nil && *app == key.value)
		w.line.Update(func(b *limiter.Budget, _ time.Time) {
			if whole {
				b.ProbeWABA()
			}
			for _, ln := range w.lanes {
				if key.scope == "phone" && key.value == ln.phone {
					b.ProbePhone(ln.phone)
				}
			}
		})
	}
}

// reblock puts the pauses in force into every line: each scope's longest. d.mu is held.
func (d *Dispatcher) reblock() {
	end := func(scope, value string) time.Time {
		if b := d.backoffs[scopeKey{scope, value}]; b != nil {
			return b.until
		}
		return time.Time{}
	}
	d.reselect()
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
func (d *Dispatcher) succeeded(ctx context.Context, r *run, began time.Time) {
	ln := r.ln
	keys := [4]scopeKey{{"phone", ln.phone}, {"waba", ln.waba.id}}
	if r.msg.TemplateName != "" {
		keys[3] = scopeKey{store.HoldTemplate, templateValue(&r.msg)}
	}
	if app := ln.waba.appID.Load(); app != nil {
		keys[2] = scopeKey{"app", *app}
	}
	for _, key := range keys {
		d.mu.RLock()
		known := d.backoffs[key] != nil && d.backoffs[key].level > 0
		d.mu.RUnlock()
		if !known {
			continue
		}
		d.mu.Lock()
		b := d.backoffs[key]
		over := b != nil && b.level > 0 && !b.until.After(began)
		if over {
			// Not deleted: a list that was read before would bring it back as a new one. The next list removes it.
			*b = backoff{since: time.Now(), kept: true}
		}
		d.mu.Unlock()
		if !over {
			continue
		}
		if err := d.store.Lift(ctx, key.scope, key.value, store.ThrottleSource, d.cfg.Owner.DBTime(began)); err != nil {
			d.log.WarnContext(ctx, "an ended pause was not removed", "err", err)
		}
	}
}

// applyPauses brings in what other workers, operators, webhooks and earlier owners set, and lifts what was lifted. The list
// was read at readAt or a little later; what was set here since is newer than it. It gives what was throttled elsewhere.
// d.mu is held.
func (d *Dispatcher) applyPauses(pauses []store.Pause, readAt time.Time) (fresh []scopeKey) {
	ahead := d.cfg.Owner.DBTime(readAt).Sub(readAt) // database time less local time
	listed := make(map[scopeKey]store.Pause, len(pauses))
	throttles := make(map[scopeKey]store.Pause)
	for _, p := range pauses {
		key := scopeKey{p.Scope, p.Value}
		was := listed[key]
		p.Until, p.Level, p.Code = latest(p.Until.Add(-ahead), was.Until), max(p.Level, was.Level), max(p.Code, was.Code)
		listed[key] = p
		if p.Source == store.ThrottleSource {
			throttles[key] = p
		}
	}
	for key, p := range listed {
		b := d.backoffs[key]
		known := b != nil
		if !known {
			b = &backoff{since: readAt, kept: true}
			d.backoffs[key] = b
		}
		t, throttled := throttles[key]
		if throttled && b.kept && !b.since.After(readAt) && (!known || t.Level > b.level) {
			fresh = append(fresh, key)
		}
		if !b.since.After(readAt) {
			b.level, b.code = max(b.level, p.Level), p.Code
		}
		switch {
		case !b.kept: // its own row is still to come, or never came
			b.until = latest(b.until, p.Until)
		case !b.since.After(readAt):
			if !known || p.Until.After(b.until.Add(time.Second)) {
				b.weight = max(b.weight, p.Until.Sub(readAt)) // whoever set it had a reason for its length
			}
			b.until = p.Until
		}
	}
	for key, b := range d.backoffs {
		if _, ok := listed[key]; !ok && b.kept && !b.since.After(readAt) {
			delete(d.backoffs, key)
		}
	}
	d.reblock()
	for _, key := range fresh {
		d.probe(key)
	}
	return fresh
}

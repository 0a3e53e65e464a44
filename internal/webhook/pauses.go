package webhook

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/policy"
	"wagate/internal/store"
)

// scoped says what an error came for; failure is nil for an error without a message.
type scoped struct {
	waba, phone string
	failure     *store.Failure
}

// scopeKey names what pauses. Of scope app the value is a WABA until keepPauses asks for its app.
type scopeKey struct{ scope, value string }

// wantedPause is a pause that an error asks for.
type wantedPause struct {
	key   scopeKey
	pause policy.Pause
	code  int
	title string
	alert bool
	// at is the time of the newest error that asks for it.
	at time.Time
}

// pauses are those that a set of notifications asks for: one a scope, as the failures of a set are one episode.
type pauses map[scopeKey]wantedPause

// add notes the pause that an error of the time at asks for. An error that is older than the longest pause for it says
// nothing of now.
func (p pauses) add(of scoped, re policy.Reaction, code int, title string, at, now time.Time) {
	if re.Pause == nil || (!re.Pause.UntilLifted && now.Sub(at) > max(re.Pause.Limit, freshFor)) {
		return
	}
	key := keyOf(of, re.Scope)
	if key.value == "" {
		return
	}
	is := wantedPause{key: key, pause: *re.Pause, code: code, title: title, alert: re.Alert, at: at}
	if was, ok := p[key]; ok {
		newest := is.at
		if was.at.After(newest) {
			newest = was.at
		}
		if is.weight() < was.weight() || (is.weight() == was.weight() && is.code >= was.code) { // whatever their order
			is = was
		}
		is.at = newest
	}
	p[key] = is
}

// freshFor is how old an error may be whose longest pause is shorter: notifications take a while.
const freshFor = time.Minute

func (w wantedPause) weight() time.Duration {
	if w.pause.UntilLifted {
		return 1<<63 - 1
	}
	return w.pause.Limit
}

// keyOf gives what pauses; without a value where there is nothing to pause.
func keyOf(of scoped, scope cloudapi.Scope) scopeKey {
	switch scope {
	case cloudapi.ScopePhone:
		return scopeKey{"phone", of.phone}
	case cloudapi.ScopeTemplate:
		if of.failure != nil && of.failure.TemplateName != "" {
			return templateKey(of.waba, of.failure.TemplateName, of.failure.TemplateLanguage)
		}
	case cloudapi.ScopeFlow:
		if of.failure != nil {
			if id := cloudapi.FlowID(of.failure.FlowBody); id != "" {
				return scopeKey{"flow", of.waba + ":" + id}
			}
		}
	case cloudapi.ScopeApp:
		return scopeKey{"app", of.waba}
	case cloudapi.ScopeWABA, cloudapi.ScopeToken, cloudapi.ScopePlatform:
		return scopeKey{"waba", of.waba}
	}
	return scopeKey{}
}

func templateKey(waba, name, language string) scopeKey {
	return scopeKey{"template", strings.TrimSuffix(waba+":"+name+"/"+language, "/")}
}

// keepPauses keeps the pauses of a set, always in the same order, so that two appliers do not wait for each other.
func (r *Receiver) keepPauses(ctx context.Context, tx pgx.Tx, wanted pauses) error {
	sorted := make([]wantedPause, 0, len(wanted))
	for _, w := range wanted {
		if w.key.scope == "app" {
			_, app, err := r.deps.Store.AppOf(ctx, tx, w.key.value, "")
			if err != nil {
				return err
			}
			if app != "" {
				w.key = scopeKey{"app", app}
			} else {
				w.key = scopeKey{"waba", w.key.value}
			}
		}
		sorted = append(sorted, w)
	}
	slices.SortFunc(sorted, func(a, b wantedPause) int {
		return cmp.Or(cmp.Compare(a.key.scope, b.key.scope), cmp.Compare(a.key.value, b.key.value), cmp.Compare(b.weight(), a.weight()))
	})
	for i, w := range sorted {
		if i > 0 && sorted[i-1].key == w.key {
			continue // of two WABAs of one app: one episode
		}
		if err := r.keepPause(ctx, tx, w); err != nil {
			return err
		}
	}
	return nil
}

// keepPause keeps a pause that an error asks for, unless it is of an episode that paused the scope already.
func (r *Receiver) keepPause(ctx context.Context, tx pgx.Tx, w wantedPause) error {
	was, err := r.deps.Store.LockThrottle(ctx, tx, w.key.scope, w.key.value)
	if err != nil {
		return err
	}
	running := was.Endless || (was.Until != nil && was.Until.After(was.Now))
	older := !was.Since.IsZero() && !w.at.After(was.Since)
	if was.Endless || ((running || older) && !w.pause.UntilLifted) {
		return nil
	}
	kept := store.Pause{Scope: w.key.scope, Value: w.key.value, Code: w.code, Level: was.Level + 1, Reason: w.title}
	if !w.pause.UntilLifted {
		kept.Until = was.Now.Add(w.pause.Delay(was.Level, 0, r.deps.BackoffMax, rand.Int64N))
	}
	return r.putPause(ctx, tx, kept, w.alert)
}

// keepNoticed keeps a pause that Meta has announced: until the given end, or until it is lifted. It may lengthen one that
// runs, and says what that is for; announced again it changes nothing.
func (r *Receiver) keepNoticed(ctx context.Context, tx pgx.Tx, key scopeKey, until time.Time, code int, title string) error {
	p := notedPause(store.Pause{Scope: key.scope, Value: key.value, Code: code, Reason: title, Until: until})
	kept, err := r.deps.Store.AnnouncePause(ctx, tx, p)
	if err == nil && kept {
		r.logPause(ctx, p, until.IsZero())
	}
	return err
}

func (r *Receiver) putPause(ctx context.Context, tx pgx.Tx, p store.Pause, alert bool) error {
	p = notedPause(p)
	r.logPause(ctx, p, alert)
	return r.deps.Store.PutThrottle(ctx, tx, p)
}

func notedPause(p store.Pause) store.Pause {
	p.Source = store.ThrottleSource
	if p.Reason = clean(p.Reason); p.Reason == "" {
		p.Reason = "by a notice of Meta"
	}
	return p
}

func (r *Receiver) logPause(ctx context.Context, p store.Pause, alert bool) {
	level := r.log.InfoContext
	if alert {
		level = r.log.ErrorContext
	}
	var until any = "lifted"
	if !p.Until.IsZero() {
		until = p.Until
	}
	level(ctx, "paused after a webhook", "scope", p.Scope, "id", p.Value, "code", p.Code, "level", p.Level, "until", until)
}

// Package upkeep removes what is to be forgotten before its message is: content, recipients, notifications, events; and
// builds the indexes of the search after an upgrade. All of it goes in small steps that any number of workers may do at the
// same time, and that go on where they ended when a process dies.
package upkeep

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/store"
)

const (
	// soon is how soon building an index is tried again that has failed.
	soon = time.Minute
	// atOnce is how many messages a step looks at: its locks last for some tens of milliseconds.
	atOnce = 2000
	// othersAtOnce is the same for small rows.
	othersAtOnce = 10_000
	// settled is how long after its creation a message is looked at first where content goes at the final status: by then the
	// statuses have done it, and what is left is what Meta took without another word.
	settled = 24 * time.Hour
	day     = 24 * time.Hour
)

// Rules say what is removed when. Zero fields keep what they name as long as its message.
type Rules struct {
	// AtFinal removes content with the status that ends its message (the statements do that), and a day after Meta took it
	// where no such status comes.
	AtFinal bool
	// Content is how long after its creation a message keeps its content at most.
	Content time.Duration
	// RecipientDays is the same for the recipient's number, and the events of messages.
	RecipientDays int
	// WebhookDays is how many whole days the notifications of Meta are kept.
	WebhookDays int
	// RetentionDays is how many whole days messages are kept.
	RetentionDays int
}

// least gives the least of the days that are set; 0 when none is.
func least(days ...int) int {
	n := 0
	for _, d := range days {
		if d > 0 && (n == 0 || d < n) {
			n = d
		}
	}
	return n
}

// Webhooks is how many days notifications are kept: they hold what users have written, and numbers. 0 is for ever.
func (r Rules) Webhooks() int {
	days := r.WebhookDays
	if days == 0 && r.AtFinal {
		days = 1
	}
	if days == 0 && r.Content > 0 {
		days = int((r.Content + day - 1) / day)
	}
	return least(days, r.RecipientDays, r.RetentionDays)
}

// Events is how many days the events of messages are kept: they hold wamids, which hold numbers. 0 is for ever.
func (r Rules) Events() int { return least(r.RecipientDays, r.RetentionDays) }

// Config is what a Keeper needs.
type Config struct {
	Store      *store.Store
	Rules      Rules
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Keeper does the upkeep.
type Keeper struct {
	store   *store.Store
	rules   Rules
	log     *slog.Logger
	metrics *metrics
}

// New makes a Keeper. Pass and Index do its work.
func New(c Config) *Keeper {
	return &Keeper{store: c.Store, rules: c.Rules, log: c.Logger, metrics: newMetrics(c.Registerer)}
}

// Index builds the indexes of the search that an upgrade has left to build, until they are there or ctx ends. An index of a
// large day takes minutes.
func (k *Keeper) Index(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := k.index(ctx)
		if next == 0 {
			return
		}
		timer.Reset(next)
	}
}

func (k *Keeper) index(ctx context.Context) time.Duration {
	built, left, err := k.store.BuildSearchIndexes(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		k.log.WarnContext(ctx, "building the indexes of the search failed, will be tried again in a minute", "built", built, "left", left, "err", err)
	case built > 0:
		k.log.InfoContext(ctx, "indexes of the search were built", "built", built, "left", left)
	}
	k.metrics.indexes.Set(float64(left))
	if err == nil && left == 0 {
		return 0 // new partitions have them
	}
	return soon
}

// Pass removes all that is due at a time, and says whether all of it went well; what did not is tried again by the next one.
func (k *Keeper) Pass(ctx context.Context, now time.Time) bool {
	ok := true
	do := func(what string, f func() error) {
		if err := f(); err != nil && ctx.Err() == nil {
			ok = false
			k.metrics.failures.Inc()
			k.log.WarnContext(ctx, "removing what is to be forgotten failed, will be tried again", "what", what, "err", err)
		}
	}
	redact := func(what store.Redaction, before time.Time) {
		do(string(what), func() error { return k.redact(ctx, what, before) })
	}
	switch r := k.rules; {
	case r.AtFinal:
		redact(store.RedactContent, now.Add(-settled))
	case r.Content > 0:
		redact(store.RedactContent, now.Add(-r.Content))
		fallthrough
	default:
		redact(store.RedactAuthentication, now.Add(-settled))
	}
	if days := k.rules.RecipientDays; days > 0 {
		redact(store.RedactRecipient, now.AddDate(0, 0, -days))
	}
	if days := k.rules.Webhooks(); days > 0 {
		do("notifications", func() error { return k.drop(ctx, "webhook_raw", now.AddDate(0, 0, -days)) })
	}
	if days := k.rules.Events(); days > 0 {
		do("events", func() error { return k.drop(ctx, "message_events", now.AddDate(0, 0, -days)) })
		do("spellings", func() error { return k.forgetSpellings(ctx, now.AddDate(0, 0, -days)) })
	}
	if days := k.rules.RetentionDays; days > 0 { // the days of messages are dropped with their wamids, elsewhere
		do("messages", func() error { return k.stray(ctx, "messages", now.AddDate(0, 0, -days)) })
	}
	return ok
}

// inSteps calls f until it says that there is no more, and rests between the steps as long as they take: upkeep takes half of
// one connection at most.
func inSteps(ctx context.Context, f func() (more bool, err error)) error {
	for {
		begun := time.Now()
		more, err := f()
		if err != nil || !more {
			return err
		}
		rest := time.NewTimer(time.Since(begun))
		select {
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		case <-rest.C:
		}
	}
}

func (k *Keeper) redact(ctx context.Context, what store.Redaction, before time.Time) error {
	label := string(what)
	err := inSteps(ctx, func() (bool, error) {
		done, err := k.store.Redact(ctx, what, before, atOnce)
		if err == nil && !done.Busy {
			k.metrics.redacted.WithLabelValues(label).Add(float64(done.Redacted))
			k.metrics.to.WithLabelValues(label).Set(float64(done.To.Unix()))
		}
		return done.More, err
	})
	if err != nil {
		return err
	}
	var at uuid.UUID
	open := int64(0)
	err = inSteps(ctx, func() (bool, error) {
		done, next, err := k.store.RedactOpen(ctx, what, at, atOnce)
		open, at = open+done.Open, next
		k.metrics.redacted.WithLabelValues(label).Add(float64(done.Redacted))
		return next != uuid.Nil, err
	})
	k.metrics.open.WithLabelValues(label).Set(float64(open))
	return err
}

// drop removes the days of a table before a time.
func (k *Keeper) drop(ctx context.Context, parent string, before time.Time) error {
	d, err := k.store.DropDaysBefore(ctx, parent, before)
	if err != nil {
		return err
	}
	if len(d.Partitions)+len(d.Kept)+len(d.Busy) > 0 {
		k.log.InfoContext(ctx, "retention", "table", parent, "dropped", d.Partitions, "kept_with_open_rows", d.Kept, "busy", d.Busy)
	}
	return k.stray(ctx, parent, before)
}

func (k *Keeper) stray(ctx context.Context, parent string, before time.Time) error {
	return inSteps(ctx, func() (bool, error) {
		n, err := k.store.DropStray(ctx, parent, before, othersAtOnce)
		return n == othersAtOnce, err
	})
}

func (k *Keeper) forgetSpellings(ctx context.Context, before time.Time) error {
	at := ""
	return inSteps(ctx, func() (bool, error) {
		next, _, err := k.store.ForgetSpellings(ctx, at, before, othersAtOnce)
		at = next
		return next != "", err
	})
}

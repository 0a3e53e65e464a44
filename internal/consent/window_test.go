package consent

import (
	"testing"
	"time"

	"wagate/internal/store"
)

// closed is evidence of a closed window; each case takes one part of it away.
func closed(now time.Time) store.WindowEvidence {
	day := now.Add(-25 * time.Hour)
	return store.WindowEvidence{
		NumberKnown: true, HeardSince: day, HeardAt: now.Add(-time.Hour), ListenedSince: day, ListenedAt: now.Add(-20 * time.Second), Now: now,
	}
}

func TestOnlyWhatIsKnownIsClosed(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name   string
		change func(*store.WindowEvidence)
		why    string // "" for closed, "open" for that
	}{
		{"all of it", func(*store.WindowEvidence) {}, ""},
		{"the user has written", func(e *store.WindowEvidence) { e.Until = now.Add(time.Second) }, "open"},
		{"a window that ends now", func(e *store.WindowEvidence) { e.Until = now }, ""},
		{"a group", func(e *store.WindowEvidence) { e.NumberKnown = false }, WhyRecipient},
		{"no gateway ever listened", func(e *store.WindowEvidence) { e.ListenedSince = time.Time{} }, WhyListening},
		{"gateways were down 23 hours ago", func(e *store.WindowEvidence) { e.ListenedSince = ago(23 * time.Hour) }, WhyListening},
		{"gateways are down", func(e *store.WindowEvidence) { e.ListenedAt = ago(3 * time.Minute) }, WhyListening},
		{"never heard", func(e *store.WindowEvidence) { e.HeardSince, e.HeardAt = time.Time{}, time.Time{} }, WhyUnheard},
		{"a gap", func(e *store.WindowEvidence) { e.HeardSince = ago(23 * time.Hour) }, WhyGap},
		{"silent for half a day", func(e *store.WindowEvidence) { e.HeardAt = ago(13 * time.Hour) }, WhySilent},
		{"silent for a night", func(e *store.WindowEvidence) { e.HeardAt = ago(11 * time.Hour) }, ""},
		{"a notification waits", func(e *store.WindowEvidence) { e.WaitingSince = ago(2 * time.Minute) }, WhyWaiting},
		{"a message of a user is being applied", func(e *store.WindowEvidence) { e.WaitingSince, e.Waiting = ago(time.Second), true }, WhyWaiting},
		{"a notification is being applied", func(e *store.WindowEvidence) { e.WaitingSince = ago(time.Second) }, ""},
		{"somebody has written", func(e *store.WindowEvidence) { e.NamelessAt = ago(23 * time.Hour) }, WhyNameless},
		{"somebody else has written", func(e *store.WindowEvidence) { e.NamelessAt, e.UserIDKnown = ago(time.Hour), true }, ""},
		{"somebody has written long ago", func(e *store.WindowEvidence) { e.NamelessAt = ago(25 * time.Hour) }, ""},
	} {
		e := closed(now)
		c.change(&e)
		s := Judge(e)
		got := s.Why
		if s.Open {
			got = "open"
		}
		if got != c.why || s.Closed != (c.why == "") {
			t.Errorf("%s: %+v, want %q", c.name, s, c.why)
		}
	}
}

// Package consent knows who may be written to: whether a customer service window is known to be closed, and what words end
// marketing to a user, or take it up again.
package consent

import (
	"context"
	"log/slog"
	"time"

	"wagate/internal/batch"
	"wagate/internal/store"
)

// The rule for "known closed", with what store says of gaps; docs/explanation/service-window.md says why.
const (
	// WindowFor is how long a user's message or call opens the customer service window. Source: Meta's page on sending messages.
	WindowFor = 24 * time.Hour
	// waitingFor is how long a notification may wait to be applied.
	waitingFor = time.Minute
	// beatEvery is how often a gateway says that it takes webhooks.
	beatEvery = 30 * time.Second
	// askFor bounds one reading of windows.
	askFor = 5 * time.Second
)

// Why a window that is not open is not known to be closed.
const (
	WhyRecipient = "recipient_unknown"    // the number of the recipient is not known, or it is a group
	WhyListening = "gateways_were_down"   // no gateway took webhooks at some time of the last 24 hours
	WhyUnheard   = "never_heard"          // no webhook of the phone number has come
	WhyGap       = "gap_in_webhooks"      // the webhooks of the phone number had a gap in the last 24 hours
	WhySilent    = "webhooks_silent"      // nothing was heard of the phone number for long
	WhyWaiting   = "webhooks_waiting"     // notifications wait to be applied
	WhyNameless  = "unknown_user_written" // a user wrote whose number is not known
)

// State is what is known of a customer service window.
type State struct {
	// Open says that it is open, until Until. Closed says that it is known to be closed. When neither is said nobody knows, and
	// Why says why.
	Open, Closed bool
	Until        time.Time
	Why          string
	// HeardSince begins the span without a gap in the webhooks of the phone number, HeardAt is about the newest of them; zero
	// for never.
	HeardSince, HeardAt time.Time
}

// Judge says what evidence means.
func Judge(e store.WindowEvidence) State {
	s := State{Until: e.Until, HeardSince: e.HeardSince, HeardAt: e.HeardAt}
	since := e.Now.Add(-WindowFor)
	switch {
	case e.Until.After(e.Now):
		s.Open = true
	case !e.NumberKnown:
		s.Why = WhyRecipient
	case e.ListenedSince.IsZero(), e.ListenedSince.After(since), e.Now.Sub(e.ListenedAt) > store.ListenPause:
		s.Why = WhyListening
	case e.HeardSince.IsZero():
		s.Why = WhyUnheard
	case e.HeardSince.After(since):
		s.Why = WhyGap
	case e.Now.Sub(e.HeardAt) > store.HeardSilence:
		s.Why = WhySilent
	case e.Waiting, !e.WaitingSince.IsZero() && e.Now.Sub(e.WaitingSince) > waitingFor:
		s.Why = WhyWaiting
	case !e.UserIDKnown && e.NamelessAt.After(since):
		s.Why = WhyNameless
	default:
		s.Closed = true
	}
	return s
}

// Windows reads customer service windows, many at a time. It is safe for concurrent use.
type Windows struct {
	store *store.Store
	group *batch.Group[store.WindowAsk, State]
}

// NewWindows makes a Windows; Close ends its goroutines.
func NewWindows(s *store.Store) *Windows {
	w := &Windows{store: s}
	w.group = batch.New(batch.Config{Max: 500, Flushers: 2, Linger: time.Millisecond}, w.flush)
	return w
}

// Close lets the readings under way end; later ones fail.
func (w *Windows) Close() { w.group.Close() }

// State reads one window, together with those that others ask for at the same time.
func (w *Windows) State(ctx context.Context, ask store.WindowAsk) (State, error) {
	return w.group.Do(ctx, ask)
}

// Closed says of each window whether it is known to be closed.
func (w *Windows) Closed(ctx context.Context, asks []store.WindowAsk) ([]bool, error) {
	closed := make([]bool, len(asks))
	if len(asks) == 1 {
		s, err := w.State(ctx, asks[0])
		closed[0] = s.Closed
		return closed, err
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	evidence, err := w.store.WindowEvidence(ctx, asks)
	for i, e := range evidence {
		closed[i] = Judge(e).Closed
	}
	return closed, err
}

func (w *Windows) flush(ctx context.Context, asks []store.WindowAsk) ([]batch.Result[State], error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	evidence, err := w.store.WindowEvidence(ctx, asks)
	if err != nil {
		return nil, err
	}
	out := make([]batch.Result[State], len(asks))
	for i, e := range evidence {
		out[i].Out = Judge(e)
	}
	return out, nil
}

// Listen says, until ctx ends, that this process takes webhooks: at once and every half minute.
func Listen(ctx context.Context, s *store.Store, logger *slog.Logger) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		bound, cancel := context.WithTimeout(ctx, askFor)
		err := s.Listen(bound)
		cancel()
		if err != nil && ctx.Err() == nil {
			logger.WarnContext(ctx, "it was not noted that webhooks are taken; a gap makes the window check let everything go for a day", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

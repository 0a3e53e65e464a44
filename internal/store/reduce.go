package store

import (
	"time"

	"github.com/google/uuid"

	"wagate/internal/message"
)

// What becomes of a message's error.
const (
	keepError int16 = iota
	setError
	clearError
)

// statusChange is what a set of statuses does to one message.
type statusChange struct {
	id       uuid.UUID
	row      statusRow
	statuses []*Status

	status  message.Status
	failed  bool // a failure that counts was among them
	failure *StatusError
	errs    int16 // keepError, setError or clearError
	at      map[message.Status]*time.Time
	wamid   string
	proven  bool // the newest try is: its slot is open no more
	settled bool // the outcome is known: nothing is left to decide
	pricing StatusPricing
	failing *Status // the failure that counts
	redo    bool    // the message is sent again
	early   bool    // it asks for a new try before the answer to the failed one is recorded
}

// reduce works out what the statuses of the set make of the message together. Nothing in it depends on their order
// but which of two wamids, two prices or two failures of the same moment is named.
func (c *statusChange) reduce() {
	c.at = make(map[message.Status]*time.Time, 4)
	var best message.Status // of Meta's positive words
	var wamid, failure, price *Status
	for _, st := range c.statuses {
		old := c.old(st)
		if st.WAMID != "" && !old {
			wamid = earlier(wamid, st)
		}
		if st.Pricing != nil {
			price = earlier(price, st)
		}
		word, moves := message.FromMeta(st.Status)
		if old && word.Rank() < message.Delivered.Rank() {
			continue // of a try that failed since: a new one is made
		}
		c.proven = c.proven || (moves && st.MessageID != uuid.Nil && st.Try == c.row.try)
		switch {
		case !moves || (word == message.Failed && (old || st.Participant != "" || !c.counts(st))):
			continue
		case word == message.Failed:
			failure = earlier(failure, st)
		default:
			best = message.Next(best, word)
		}
		if at := c.at[word]; at == nil || st.At.Before(*at) {
			c.at[word] = &st.At
		}
	}
	if wamid != nil {
		c.wamid = wamid.WAMID
	}
	if price != nil {
		c.pricing = *price.Pricing
	}
	c.failed = failure != nil
	c.status = c.row.status
	if c.failed {
		c.status = message.Next(c.status, message.Failed)
	}
	if c.failed || c.row.failedByMeta {
		c.status = message.Next(c.status, best)
	} else {
		c.status = message.NextOwn(c.status, best)
	}
	c.settled = c.status.Rank() > message.Unknown.Rank()
	switch {
	case c.status == message.Failed && c.failed && (c.row.status != message.Failed || !c.row.failedByMeta):
		c.errs = setError
		c.failing = failure
		if len(failure.Errors) > 0 {
			c.failure = &failure.Errors[0]
		}
	case c.status.Positive() && !c.row.status.Positive():
		c.errs = clearError // what had gone wrong before was proved wrong; the events keep it
	}
}

// old says that a status is of a try that failed and that a new one follows.
func (c *statusChange) old(st *Status) bool {
	switch {
	case c.row.failedTry == 0:
		return false
	case st.MessageID != uuid.Nil:
		return st.Try <= c.row.failedTry
	}
	return st.WAMID != c.row.wamid
}

// counts says whether a failure is one of the message as it stands: the failure of a try that another has followed says
// nothing of the newer one.
func (c *statusChange) counts(st *Status) bool {
	if st.MessageID != uuid.Nil {
		return st.Try >= c.row.try
	}
	return c.row.wamid == "" || c.row.wamid == st.WAMID
}

// earlier gives the one of the smaller time; the one seen first when they are equal.
func earlier(a, b *Status) *Status {
	if a == nil || b.At.Before(a.At) {
		return b
	}
	return a
}

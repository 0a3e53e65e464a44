package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Window is a customer service window: a user has written to a phone number, and free-form messages may go until its end.
type Window struct {
	PhoneNumberID string
	WAID          string
	Until         time.Time
}

// OpenWindows opens windows, or keeps them open for longer; none is made shorter.
func (s *Store) OpenWindows(ctx context.Context, tx pgx.Tx, windows []Window) error {
	type key struct{ phone, user string }
	latest := make(map[key]time.Time, len(windows))
	for _, w := range windows {
		if k := (key{w.PhoneNumberID, w.WAID}); w.Until.After(latest[k]) {
			latest[k] = w.Until
		}
	}
	if len(latest) == 0 {
		return nil
	}
	phones, users, until := make([]string, 0, len(latest)), make([]string, 0, len(latest)), make([]time.Time, 0, len(latest))
	for k, t := range latest {
		phones, users, until = append(phones, k.phone), append(users, k.user), append(until, t)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO service_windows AS w (phone_number_id, wa_id, until)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(phone, wa_id, until) ORDER BY u.phone, u.wa_id
		ON CONFLICT (phone_number_id, wa_id) DO UPDATE SET until = excluded.until WHERE w.until < excluded.until`, phones, users, until)
	if err != nil {
		return fmt.Errorf("opening %d service windows: %w", len(latest), err)
	}
	return nil
}

// NeedsWindow says whether messages of a type need an open customer service window: all free-form ones, not templates. Of
// types that nobody documents it is not known. Source: Meta's page on sending messages, and 131047 of its error codes.
func NeedsWindow(messageType string) bool {
	switch messageType {
	case "text", "image", "audio", "video", "document", "sticker", "location", "contacts", "reaction", "interactive":
		return true
	}
	return false
}

// WindowAsk asks for the customer service window of a recipient, as a message has it, at a phone number.
type WindowAsk struct {
	PhoneNumberID string
	Recipient     string
}

// WindowEvidence is what is known of one window, and of how well its phone number was heard. Times are the database's, and
// zero for never.
type WindowEvidence struct {
	// Until is the end of a window that is open; zero when none is known.
	Until time.Time
	// NumberKnown and UserIDKnown say whether the user's phone number and business-scoped user id are known.
	NumberKnown, UserIDKnown bool
	// HeardSince begins the span without a gap in the webhooks of the phone number, HeardAt is the newest of them.
	HeardSince, HeardAt time.Time
	// NamelessAt is when a user wrote to the phone number whose number is not known.
	NamelessAt time.Time
	// ListenedSince begins the span in which a gateway has always taken webhooks, ListenedAt is its last beat.
	ListenedSince, ListenedAt time.Time
	// WaitingSince is when the oldest notification was received that is not applied yet; Waiting says that one of them may be of
	// a user, or that there are many.
	WaitingSince time.Time
	Waiting      bool
	// Now is when this was read.
	Now time.Time
}

// waitingLook bounds how many waiting notifications are looked into.
const waitingLook = `200`

// WindowEvidence reads what is known of windows, one answer for each ask.
func (s *Store) WindowEvidence(ctx context.Context, asks []WindowAsk) ([]WindowEvidence, error) {
	phones, recipients := make([]string, len(asks)), make([]string, len(asks))
	for i, a := range asks {
		phones[i], recipients[i] = a.PhoneNumberID, a.Recipient
	}
	zero := time.Unix(0, 0)
	rows, err := s.pool.Query(ctx, `
		WITH now AS MATERIALIZED (
			SELECT clock_timestamp() AS now, min(r.received_at) AS waiting,
			       count(*) > `+waitingLook+` OR coalesce(bool_or(position('"from'::bytea IN r.body) > 0), false) AS inbound
			FROM (
				SELECT received_at, body FROM webhook_raw WHERE processed_at IS NULL AND NOT `+rawAppliedOnce+` ORDER BY id LIMIT `+waitingLook+` + 1
			) r
		)
		SELECT coalesce(w.until, $3::timestamptz), k.keys::text ~ '[{,][0-9]{5,20}[,}]', k.keys::text ~ '[{,][A-Za-z]{2}\.',
		       coalesce(h.since, $3::timestamptz), coalesce(h.at, $3::timestamptz), coalesce(h.nameless_at, $3::timestamptz),
		       coalesce(l.since, $3::timestamptz), coalesce(l.at, $3::timestamptz), coalesce(now.waiting, $3::timestamptz), now.inbound, now.now
		FROM now CROSS JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY AS m(phone, recipient, n)
		CROSS JOIN LATERAL (SELECT wagate_user_keys(`+userKey+`) AS keys OFFSET 0) k
		LEFT JOIN LATERAL (
			SELECT max(x.until) AS until FROM service_windows x
			WHERE x.phone_number_id = m.phone AND x.wa_id = ANY(k.keys) AND x.until > now.now
		) w ON true
		LEFT JOIN phone_spans h ON h.phone_number_id = m.phone
		LEFT JOIN listening l ON true
		ORDER BY m.n`, phones, recipients, zero)
	if err != nil {
		return nil, fmt.Errorf("reading %d service windows: %w", len(asks), err)
	}
	found := make([]WindowEvidence, 0, len(asks))
	var e WindowEvidence
	times := []*time.Time{&e.Until, &e.HeardSince, &e.HeardAt, &e.NamelessAt, &e.ListenedSince, &e.ListenedAt, &e.WaitingSince}
	_, err = pgx.ForEachRow(rows, []any{&e.Until, &e.NumberKnown, &e.UserIDKnown, &e.HeardSince, &e.HeardAt, &e.NamelessAt,
		&e.ListenedSince, &e.ListenedAt, &e.WaitingSince, &e.Waiting, &e.Now}, func() error {
		for _, t := range times {
			if t.Equal(zero) {
				*t = time.Time{}
			}
		}
		found = append(found, e)
		return nil
	})
	if err == nil && len(found) != len(asks) {
		err = errors.New("an answer is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %d service windows: %w", len(asks), err)
	}
	return found, nil
}

// SweepWindows looks at up to limit windows after the given one, in the order of their keys, and removes those that have
// ended. next is where to go on from, the zero Window when all were looked at. So no index has to follow each message
// that comes in.
func (s *Store) SweepWindows(ctx context.Context, after Window, limit int) (next Window, removed int64, err error) {
	var phone, user *string
	var seen int
	err = s.pool.QueryRow(ctx, `
		WITH part AS MATERIALIZED (
			SELECT phone_number_id, wa_id, until FROM service_windows
			WHERE (phone_number_id, wa_id) > ($1::text, $2::text) ORDER BY phone_number_id, wa_id LIMIT $3::integer
		), old AS (
			SELECT w.phone_number_id, w.wa_id FROM part JOIN service_windows w ON w.phone_number_id = part.phone_number_id AND w.wa_id = part.wa_id
			WHERE part.until <= clock_timestamp() AND w.until <= clock_timestamp() FOR UPDATE OF w SKIP LOCKED
		), gone AS (
			DELETE FROM service_windows w USING old WHERE w.phone_number_id = old.phone_number_id AND w.wa_id = old.wa_id
			RETURNING 1
		), last AS (
			SELECT phone_number_id, wa_id FROM part ORDER BY phone_number_id DESC, wa_id DESC LIMIT 1
		)
		SELECT (SELECT phone_number_id FROM last), (SELECT wa_id FROM last), (SELECT count(*) FROM part)::integer, (SELECT count(*) FROM gone)`,
		after.PhoneNumberID, after.WAID, limit).Scan(&phone, &user, &seen, &removed)
	if err != nil {
		return Window{}, 0, fmt.Errorf("removing ended service windows: %w", err)
	}
	if phone != nil && user != nil && seen >= limit {
		next = Window{PhoneNumberID: *phone, WAID: *user}
	}
	return next, removed, nil
}

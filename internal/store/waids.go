package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// LearnedWAID says that messages to Input, digits, go to the user of WAID.
type LearnedWAID struct{ Input, WAID string }

// LearnWAIDs keeps spellings that Meta has mapped to another wa_id. What is known already is not written again.
func (s *Store) LearnWAIDs(ctx context.Context, tx pgx.Tx, learned []LearnedWAID) error {
	n := len(learned)
	if n == 0 {
		return nil
	}
	inputs, waIDs := make([]string, n), make([]string, n)
	for i, l := range learned {
		inputs[i], waIDs[i] = l.Input, l.WAID
	}
	_, err := tx.Exec(ctx, `
		WITH known AS MATERIALIZED (SELECT input, wa_id FROM wa_ids WHERE input = ANY($1::text[]))
		INSERT INTO wa_ids AS w (input, wa_id)
		SELECT DISTINCT ON (u.input) u.input, u.wa_id
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(input, wa_id, n) LEFT JOIN known k ON k.input = u.input
		WHERE u.input <> u.wa_id AND k.wa_id IS DISTINCT FROM u.wa_id
		ORDER BY u.input, u.n DESC
		ON CONFLICT (input) DO UPDATE SET wa_id = excluded.wa_id, learned_at = now()`, inputs, waIDs)
	if err != nil {
		return fmt.Errorf("learning the wa_ids of %d recipients: %w", n, err)
	}
	return nil
}

// waIDsOf gives the wa_ids that spellings of numbers are mapped to; those without one are not in the map.
func (s *Store) waIDsOf(ctx context.Context, tx pgx.Tx, inputs []string) (map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT input, wa_id FROM wa_ids WHERE input = ANY($1::text[])`, inputs)
	if err != nil {
		return nil, fmt.Errorf("looking up the wa_ids of %d recipients: %w", len(inputs), err)
	}
	known := make(map[string]string)
	var input, waID string
	if _, err := pgx.ForEachRow(rows, []any{&input, &waID}, func() error { known[input] = waID; return nil }); err != nil {
		return nil, fmt.Errorf("looking up the wa_ids of %d recipients: %w", len(inputs), err)
	}
	return known, nil
}

// spellings gives what statuses teach of their recipients: where the wa_id is another number than the one written to.
func spellings(order []*statusChange) (learned []LearnedWAID) {
	for _, c := range order {
		for _, st := range c.statuses {
			if st.RecipientID == "" || st.RecipientID == c.row.recipient {
				continue
			}
			input := phoneDigits(c.row.recipient)
			if input == "" || input == st.RecipientID || phoneDigits(st.RecipientID) != st.RecipientID {
				continue
			}
			learned = append(learned, LearnedWAID{input, st.RecipientID})
			break
		}
	}
	return learned
}

// phoneDigits gives the digits of a phone number; "" for what is none, such as the id of a group.
func phoneDigits(recipient string) string {
	digits := strings.Map(func(c rune) rune {
		switch {
		case c >= '0' && c <= '9':
			return c
		case strings.ContainsRune("+ ().-", c):
			return -1
		}
		return 'x'
	}, recipient)
	if strings.Contains(digits, "x") {
		return ""
	}
	return digits
}

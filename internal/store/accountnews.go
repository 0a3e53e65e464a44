package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Who set a limit last.
const (
	// SourceWebhook marks limits that a webhook of Meta has changed; those of operators are marked OperatorSource.
	SourceWebhook = "webhook"
	// SourceThroughput marks limits by the throughput of a phone number as read from the Graph API.
	SourceThroughput = "throughput"
)

// PhoneRef names a phone number by its id or, where that is "", by what is displayed, of which the digits count.
type PhoneRef struct {
	ID                 string
	DisplayPhoneNumber string
}

// SetPhoneThroughput keeps what Meta allows a phone number, in messages a second both ways, and its level ("" leaves it).
// Where the figure was another before, which changed says, the configured limit keeps its proportion to it, and source
// is kept; no limit stays none. 0 messages a second keeps the level only. A phone number that is not here is passed over.
func (s *Store) SetPhoneThroughput(ctx context.Context, tx pgx.Tx, by PhoneRef, perSecond float64, level, source string) (changed bool, err error) {
	rows, err := tx.Query(ctx, `
		WITH old AS MATERIALIZED (
			SELECT phone_number_id, $3::double precision > 0 AND $3::double precision <> meta_per_second AS differs,
			       messages_per_second, least(1, messages_per_second / nullif(meta_per_second, 0)) AS part
			FROM phone_numbers
			WHERE CASE WHEN $1::text <> '' THEN phone_number_id = $1::text
			      ELSE regexp_replace(display_phone_number, '[^0-9]', '', 'g') = nullif(regexp_replace($2::text, '[^0-9]', '', 'g'), '') END
			ORDER BY phone_number_id FOR NO KEY UPDATE
		)
		UPDATE phone_numbers p SET
			throughput_level = coalesce(nullif($4::text, ''), p.throughput_level),
			meta_per_second = CASE WHEN old.differs THEN $3::double precision ELSE p.meta_per_second END,
			messages_per_second = CASE WHEN old.differs AND old.messages_per_second IS NOT NULL THEN $3::double precision * old.part ELSE p.messages_per_second END,
			limit_source = CASE WHEN old.differs AND old.messages_per_second IS NOT NULL THEN $5::text ELSE p.limit_source END,
			limit_changed_at = CASE WHEN old.differs AND old.messages_per_second IS NOT NULL THEN clock_timestamp() ELSE p.limit_changed_at END,
			updated_at = CASE WHEN old.differs THEN clock_timestamp() ELSE p.updated_at END
		FROM old WHERE p.phone_number_id = old.phone_number_id
			AND (old.differs OR (p.throughput_level IS DISTINCT FROM $4::text AND $4::text <> ''))
		RETURNING old.differs`, by.ID, by.DisplayPhoneNumber, perSecond, level, source)
	if err != nil {
		return false, fmt.Errorf("setting the throughput of phone number id %s: %w", by.ID, err)
	}
	differed, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("setting the throughput of phone number id %s: %w", by.ID, err)
	}
	return slices.Contains(differed, true), nil
}

// SetPortfolioTier keeps Meta's messaging limit of the portfolio of a WABA: its tier, and the unique recipients in 24
// hours that go with it, nil for no limit. A tier that the portfolio has already changes nothing, so that an operator may
// go below it; nor does a word that is older than the one it is from, or of the same second with a name that sorts later.
// changed says that the limit is another now.
func (s *Store) SetPortfolioTier(ctx context.Context, tx pgx.Tx, wabaID, tier string, limit *int, at time.Time, source string) (changed bool, err error) {
	rows, err := tx.Query(ctx, `
		WITH old AS MATERIALIZED (
			SELECT portfolio_id, tier IS DISTINCT FROM $2::text AND unique_recipients_per_day IS DISTINCT FROM $3::integer AS differs FROM portfolios
			WHERE portfolio_id = (SELECT portfolio_id FROM wabas WHERE waba_id = $1::text)
			  AND (tier IS DISTINCT FROM $2::text OR tier_at IS DISTINCT FROM $5::timestamptz)
			  AND (tier_at IS NULL OR tier_at < $5::timestamptz OR (tier_at = $5::timestamptz AND tier > $2::text))
			FOR NO KEY UPDATE
		)
		UPDATE portfolios p SET tier_at = $5::timestamptz, tier = $2::text,
			unique_recipients_per_day = CASE WHEN p.tier IS DISTINCT FROM $2::text THEN $3::integer ELSE p.unique_recipients_per_day END,
			limit_source = CASE WHEN old.differs THEN $4::text ELSE p.limit_source END,
			limit_changed_at = CASE WHEN old.differs THEN clock_timestamp() ELSE p.limit_changed_at END,
			updated_at = CASE WHEN p.tier IS DISTINCT FROM $2::text THEN clock_timestamp() ELSE p.updated_at END
		FROM old WHERE p.portfolio_id = old.portfolio_id
		RETURNING old.differs`, wabaID, tier, limit, source, at)
	if err != nil {
		return false, fmt.Errorf("setting the tier of the portfolio of WABA %s: %w", wabaID, err)
	}
	differed, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("setting the tier of the portfolio of WABA %s: %w", wabaID, err)
	}
	return slices.Contains(differed, true), nil
}

// WABAsToRead gives those of the given WABAs whose phone numbers were not read from the Graph API within age, the oldest
// reading first.
func (s *Store) WABAsToRead(ctx context.Context, wabaIDs []string, age time.Duration) ([]string, error) {
	return collect(ctx, s.pool, "WABAs that are to be read", pgx.RowTo[string], `
		SELECT waba_id FROM wabas WHERE waba_id = ANY($1::text[])
			AND (looked_at IS NULL OR looked_at <= clock_timestamp() - make_interval(secs => $2::double precision))
		ORDER BY looked_at NULLS FIRST, waba_id`, wabaIDs, age.Seconds())
}

// PhoneReading is what the Graph API says of a phone number. What is "" was not said.
type PhoneReading struct {
	ID                 string
	DisplayPhoneNumber string
	QualityRating      string
	// Status is CONNECTED for a phone number that is registered.
	Status string
	// Level is the throughput's: STANDARD, HIGH or another word.
	Level string
}

// Meta's throughput by level, in messages a second both ways.
const (
	levelStandard, levelHigh         = "STANDARD", "HIGH"
	standardPerSecond, highPerSecond = 80, 1000
)

// KeepReadings keeps what was read of the phone numbers of a WABA, and that it was read now. Only phone numbers that are
// here are touched. A display number that is here stays. It gives the ids of those whose throughput is another now:
// HIGH is 1,000 a second; STANDARD is 80, but raises nothing, as phone numbers with 20 (coexistence) have no level of
// their own; other levels are kept and change no limit.
func (s *Store) KeepReadings(ctx context.Context, wabaID string, readings []PhoneReading) (changed []string, err error) {
	n := len(readings)
	ids, shown, ratings, statuses := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	levels := make(map[string]string, n)
	for i, r := range readings {
		ids[i], shown[i], ratings[i], statuses[i] = r.ID, r.DisplayPhoneNumber, r.QualityRating, r.Status
		levels[r.ID] = r.Level
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		changed = nil
		tag, err := tx.Exec(ctx, `UPDATE wabas SET looked_at = clock_timestamp() WHERE waba_id = $1::text`, wabaID)
		if err := changedOne(tag, err); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT FROM phone_numbers WHERE waba_id = $1::text ORDER BY phone_number_id FOR NO KEY UPDATE`, wabaID); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			WITH u AS (
				SELECT DISTINCT ON (id) * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS u(id, shown, rating, status) ORDER BY id
			)
			UPDATE phone_numbers p SET
				display_phone_number = CASE WHEN p.display_phone_number = '' THEN u.shown ELSE p.display_phone_number END,
				quality_rating = coalesce(nullif(u.rating, ''), p.quality_rating),
				registered = CASE WHEN u.status = '' THEN p.registered ELSE u.status = 'CONNECTED' END
			FROM u WHERE p.phone_number_id = u.id AND p.waba_id = $1::text
			RETURNING p.phone_number_id, p.meta_per_second`, wabaID, ids, shown, ratings, statuses)
		if err != nil {
			return err
		}
		type known struct {
			ID        string
			PerSecond float64
		}
		phones, err := pgx.CollectRows(rows, pgx.RowToStructByPos[known])
		if err != nil {
			return err
		}
		for _, p := range phones {
			perSecond := 0.
			switch levels[p.ID] {
			case levelStandard:
				perSecond = min(p.PerSecond, standardPerSecond)
			case levelHigh:
				perSecond = highPerSecond
			}
			differs, err := s.SetPhoneThroughput(ctx, tx, PhoneRef{ID: p.ID}, perSecond, levels[p.ID], SourceThroughput)
			if err != nil {
				return err
			}
			if differs {
				changed = append(changed, p.ID)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keeping what was read of WABA %s: %w", wabaID, err)
	}
	return changed, nil
}

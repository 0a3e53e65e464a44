package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ListedTemplate is one language of a template as Meta's list has it. What is "" or nil was not said.
type ListedTemplate struct {
	Name, Language, MetaID, Status, Reason, Category, Quality, ParameterFormat string
	Components                                                                 []byte // JSON
	Approved                                                                   bool   // the status is one that only an approved template has
}

// TemplateList is a list that was read.
type TemplateList struct {
	WABAID string
	// AskedAt is what ClaimTemplates gave.
	AskedAt time.Time
	// Pages is how many calls it took. Complete says that it was read to its end.
	Pages    int
	Complete bool
	// Every is how long the next reading has to wait; it waits longer where that would take more than a tenth of the WABA's
	// management calls.
	Every     time.Duration
	Templates []ListedTemplate // a name and language once
}

// ListedNews is what a list says that was not known.
type ListedNews struct {
	Name, Language string
	// QualityBefore and Quality are set where it has dropped, CategoryBefore and Category where it is another, Paused where
	// the template is PAUSED or DISABLED and its messages are held since.
	QualityBefore, Quality   string
	CategoryBefore, Category string
	Paused                   string
}

const (
	// templateClaim is the longest that one reading may take.
	templateClaim = `interval '5 minutes'`
	// templateShare is the part of a WABA's management calls that readings take which nobody asked for.
	templateShare = `0.1`
	// goneFor is how long a template is remembered that is there no more. Meta keeps a deleted name from being used for as long.
	goneFor = `interval '30 days'`
	// templatesWait is how long after something asked for it a list is read: others may ask too, and lists lag.
	templatesWait = `interval '30 seconds'`
	// staleFor is how much later than a write a list has to be asked for to have it.
	staleFor = `interval '3 seconds'`
)

// callsOf is how many management calls an hour a WABA w has: see TakeManagementCall.
const callsOf = `(CASE WHEN EXISTS (SELECT FROM phone_numbers p WHERE p.waba_id = w.waba_id AND p.registered IS NOT FALSE)
	THEN w.management_calls_per_hour ELSE least(w.management_calls_per_hour, 200) END)`

// TemplatesToRead gives those of the given WABAs that have an access token and whose list of templates is to be read: its
// time has come, or something has asked for it. The one that has waited the longest comes first.
func (s *Store) TemplatesToRead(ctx context.Context, wabaIDs []string) ([]string, error) {
	return collect(ctx, s.pool, "WABAs whose templates are to be read", pgx.RowTo[string], `
		SELECT w.waba_id FROM wabas w LEFT JOIN template_syncs s ON s.waba_id = w.waba_id
		WHERE w.waba_id = ANY($1::text[]) AND w.access_token IS NOT NULL AND (s.claimed_until IS NULL OR s.claimed_until < clock_timestamp())
		  AND (s.waba_id IS NULL OR s.next_at <= clock_timestamp() OR (s.wanted_at <= clock_timestamp() - `+templatesWait+` AND s.failures = 0
		       AND s.tried_at <= clock_timestamp() - make_interval(secs => least(1800, greatest(60, s.pages * 3600 / (`+templateShare+` * `+callsOf+`))))))
		ORDER BY s.next_at NULLS FIRST, w.waba_id`, wabaIDs)
}

// ClaimTemplates makes the caller the one that reads the list of a WABA, for five minutes at most: until KeepTemplates or
// MissTemplates. ok is false while another has it. ErrNotFound where there is no such WABA.
func (s *Store) ClaimTemplates(ctx context.Context, wabaID string) (askedAt time.Time, ok bool, err error) {
	err = s.pool.QueryRow(ctx, `
		INSERT INTO template_syncs AS s (waba_id, claimed_until, tried_at)
		SELECT w.waba_id, clock_timestamp() + `+templateClaim+`, clock_timestamp() FROM wabas w WHERE w.waba_id = $1::text
		ON CONFLICT (waba_id) DO UPDATE SET claimed_until = excluded.claimed_until, tried_at = excluded.tried_at
		WHERE s.claimed_until IS NULL OR s.claimed_until < clock_timestamp()
		RETURNING tried_at`, wabaID).Scan(&askedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		var there bool
		if err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM wabas WHERE waba_id = $1::text)`, wabaID).Scan(&there); err == nil && !there {
			err = ErrNotFound
		}
		if err == nil {
			return time.Time{}, false, nil
		}
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("claiming the templates of WABA %s: %w", wabaID, err)
	}
	return askedAt, true, nil
}

// MissTemplates ends a claim without a list: the next reading is after wait or, where that is 0, after about a minute, twice
// that after each further failure, an hour at most. first says that the problem is another than that of the last one.
func (s *Store) MissTemplates(ctx context.Context, wabaID string, askedAt time.Time, wait time.Duration, problem string) (first bool, failures int, err error) {
	err = s.pool.QueryRow(ctx, `
		WITH old AS MATERIALIZED (SELECT problem FROM template_syncs WHERE waba_id = $1::text)
		UPDATE template_syncs s SET claimed_until = NULL, failures = s.failures + 1, problem = $4::text,
			next_at = clock_timestamp() + make_interval(secs => CASE WHEN $3::double precision > 0 THEN $3::double precision
				ELSE least(3600, 60 * 2 ^ least(s.failures, 10)) * (0.5 + random() / 2) END)
		FROM old WHERE s.waba_id = $1::text AND s.tried_at = $2::timestamptz
		RETURNING old.problem IS DISTINCT FROM $4::text, s.failures`, wabaID, askedAt, wait.Seconds(), problem).Scan(&first, &failures)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, 0, nil // another has claimed it since
	}
	if err != nil {
		return false, 0, fmt.Errorf("giving back the templates of WABA %s: %w", wabaID, err)
	}
	return first, failures, nil
}

// KeepTemplates takes in a list. It never goes over what a webhook has said since it was asked for. Where it is complete,
// templates that it lacks are taken for deleted: at once where it came on one page, else when a second list lacks them too.
// Templates that it has as PAUSED hold their messages, also DISABLED ones that were not so before; those that it has as
// APPROVED hold them no more.
func (s *Store) KeepTemplates(ctx context.Context, l TemplateList) (news []ListedNews, err error) {
	n := len(l.Templates)
	names, languages, ids, statuses, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	categories, qualities, formats := make([]string, n), make([]string, n), make([]string, n)
	components, approved := make([]*string, n), make([]bool, n)
	for i, t := range l.Templates {
		names[i], languages[i], ids[i], statuses[i], reasons[i] = t.Name, t.Language, t.MetaID, t.Status, t.Reason
		categories[i], qualities[i], formats[i], approved[i] = t.Category, t.Quality, t.ParameterFormat, t.Approved
		if t.Components != nil {
			raw := string(t.Components)
			components[i] = &raw
		}
	}
	of := l.AskedAt.Add(-listAge)
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		here, err := lockTemplates(ctx, tx, []string{l.WABAID})
		if err != nil {
			return err
		}
		if !here[l.WABAID] {
			return ErrNotFound
		}
		if news, err = listedNews(ctx, tx, l, names, languages); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO templates AS t (waba_id, name, language, meta_id, status, status_at, reason, approved_at, category, category_at, quality, quality_at,
				parameter_format, components, components_at, listed_at)
			SELECT $1::text, u.name, u.language, nullif(u.id, ''), u.status, $2::timestamptz, nullif(nullif(u.reason, ''), 'NONE'),
				CASE WHEN u.approved THEN clock_timestamp() END, nullif(u.category, ''), $2::timestamptz, nullif(u.quality, ''), $2::timestamptz,
				nullif(u.format, ''), u.components::json, $3::timestamptz, $3::timestamptz
			FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::boolean[])
				AS u(name, language, id, status, reason, category, quality, format, components, approved)
			ON CONFLICT (waba_id, name, language) DO UPDATE SET
				meta_id = coalesce(excluded.meta_id, t.meta_id),
				status = CASE WHEN excluded.status_at >= t.status_at THEN excluded.status ELSE t.status END,
				reason = CASE WHEN excluded.status_at >= t.status_at THEN excluded.reason ELSE t.reason END,
				status_at = greatest(excluded.status_at, t.status_at),
				approved_at = coalesce(t.approved_at, excluded.approved_at),
				category = CASE WHEN excluded.category IS NOT NULL AND (t.category_at IS NULL OR excluded.category_at >= t.category_at) THEN excluded.category ELSE t.category END,
				category_at = CASE WHEN excluded.category IS NULL THEN t.category_at ELSE greatest(excluded.category_at, t.category_at) END,
				quality_before = CASE WHEN excluded.quality IS NULL OR excluded.quality_at < t.quality_at OR excluded.quality IS NOT DISTINCT FROM t.quality THEN t.quality_before
					WHEN array_position($14::text[], excluded.quality) > array_position($14::text[], t.quality) AND excluded.quality <> 'GREEN' THEN t.quality END,
				quality = CASE WHEN excluded.quality IS NOT NULL AND (t.quality_at IS NULL OR excluded.quality_at >= t.quality_at) THEN excluded.quality ELSE t.quality END,
				quality_at = CASE WHEN excluded.quality IS NULL THEN t.quality_at ELSE greatest(excluded.quality_at, t.quality_at) END,
				parameter_format = excluded.parameter_format,
				components = CASE WHEN t.components::text IS NOT DISTINCT FROM excluded.components::text THEN t.components ELSE excluded.components END,
				components_at = excluded.components_at, listed_at = excluded.listed_at, missed_at = NULL, gone_at = NULL`,
			l.WABAID, of, l.AskedAt, names, languages, ids, statuses, reasons, categories, qualities, formats, components, approved, qualityOrder)
		if err != nil {
			return err
		}
		if err := missTemplates(ctx, tx, l, of); err != nil {
			return err
		}
		if news, err = s.holdListed(ctx, tx, l.WABAID, of, news); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			UPDATE template_syncs s SET read_at = clock_timestamp(), complete = $3::boolean, synced_at = CASE WHEN $3::boolean THEN $2::timestamptz ELSE s.synced_at END,
				pages = greatest($4::integer, 1), claimed_until = NULL, failures = 0, problem = CASE WHEN $3::boolean THEN NULL ELSE 'the list is too long to be read whole' END,
				next_at = clock_timestamp() + greatest(make_interval(secs => $5::double precision),
					least(make_interval(secs => $4::integer * 3600 / (`+templateShare+` * `+callsOf+`)), interval '6 hours')),
				wanted_at = CASE WHEN s.stale_at > $2::timestamptz - `+staleFor+` THEN coalesce(s.wanted_at, clock_timestamp()) WHEN s.wanted_at > $2::timestamptz THEN s.wanted_at END
			FROM wabas w WHERE s.waba_id = $1::text AND w.waba_id = s.waba_id`, l.WABAID, l.AskedAt, l.Complete, l.Pages, l.Every.Seconds())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keeping the templates of WABA %s: %w", l.WABAID, err)
	}
	return news, nil
}

// listedNews compares a list with what is known: quality and category, and which templates are paused or disabled.
func listedNews(ctx context.Context, tx pgx.Tx, l TemplateList, names, languages []string) ([]ListedNews, error) {
	rows, err := tx.Query(ctx, `
		SELECT u.n, coalesce(t.status, ''), coalesce(t.quality, ''), coalesce(t.category, '')
		FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS u(name, language, n)
		JOIN templates t ON t.waba_id = $1::text AND t.name = u.name AND t.language = u.language`, l.WABAID, names, languages)
	if err != nil {
		return nil, err
	}
	type known struct{ status, quality, category string }
	before := map[int]known{}
	var at int
	var k known
	if _, err := pgx.ForEachRow(rows, []any{&at, &k.status, &k.quality, &k.category}, func() error { before[at-1] = k; return nil }); err != nil {
		return nil, err
	}
	var news []ListedNews
	for i, t := range l.Templates {
		was, there := before[i]
		n := ListedNews{Name: t.Name, Language: t.Language}
		if lower(t.Quality, was.quality) {
			n.QualityBefore, n.Quality = was.quality, t.Quality
		}
		if was.category != "" && t.Category != "" && was.category != t.Category {
			n.CategoryBefore, n.Category = was.category, t.Category
		}
		if t.Status == "PAUSED" || t.Status == "DISABLED" && there && was.status != t.Status {
			n.Paused = t.Status
		}
		if n.QualityBefore+n.CategoryBefore+n.Paused != "" {
			news = append(news, n)
		}
	}
	return news, nil
}

// missTemplates notes what a whole list lacks.
func missTemplates(ctx context.Context, tx pgx.Tx, l TemplateList, of time.Time) error {
	if !l.Complete {
		return nil
	}
	_, err := tx.Exec(ctx, `
		UPDATE templates SET missed_at = coalesce(missed_at, $2::timestamptz),
			gone_at = CASE WHEN missed_at IS NOT NULL OR $4::integer <= 1 THEN clock_timestamp() END
		WHERE waba_id = $1::text AND gone_at IS NULL AND status_at < $3::timestamptz AND (listed_at IS NULL OR listed_at < $2::timestamptz)`,
		l.WABAID, l.AskedAt, of, l.Pages)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM templates WHERE waba_id = $1::text AND gone_at < clock_timestamp() - `+goneFor, l.WABAID)
	return err
}

// maxListedPauses bounds the pauses that one list sets: every worker reads them all.
const maxListedPauses = 200

// holdListed lets go what pauses of templates hold that the list has as APPROVED, and holds what it has as paused. It gives
// the news without those that were held already, or of which a webhook has said something newer.
func (s *Store) holdListed(ctx context.Context, tx pgx.Tx, wabaID string, of time.Time, news []ListedNews) ([]ListedNews, error) {
	_, err := tx.Exec(ctx, `
		DELETE FROM pauses p USING templates t
		WHERE p.scope = 'template' AND p.source = $3::text AND p.code IN (132015, 132016) AND p.updated_at < $2::timestamptz
		  AND t.waba_id = $1::text AND t.status = 'APPROVED' AND t.status_at = $2::timestamptz
		  AND p.value IN (t.waba_id || ':' || t.name, t.waba_id || ':' || t.name || '/' || t.language)`, wabaID, of, ThrottleSource)
	if err != nil {
		return nil, err
	}
	kept, pauses := news[:0], 0
	for _, n := range news {
		if n.Paused != "" {
			p := Pause{Scope: HoldTemplate, Value: wabaID + ":" + n.Name + "/" + n.Language, Code: 132015, Reason: "Template is paused, by Meta's list"}
			if n.Paused == "DISABLED" {
				p.Code, p.Reason = 132016, "Template is disabled, by Meta's list"
			}
			var current bool
			err := tx.QueryRow(ctx, `
				SELECT EXISTS (SELECT FROM templates WHERE waba_id = $1::text AND name = $2::text AND language = $3::text AND status = $4::text AND status_at = $5::timestamptz)
				AND NOT EXISTS (SELECT FROM pauses WHERE scope = $6::text AND value = $7::text AND source = $8::text AND (until IS NULL OR until > clock_timestamp()))`,
				wabaID, n.Name, n.Language, n.Paused, of, p.Scope, p.Value, ThrottleSource).Scan(&current)
			if err != nil {
				return nil, err
			}
			if current && pauses < maxListedPauses {
				pauses++
				if current, err = s.AnnouncePause(ctx, tx, p); err != nil {
					return nil, err
				}
			}
			if !current {
				n.Paused = ""
			}
		}
		if n.QualityBefore+n.CategoryBefore+n.Paused != "" {
			kept = append(kept, n)
		}
	}
	return kept, nil
}

// StaleTemplates notes that templates of a WABA were written: nothing is refused by a list that was asked for before, and
// another is read soon.
func (s *Store) StaleTemplates(ctx context.Context, wabaID string) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO template_syncs AS s (waba_id, stale_at, wanted_at)
		SELECT w.waba_id, clock_timestamp(), clock_timestamp() FROM wabas w WHERE w.waba_id = $1::text
		ON CONFLICT (waba_id) DO UPDATE SET version = s.version + 1, stale_at = clock_timestamp(), wanted_at = coalesce(s.wanted_at, clock_timestamp())`, wabaID)
	if err != nil {
		return fmt.Errorf("noting that the templates of WABA %s have changed: %w", wabaID, err)
	}
	return nil
}

// WantTemplates asks for the list of a WABA to be read soon, where it was read before.
func (s *Store) WantTemplates(ctx context.Context, wabaID string) error {
	_, err := s.pool.Exec(ctx, `UPDATE template_syncs SET wanted_at = clock_timestamp() WHERE waba_id = $1::text AND wanted_at IS NULL`, wabaID)
	if err != nil {
		return fmt.Errorf("asking for the templates of WABA %s: %w", wabaID, err)
	}
	return nil
}

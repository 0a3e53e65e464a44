package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// TemplateSync is how well the templates of a WABA are known.
type TemplateSync struct {
	WABAID string
	// Version is another after every change of one of them; 0 where nothing was ever heard.
	Version int64
	// SyncedAt is when the last complete list was asked for, ReadAt when the last one was read, Age how old the complete one is.
	SyncedAt, ReadAt *time.Time
	Age              time.Duration
	// Complete says whether the last list was read to its end.
	Complete bool
	// Trusted says that a message may be refused by it: the complete list is younger than an hour, and no template was
	// written through the gateway since.
	Trusted bool
	// NextAt is when the list is read again if nothing asks for it before.
	NextAt *time.Time
	// Problem is why the last reading failed; "" where it did not.
	Problem string
}

// trusted says of a template_syncs row s whether a message may be refused by it.
const trusted = `(s.synced_at > clock_timestamp() - interval '1 hour' AND (s.stale_at IS NULL OR s.synced_at >= s.stale_at + ` + staleFor + `))`

const syncColumns = `coalesce(s.version, 0), s.synced_at, s.read_at, coalesce(extract(epoch FROM clock_timestamp() - s.synced_at), 0)::double precision,
	coalesce(s.complete, false), coalesce(` + trusted + `, false), s.next_at, coalesce(s.problem, '')`

// PhoneTemplates is how well the templates of a phone number's WABA are known.
type PhoneTemplates struct {
	PhoneNumberID string
	TemplateSync
}

// TemplatesOfPhones gives it for each of the phone numbers that is here.
func (s *Store) TemplatesOfPhones(ctx context.Context, phoneNumberIDs []string) ([]PhoneTemplates, error) {
	return collect(ctx, s.pool, "how well templates are known", func(r pgx.CollectableRow) (p PhoneTemplates, err error) {
		var age float64
		err = r.Scan(&p.PhoneNumberID, &p.WABAID, &p.Version, &p.SyncedAt, &p.ReadAt, &age, &p.Complete, &p.Trusted, &p.NextAt, &p.Problem)
		p.Age = time.Duration(age * float64(time.Second))
		return p, err
	}, `SELECT p.phone_number_id, p.waba_id, `+syncColumns+`
		FROM phone_numbers p LEFT JOIN template_syncs s ON s.waba_id = p.waba_id WHERE p.phone_number_id = ANY($1::text[])`, phoneNumberIDs)
}

// TemplateSyncs gives how well the templates of WABAs are known, by id: of those named, all where wabaIDs is nil; of those with
// one of the phone numbers, all where phones is empty.
func (s *Store) TemplateSyncs(ctx context.Context, wabaIDs, phones []string) ([]TemplateSync, error) {
	return collect(ctx, s.pool, "how well templates are known", func(r pgx.CollectableRow) (t TemplateSync, err error) {
		var age float64
		err = r.Scan(&t.WABAID, &t.Version, &t.SyncedAt, &t.ReadAt, &age, &t.Complete, &t.Trusted, &t.NextAt, &t.Problem)
		t.Age = time.Duration(age * float64(time.Second))
		return t, err
	}, `SELECT w.waba_id, `+syncColumns+`
		FROM wabas w LEFT JOIN template_syncs s ON s.waba_id = w.waba_id
		WHERE ($1::text[] IS NULL OR w.waba_id = ANY($1::text[]))
		  AND (cardinality($2::text[]) = 0 OR EXISTS (SELECT FROM phone_numbers p WHERE p.waba_id = w.waba_id AND p.phone_number_id = ANY($2::text[])))
		ORDER BY w.waba_id`, wabaIDs, notNil(phones))
}

// TemplateKey is the place of a template in the order of all.
type TemplateKey struct{ WABAID, Name, Language string }

// TemplateFilter picks templates. What is "" picks all.
type TemplateFilter struct {
	WABAIDs                          []string // never all: none where it is empty
	Name, Language, Status, Category string
	// After is the last one of the page before; Limit how many there may be.
	After TemplateKey
	Limit int
}

const templateColumns = `waba_id, name, language, coalesce(meta_id, ''), status, status_at, coalesce(reason, ''), approved_at, coalesce(category, ''),
	coalesce(CASE WHEN next_category IS DISTINCT FROM category THEN next_category END, ''),
	CASE WHEN next_category IS DISTINCT FROM category THEN next_category_at END,
	coalesce(quality, ''), quality_at, coalesce(quality_before, ''), coalesce(parameter_format, ''), components::text,
	coalesce(components IS NOT NULL AND (doubted_at IS NULL OR components_at >= doubted_at), false), first_seen_at, listed_at, gone_at`

func scanTemplate(r pgx.CollectableRow) (t Template, err error) {
	var components *string
	err = r.Scan(&t.WABAID, &t.Name, &t.Language, &t.MetaID, &t.Status, &t.StatusAt, &t.Reason, &t.ApprovedAt, &t.Category, &t.NextCategory,
		&t.NextCategoryAt, &t.Quality, &t.QualityAt, &t.QualityBefore, &t.ParameterFormat, &components, &t.Sure, &t.FirstSeenAt, &t.ListedAt, &t.GoneAt)
	if components != nil {
		t.Components = []byte(*components)
	}
	return t, err
}

// ListTemplates reads a page of templates, by WABA, name and language; also those that are gone, which the status GONE picks.
func (s *Store) ListTemplates(ctx context.Context, f TemplateFilter) ([]Template, error) {
	return collect(ctx, s.pool, "templates", scanTemplate, `SELECT `+templateColumns+` FROM templates
		WHERE waba_id = ANY($1::text[]) AND (waba_id, name, language) > ($2::text, $3::text, $4::text)
		  AND ($5::text = '' OR name = $5::text) AND ($6::text = '' OR language = $6::text)
		  AND ($7::text = '' OR CASE WHEN gone_at IS NOT NULL THEN 'GONE' ELSE status END = $7::text) AND ($8::text = '' OR category = $8::text)
		ORDER BY waba_id, name, language LIMIT $9::integer`,
		f.WABAIDs, f.After.WABAID, f.After.Name, f.After.Language, f.Name, f.Language, f.Status, f.Category, f.Limit)
}

// TemplatesOf reads all that is known of the templates of a WABA, up to limit of them.
func (s *Store) TemplatesOf(ctx context.Context, wabaID string, limit int) ([]Template, error) {
	all, err := collect(ctx, s.pool, "templates", scanTemplate, `SELECT `+templateColumns+` FROM templates WHERE waba_id = $1::text
		ORDER BY name, language LIMIT $2::integer`, wabaID, limit)
	if err != nil {
		return nil, fmt.Errorf("WABA %s: %w", wabaID, err)
	}
	return all, nil
}

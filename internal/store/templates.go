package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Template is what is known of one language of a message template. What is "" is not known.
type Template struct {
	WABAID   string
	Name     string
	Language string // with underscores, as en_US
	MetaID   string
	// Status is Meta's word, Reason why it rejected the template.
	Status   string
	StatusAt time.Time
	Reason   string
	// ApprovedAt is when it was first seen with a status that only an approved template has.
	ApprovedAt *time.Time
	Category   string
	// NextCategory is announced, from NextCategoryAt on.
	NextCategory   string
	NextCategoryAt *time.Time
	// Quality is GREEN, YELLOW, RED or UNKNOWN; QualityBefore the higher one before it.
	Quality         string
	QualityAt       *time.Time
	QualityBefore   string
	ParameterFormat string
	Components      []byte // JSON, as Meta lists them; nil for not known
	// Sure says that nothing has been heard since that may have changed the components.
	Sure        bool
	FirstSeenAt time.Time
	ListedAt    *time.Time
	// GoneAt is when it was found missing in the list of all.
	GoneAt *time.Time
}

// TemplateWord is what a webhook says of one language of a template. What is "" was not said.
type TemplateWord struct {
	WABAID, Name, Language, MetaID string
	// At is when Meta said it.
	At             time.Time
	Status, Reason string
	Category       string
	NextCategory   string
	NextCategoryAt time.Time // zero for not said
	Quality        string
	QualityBefore  string
	Components     bool // they may be others than those known
	Approved       bool // the status is one that only an approved template has
}

// HeardTemplate is what became of a word.
type HeardTemplate struct {
	// Known says that the WABA is here; of another nothing is kept.
	Known bool
	// News says that the status is the newest there is, and was not told of before.
	News bool
	// QualityDropped says that the quality is lower than the one known before.
	QualityDropped bool
	// CategoryBefore is the category that was known before, where it is another now.
	CategoryBefore string
}

// lockTemplates locks what is known of the templates of WABAs against others that would change it, raises its version, and
// gives those of the WABAs that are here.
func lockTemplates(ctx context.Context, tx pgx.Tx, wabaIDs []string) (map[string]bool, error) {
	rows, err := tx.Query(ctx, `
		INSERT INTO template_syncs AS s (waba_id)
		SELECT w.waba_id FROM wabas w WHERE w.waba_id = ANY($1::text[]) ORDER BY w.waba_id
		ON CONFLICT (waba_id) DO UPDATE SET version = s.version + 1
		RETURNING waba_id`, wabaIDs)
	if err != nil {
		return nil, fmt.Errorf("locking the templates of %d WABAs: %w", len(wabaIDs), err)
	}
	here := map[string]bool{}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { here[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("locking the templates of %d WABAs: %w", len(wabaIDs), err)
	}
	return here, nil
}

// HearTemplates takes in what webhooks say of templates, and gives what became of each word. A word never goes over a newer
// one; of two of one time the graver stands, in whatever order they come. A language that is not known yet is known then, but
// for its components; a word without a language concerns those that are known.
func (s *Store) HearTemplates(ctx context.Context, tx pgx.Tx, words []TemplateWord) ([]HeardTemplate, error) {
	if len(words) == 0 {
		return nil, nil
	}
	var wabas []string
	for _, w := range words {
		wabas = append(wabas, w.WABAID)
	}
	here, err := lockTemplates(ctx, tx, wabas)
	if err != nil {
		return nil, err
	}
	heard := make([]HeardTemplate, len(words))
	ask := map[string]bool{}
	for i, w := range words {
		if !here[w.WABAID] {
			continue
		}
		heard[i].Known = true
		languages := []string{w.Language}
		if w.Language == "" {
			if languages, err = languagesOf(ctx, tx, w); err != nil {
				return nil, err
			}
			heard[i].News = len(languages) == 0 && w.Status != "" // nothing says that it is not
		}
		for _, w.Language = range languages {
			h, fresh, err := hearTemplate(ctx, tx, w)
			if err != nil {
				return nil, err
			}
			heard[i].News = heard[i].News || h.News
			heard[i].QualityDropped = heard[i].QualityDropped || h.QualityDropped
			if h.CategoryBefore != "" {
				heard[i].CategoryBefore = h.CategoryBefore
			}
			if fresh || w.Components {
				ask[w.WABAID] = true
			}
		}
	}
	for waba := range ask {
		if _, err := tx.Exec(ctx, `UPDATE template_syncs SET wanted_at = coalesce(wanted_at, clock_timestamp()) WHERE waba_id = $1::text`, waba); err != nil {
			return nil, fmt.Errorf("asking for the templates of WABA %s: %w", waba, err)
		}
	}
	return heard, nil
}

func languagesOf(ctx context.Context, tx pgx.Tx, w TemplateWord) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT language FROM templates WHERE waba_id = $1::text AND name = $2::text ORDER BY language`, w.WABAID, w.Name)
	if err != nil {
		return nil, fmt.Errorf("reading the languages of a template of WABA %s: %w", w.WABAID, err)
	}
	languages, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading the languages of a template of WABA %s: %w", w.WABAID, err)
	}
	return languages, nil
}

// templateParts is what words change of a row. Times are those of the words.
type templateParts struct {
	metaID                     *string
	status                     string
	statusAt                   time.Time
	reason                     *string
	approvedAt                 *time.Time
	category                   *string
	categoryAt                 *time.Time
	nextCategory               *string
	nextCategoryAt, nextSaidAt *time.Time
	quality                    *string
	qualityAt                  *time.Time
	qualityBefore              *string
	componentsAt, doubtedAt    *time.Time
	missedAt, goneAt           *time.Time
}

// listAge is how much older than its request a list may be: what it says does not go over a webhook of the time between. It
// covers clocks that differ, times in whole seconds, and a list that lags.
const listAge = 10 * time.Second

// hearTemplate takes one word in; fresh says that its template was not known. The caller holds the lock of its WABA.
func hearTemplate(ctx context.Context, tx pgx.Tx, w TemplateWord) (h HeardTemplate, fresh bool, err error) {
	var p templateParts
	var now time.Time
	err = tx.QueryRow(ctx, `
		SELECT t.meta_id, coalesce(t.status, ''), coalesce(t.status_at, 'epoch'), t.reason, t.approved_at, t.category, t.category_at, t.next_category,
			t.next_category_at, t.next_said_at, t.quality, t.quality_at, t.quality_before, t.components_at, t.doubted_at, t.missed_at, t.gone_at, t.name IS NULL, clock_timestamp()
		FROM (SELECT) AS one LEFT JOIN templates t ON t.waba_id = $1::text AND t.name = $2::text AND t.language = $3::text`,
		w.WABAID, w.Name, w.Language).Scan(&p.metaID, &p.status, &p.statusAt, &p.reason, &p.approvedAt, &p.category, &p.categoryAt, &p.nextCategory,
		&p.nextCategoryAt, &p.nextSaidAt, &p.quality, &p.qualityAt, &p.qualityBefore, &p.componentsAt, &p.doubtedAt, &p.missedAt, &p.goneAt, &fresh, &now)
	if err != nil {
		return h, false, fmt.Errorf("reading a template of WABA %s: %w", w.WABAID, err)
	}
	h = p.hear(w, now)
	_, err = tx.Exec(ctx, `
		INSERT INTO templates (waba_id, name, language, meta_id, status, status_at, reason, approved_at, category, category_at, next_category,
			next_category_at, next_said_at, quality, quality_at, quality_before, doubted_at, missed_at, gone_at)
		VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::text, $8::timestamptz, $9::text, $10::timestamptz, $11::text,
			$12::timestamptz, $13::timestamptz, $14::text, $15::timestamptz, $16::text, $17::timestamptz, $18::timestamptz, $19::timestamptz)
		ON CONFLICT (waba_id, name, language) DO UPDATE SET meta_id = excluded.meta_id, status = excluded.status, status_at = excluded.status_at,
			reason = excluded.reason, approved_at = excluded.approved_at, category = excluded.category, category_at = excluded.category_at,
			next_category = excluded.next_category, next_category_at = excluded.next_category_at, next_said_at = excluded.next_said_at, quality = excluded.quality,
			quality_at = excluded.quality_at, quality_before = excluded.quality_before, doubted_at = excluded.doubted_at,
			missed_at = excluded.missed_at, gone_at = excluded.gone_at`,
		w.WABAID, w.Name, w.Language, p.metaID, p.status, p.statusAt, p.reason, p.approvedAt, p.category, p.categoryAt, p.nextCategory,
		p.nextCategoryAt, p.nextSaidAt, p.quality, p.qualityAt, p.qualityBefore, p.doubtedAt, p.missedAt, p.goneAt)
	if err != nil {
		return h, false, fmt.Errorf("keeping a template of WABA %s: %w", w.WABAID, err)
	}
	return h, fresh, nil
}

// hear changes what a word is the newest about.
func (p *templateParts) hear(w TemplateWord, now time.Time) (h HeardTemplate) {
	if w.MetaID != "" {
		p.metaID = &w.MetaID
	}
	if w.Status != "" && newer(w.At, w.Status, &p.statusAt, p.status, statusOrder) {
		h.News = w.Status != p.status || !w.At.Equal(p.statusAt)
		p.status, p.statusAt, p.reason, p.missedAt, p.goneAt = w.Status, w.At, filled(w.Reason), nil, nil
	}
	if w.Approved && p.approvedAt == nil {
		p.approvedAt = &now
	}
	if w.Category != "" && newer(w.At, w.Category, p.categoryAt, text(p.category), nil) {
		if was := text(p.category); was != w.Category {
			h.CategoryBefore = was
		}
		p.category, p.categoryAt = &w.Category, &w.At
	}
	if w.NextCategory != "" && newer(w.At, w.NextCategory, p.nextSaidAt, text(p.nextCategory), nil) {
		p.nextCategory, p.nextSaidAt, p.nextCategoryAt = &w.NextCategory, &w.At, nil
		if !w.NextCategoryAt.IsZero() {
			p.nextCategoryAt = &w.NextCategoryAt
		}
	}
	if w.Quality != "" && newer(w.At, w.Quality, p.qualityAt, text(p.quality), qualityOrder) {
		before := w.QualityBefore
		if before == "" {
			before = text(p.quality)
		}
		repeated := p.qualityAt != nil && w.At.Equal(*p.qualityAt) && w.Quality == text(p.quality)
		p.quality, p.qualityAt, p.qualityBefore = &w.Quality, &w.At, nil
		if lower(w.Quality, before) {
			p.qualityBefore = &before
			h.QualityDropped = !repeated
		}
	}
	if w.Components && (p.componentsAt == nil || w.At.After(p.componentsAt.Add(-listAge))) {
		p.doubtedAt = &now
	}
	return h
}

// statusOrder and qualityOrder order words of one time: the later in a template's life, and the graver, stands.
var (
	statusOrder  = []string{"PENDING", "IN_APPEAL", "FLAGGED", "APPROVED", "LIMIT_EXCEEDED", "LOCKED", "PAUSED", "REJECTED", "ARCHIVED", "DISABLED", "PENDING_DELETION", "DELETED"}
	qualityOrder = []string{"UNKNOWN", "GREEN", "YELLOW", "RED"}
)

// newer says whether a word goes over the one that is there. What is repeated does.
func newer(at time.Time, word string, thereAt *time.Time, there string, order []string) bool {
	switch {
	case thereAt == nil || at.After(*thereAt):
		return true
	case at.Before(*thereAt):
		return false
	}
	a, b := slices.Index(order, word), slices.Index(order, there)
	return a > b || a == b && word >= there
}

// lower says whether a quality is worse than the one known before it.
func lower(quality, before string) bool {
	return before != "" && quality != "GREEN" && slices.Index(qualityOrder, quality) > slices.Index(qualityOrder, before)
}

func filled(s string) *string {
	if s == "" || s == "NONE" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

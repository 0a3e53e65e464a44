package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// limits gives what is kept of a phone number's limit.
func limits(t *testing.T, pool *pgxpool.Pool, id string) string {
	t.Helper()
	var s string
	err := pool.QueryRow(t.Context(), `
		SELECT concat_ws(' ', coalesce(messages_per_second::text, 'none'), meta_per_second, limit_source, limit_changed_at IS NOT NULL,
			coalesce(throughput_level, '-'), coalesce(quality_rating, '-'), coalesce(registered::text, '-'), display_phone_number)
		FROM phone_numbers WHERE phone_number_id = $1`, id).Scan(&s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func phones(t *testing.T) (*store.Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t)
	s := store.New(pool)
	exec(t, pool, `INSERT INTO portfolios (portfolio_id) VALUES ('9')`)
	exec(t, pool, `INSERT INTO wabas (waba_id, portfolio_id) VALUES ('100', '9'), ('101', NULL)`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number, messages_per_second) VALUES
		('200', '100', '+1 650-555-0001', 80), ('201', '100', '+1 (650) 555-0002', 60), ('202', '100', '', NULL), ('203', '101', '', 80), ('204', '100', '', 120)`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, messages_per_second, meta_per_second) VALUES ('205', '100', 20, 20)`)
	return s, pool
}

func TestSetPhoneThroughput(t *testing.T) {
	s, pool := phones(t)
	for i, c := range []struct {
		by      store.PhoneRef
		rate    float64
		level   string
		changed bool
		id      string
		want    string
	}{
		{store.PhoneRef{ID: "200"}, 80, "STANDARD", false, "200", "80 80 operator f STANDARD - - +1 650-555-0001"},
		{store.PhoneRef{ID: "200"}, 0, "NOT_APPLICABLE", false, "200", "80 80 operator f NOT_APPLICABLE - - +1 650-555-0001"},
		{store.PhoneRef{ID: "200"}, 1000, "HIGH", true, "200", "1000 1000 webhook t HIGH - - +1 650-555-0001"},
		{store.PhoneRef{ID: "200"}, 1000, "HIGH", false, "200", "1000 1000 webhook t HIGH - - +1 650-555-0001"},
		{store.PhoneRef{DisplayPhoneNumber: "16505550002"}, 1000, "", true, "201", "750 1000 webhook t - - - +1 (650) 555-0002"},
		{store.PhoneRef{ID: "202"}, 1000, "HIGH", true, "202", "none 1000 operator f HIGH - - "},
		{store.PhoneRef{ID: "204"}, 1000, "HIGH", true, "204", "1000 1000 webhook t HIGH - - "},
		{store.PhoneRef{ID: "999"}, 1000, "HIGH", false, "203", "80 80 operator f - - - "},
		{store.PhoneRef{DisplayPhoneNumber: "+"}, 1000, "HIGH", false, "203", "80 80 operator f - - - "},
		{store.PhoneRef{}, 1000, "HIGH", false, "203", "80 80 operator f - - - "},
	} {
		inTx(t, s, func(tx pgx.Tx) error {
			changed, err := s.SetPhoneThroughput(t.Context(), tx, c.by, c.rate, c.level, store.SourceWebhook)
			if changed != c.changed {
				t.Errorf("case %d: changed is %t", i, changed)
			}
			return err
		})
		if got := limits(t, pool, c.id); got != c.want {
			t.Errorf("case %d: %s, not %s", i, got, c.want)
		}
	}
}

func TestSetPortfolioTier(t *testing.T) {
	s, pool := phones(t)
	limit := func(n int) *int { return &n }
	for i, c := range []struct {
		waba, tier string
		limit      *int
		changed    bool
		want       string
	}{
		{"100", "TIER_2K", limit(2000), true, "TIER_2K 2000 webhook t"},
		{"100", "TIER_2K", limit(3000), false, "TIER_2K 2000 webhook t"}, // again: an operator's limit would stay
		{"100", "TIER_UNLIMITED", nil, true, "TIER_UNLIMITED none webhook t"},
		{"101", "TIER_250", limit(250), false, "TIER_UNLIMITED none webhook t"},
		{"100", "TIER_OTHER", nil, false, "TIER_OTHER none webhook t"},
	} {
		inTx(t, s, func(tx pgx.Tx) error {
			changed, err := s.SetPortfolioTier(t.Context(), tx, c.waba, c.tier, c.limit, time.Unix(1_790_000_000+int64(i), 0), store.SourceWebhook)
			if changed != c.changed {
				t.Errorf("case %d: changed is %t", i, changed)
			}
			return err
		})
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT concat_ws(' ', tier, coalesce(unique_recipients_per_day::text, 'none'), limit_source, limit_changed_at IS NOT NULL)
			FROM portfolios`).Scan(&got); err != nil || got != c.want {
			t.Errorf("case %d: %s, %v, not %s", i, got, err, c.want)
		}
	}
}

func TestKeepReadings(t *testing.T) {
	s, pool := phones(t)
	due := func() string {
		t.Helper()
		ids, err := s.WABAsToRead(t.Context(), []string{"100", "101", "999"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(ids)
	}
	if got := due(); got != "[100 101]" {
		t.Errorf("due are %s", got)
	}
	changed, err := s.KeepReadings(t.Context(), "100", []store.PhoneReading{
		{ID: "200", DisplayPhoneNumber: "+1 1", QualityRating: "GREEN", Status: "CONNECTED", Level: "HIGH"},
		{ID: "201", QualityRating: "YELLOW", Status: "PENDING", Level: "STANDARD"},
		{ID: "202", DisplayPhoneNumber: "+1 2", Level: "NOT_APPLICABLE"},
		{ID: "203", DisplayPhoneNumber: "+1 3", Status: "CONNECTED", Level: "HIGH"}, // of another WABA here
		{ID: "205", Status: "CONNECTED", Level: "STANDARD"},
		{ID: "999", Level: "HIGH"},
	})
	if err != nil || fmt.Sprint(changed) != "[200]" {
		t.Errorf("changed %v, %v", changed, err)
	}
	for id, want := range map[string]string{
		"200": "1000 1000 throughput t HIGH GREEN true +1 650-555-0001",
		"201": "60 80 operator f STANDARD YELLOW false +1 (650) 555-0002",
		"202": "none 80 operator f NOT_APPLICABLE - - +1 2",
		"203": "80 80 operator f - - - ",
		"205": "20 20 operator f STANDARD - true ",
	} {
		if got := limits(t, pool, id); got != want {
			t.Errorf("%s: %s, not %s", id, got, want)
		}
	}
	if got := due(); got != "[101]" {
		t.Errorf("due are %s", got)
	}
	// What is not said stays; a level that is back brings its rate.
	if changed, err = s.KeepReadings(t.Context(), "100", []store.PhoneReading{{ID: "200", Level: "STANDARD"}}); err != nil || fmt.Sprint(changed) != "[200]" {
		t.Errorf("changed %v, %v", changed, err)
	}
	if got := limits(t, pool, "200"); got != "80 80 throughput t STANDARD GREEN true +1 650-555-0001" {
		t.Errorf("200: %s", got)
	}
	if _, err := s.KeepReadings(t.Context(), "999", nil); err == nil {
		t.Error("a WABA that is not here was read")
	}
}

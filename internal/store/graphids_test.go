package store_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestGraphNode(t *testing.T) {
	pool := pgtest.New(t)
	s, ctx := store.New(pool), t.Context()
	app, phone := "900", "101"
	if err := s.PutApp(ctx, store.App{ID: app}); err != nil {
		t.Fatal(err)
	}
	for waba, phones := range map[string][]string{"100": {"101", "102"}, "200": {"201"}, "300": {}} {
		w := store.WABA{ID: waba, Burst: 1, ManagementCallsPerHour: 1}
		if waba != "200" {
			w.AppID = &app
		}
		if err := s.PutWABA(ctx, w, nil); err != nil {
			t.Fatal(err)
		}
		for _, p := range phones {
			if err := s.PutPhoneNumber(ctx, store.PhoneNumber{ID: p, WABAID: waba, Burst: 1, WindowCheck: "off"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.SeeGraphIDs(ctx, []store.GraphID{{ID: "5", WABAID: "100", PhoneNumberID: &phone, Kind: "media"}, {ID: "6", WABAID: "400", Kind: "flow"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id, via string
		phones  []string
		want    store.GraphNode
		seen    bool
	}{
		{"101", "", nil, store.GraphNode{PhoneWABA: "100", Mine: []string{"100", "200"}}, false},
		{"100", "201", []string{"102", "101"}, store.GraphNode{WABA: true, ViaWABA: "200", Mine: []string{"100"}}, false},
		{"900", "9", nil, store.GraphNode{App: true, Mine: []string{"100", "200"}, AppWABAs: []string{"100", "300"}}, false},
		{"900", "", []string{"201", "101"}, store.GraphNode{App: true, Mine: []string{"100", "200"}, AppWABAs: []string{"100"}}, false},
		{"5", "", []string{"999"}, store.GraphNode{}, true},
		{"6", "", []string{"201"}, store.GraphNode{Mine: []string{"200"}}, false}, // of a WABA that is not here
		{"", "", []string{}, store.GraphNode{Mine: []string{"100", "200"}}, false},
	} {
		n, err := s.GraphNode(ctx, c.id, c.via, c.phones)
		if err != nil || n.PhoneWABA != c.want.PhoneWABA || n.WABA != c.want.WABA || n.App != c.want.App || n.ViaWABA != c.want.ViaWABA ||
			!slices.Equal(n.Mine, c.want.Mine) || !slices.Equal(n.AppWABAs, c.want.AppWABAs) || (n.Seen != nil) != c.seen {
			t.Errorf("%q via %q for %v: %+v, %v", c.id, c.via, c.phones, n, err)
		}
		if c.seen && (n.Seen.WABAID != "100" || *n.Seen.PhoneNumberID != "101" || n.Seen.Kind != "media" || time.Since(n.Seen.SeenAt) > time.Hour) {
			t.Errorf("%+v", n.Seen)
		}
	}
}

// Seeing ids again moves them on, at most once an hour, and to another WABA at once; many may see them at the same time.
func TestSeeGraphIDs(t *testing.T) {
	pool := pgtest.New(t)
	s, ctx := store.New(pool), t.Context()
	if err := s.SeeGraphIDs(ctx, nil); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'), ('200')`)
	ids := []store.GraphID{{ID: "2", WABAID: "100", Kind: "template"}, {ID: "1", WABAID: "100", Kind: "template"}, {ID: "2", WABAID: "100", Kind: "template"}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if err := s.SeeGraphIDs(ctx, ids); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	age := func(id string) time.Duration {
		t.Helper()
		n, err := s.GraphNode(ctx, id, "", nil)
		if err != nil || n.Seen == nil {
			t.Fatalf("%s: %+v, %v", id, n, err)
		}
		return time.Since(n.Seen.SeenAt)
	}
	exec(t, pool, `UPDATE graph_ids SET seen_at = seen_at - CASE id WHEN '1' THEN interval '59 minutes' ELSE interval '2 hours' END`)
	if err := s.SeeGraphIDs(ctx, ids); err != nil {
		t.Fatal(err)
	}
	if one, two := age("1"), age("2"); one < 59*time.Minute || two > 30*time.Minute {
		t.Errorf("seen %v and %v ago", one, two)
	}
	if err := s.SeeGraphIDs(ctx, []store.GraphID{{ID: "1", WABAID: "200", Kind: "template"}}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GraphNode(ctx, "1", "", nil); err != nil || n.Seen.WABAID != "200" {
		t.Errorf("%+v, %v", n.Seen, err)
	}
	exec(t, pool, `UPDATE graph_ids SET seen_at = seen_at - interval '31 days' WHERE id = '2'`)
	for _, want := range []int64{1, 0} {
		if n, err := s.ForgetGraphIDs(ctx, 30*24*time.Hour, 10); n != want || err != nil {
			t.Errorf("%d forgotten, want %d: %v", n, want, err)
		}
	}
	if n, err := s.GraphNode(ctx, "2", "", nil); err != nil || n.Seen != nil {
		t.Errorf("%+v, %v", n.Seen, err)
	}
}

func TestSeeInboundMedia(t *testing.T) {
	pool := pgtest.New(t)
	s, ctx := store.New(pool), t.Context()
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('101', '100')`)
	for range 2 {
		err := s.InTx(ctx, func(tx pgx.Tx) error {
			return s.SeeInboundMedia(ctx, tx, map[string]string{"5": "101", "6": "999"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n, err := s.GraphNode(ctx, "5", "", nil)
	if err != nil || n.Seen == nil || n.Seen.WABAID != "100" || *n.Seen.PhoneNumberID != "101" || n.Seen.Kind != "media" {
		t.Errorf("%+v, %v", n.Seen, err)
	}
	if n, err := s.GraphNode(ctx, "6", "", nil); err != nil || n.Seen != nil {
		t.Errorf("%+v, %v", n.Seen, err)
	}
}

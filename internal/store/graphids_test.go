package store_test

import (
	"context"
	"errors"
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

// Seeing ids again moves them on, at most once a day; many may see them at the same time, and none waits for what is no news.
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
	exec(t, pool, `UPDATE graph_ids SET seen_at = seen_at - CASE id WHEN '1' THEN interval '23 hours' ELSE interval '25 hours' END`)
	if err := s.SeeGraphIDs(ctx, ids); err != nil {
		t.Fatal(err)
	}
	if one, two := age("1"), age("2"); one < 23*time.Hour || two > 30*time.Minute {
		t.Errorf("seen %v and %v ago", one, two)
	}
	// Rows that another transaction holds are not waited for.
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT FROM graph_ids FOR UPDATE`); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return s.SeeGraphIDs(soon, ids)
	})
	if err != nil {
		t.Error(err)
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

// What is remembered of an id is not moved by an answer; a webhook of Meta's may.
func TestGraphIDsStay(t *testing.T) {
	pool := pgtest.New(t)
	s, ctx := store.New(pool), t.Context()
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'), ('200')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('101', '100'), ('102', '100'), ('201', '200')`)
	one, two := "101", "102"
	held := []store.GraphID{
		{ID: "1", WABAID: "100", Kind: "template"}, {ID: "2", WABAID: "100", PhoneNumberID: &one, Kind: "media"}, {ID: "3", WABAID: "100", Kind: "phone"}, {ID: "4", WABAID: "999", PhoneNumberID: &one, Kind: "media"},
	}
	if err := s.SeeGraphIDs(ctx, held); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		as    store.GraphID
		moves bool
	}{
		{store.GraphID{ID: "1", WABAID: "200", Kind: "template"}, false}, {store.GraphID{ID: "1", WABAID: "100", Kind: "flow"}, false}, {store.GraphID{ID: "1", WABAID: "100", Kind: "phone"}, false},
		{store.GraphID{ID: "2", WABAID: "100", PhoneNumberID: &two, Kind: "media"}, false}, {store.GraphID{ID: "2", WABAID: "100", Kind: "media"}, false}, {store.GraphID{ID: "2", WABAID: "200", PhoneNumberID: &one, Kind: "media"}, false},
		{store.GraphID{ID: "3", WABAID: "200", Kind: "template"}, false}, {store.GraphID{ID: "3", WABAID: "200", Kind: "phone"}, true}, {store.GraphID{ID: "4", WABAID: "200", Kind: "flow"}, true},
	} {
		for _, age := range []string{"0", "40 days"} { // nor by being old
			exec(t, pool, `UPDATE graph_ids SET seen_at = clock_timestamp() - $1::interval WHERE id = $2::text`, age, c.as.ID)
			err := s.SeeGraphIDs(ctx, []store.GraphID{c.as, {ID: "new " + c.as.ID, WABAID: "100", Kind: "flow"}})
			if errors.Is(err, store.ErrGraphIDHeld) == c.moves || err != nil && c.moves {
				t.Errorf("%+v: %v", c.as, err)
			}
			n, err := s.GraphNode(ctx, c.as.ID, "", nil)
			if err != nil || n.Seen == nil {
				t.Fatalf("%+v, %v", n.Seen, err)
			}
			if is := *n.Seen; (is.WABAID == c.as.WABAID && is.Kind == c.as.Kind && samePhone(is.PhoneNumberID, c.as.PhoneNumberID)) != c.moves {
				t.Errorf("%+v became %+v", c.as, is)
			}
			if n, err := s.GraphNode(ctx, "new "+c.as.ID, "", nil); err != nil || n.Seen == nil {
				t.Errorf("beside %+v another was not remembered: %v", c.as, err)
			}
		}
	}
	err := s.InTx(ctx, func(tx pgx.Tx) error { return s.SeeInboundMedia(ctx, tx, map[string]string{"1": "201", "2": "102"}) })
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][2]string{"1": {"200", "201"}, "2": {"100", "102"}} {
		n, err := s.GraphNode(ctx, id, "", nil)
		if err != nil || n.Seen == nil || n.Seen.WABAID != want[0] || n.Seen.PhoneNumberID == nil || *n.Seen.PhoneNumberID != want[1] || n.Seen.Kind != "media" {
			t.Errorf("%s: %+v, %v", id, n.Seen, err)
		}
	}
}

func samePhone(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

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

package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMoveBacklogs(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	limit := int64(50)
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2"} {
		if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: id, WABAID: "100", Burst: 1, PairBurst: 1, WindowCheck: "off", MaxBacklog: &limit}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := uuid.UUID{1}, uuid.UUID{2}
	today := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	move := store.Arrivals{
		Lanes:    map[string][4]int64{"1": {1, 2, 3, 4}, "gone": {0, 0, 1, 0}},
		Keys:     map[store.KeyAt]int64{{KeyID: a, PhoneNumberID: "1"}: 5, {KeyID: a, PhoneNumberID: "2"}: 6},
		Days:     map[store.KeyDay]int64{{KeyID: a, Day: today}: 7},
		SeeLanes: []string{"2", "none"}, SeeKeys: []uuid.UUID{b}, SeeDays: []store.KeyDay{{KeyID: b, Day: today}, {KeyID: a, Day: today.AddDate(0, 0, -1)}},
	}
	for n := int64(1); n <= 2; n++ {
		got, err := s.MoveBacklogs(t.Context(), move)
		if err != nil {
			t.Fatal(err)
		}
		want := store.LaneBacklog{Waiting: [4]int64{n, 2 * n, 3 * n, 4 * n}, MaxBacklog: 50}
		if len(got.Lanes) != 2 || got.Lanes["1"] != want || got.Lanes["2"] != (store.LaneBacklog{MaxBacklog: 50}) {
			t.Errorf("lanes %+v", got.Lanes)
		}
		if len(got.Keys) != 2 || got.Keys[a] != 11*n || got.Keys[b] != 0 {
			t.Errorf("keys %v", got.Keys)
		}
		if len(got.Days) != 3 || got.Days[store.KeyDay{KeyID: a, Day: today}] != 7*n || got.Days[store.KeyDay{KeyID: b, Day: today}] != 0 {
			t.Errorf("days %v", got.Days)
		}
	}
	if err := s.PublishLanes(t.Context(), "w", []store.LaneNews{
		{PhoneNumberID: "1", Left: [4]int64{2, 0, 0, 0}, PerSecond: 12.5, State: []byte(`{}`)}, {PhoneNumberID: "2", State: []byte(`{}`)},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := s.MoveBacklogs(t.Context(), store.Arrivals{SeeLanes: []string{"1", "2"}})
	if err != nil || got.Lanes["1"] != (store.LaneBacklog{Waiting: [4]int64{0, 4, 6, 8}, Rated: true, PerSecond: 12.5, MaxBacklog: 50}) ||
		got.Lanes["2"] != (store.LaneBacklog{Rated: true, MaxBacklog: 50}) {
		t.Errorf("after the owner's word: %+v, %v", got.Lanes, err)
	}
	if got, err := s.MoveBacklogs(t.Context(), store.Arrivals{}); err != nil || len(got.Lanes)+len(got.Keys)+len(got.Days) != 0 {
		t.Errorf("nothing asked: %+v, %v", got, err)
	}
}

func TestDiskFull(t *testing.T) {
	full := fmt.Errorf("inserting: %w", &pgconn.PgError{Code: "53100"})
	if !store.DiskFull(full) || !store.Unavailable(full) {
		t.Error("53100 is not taken for a full disk")
	}
	for _, err := range []error{nil, errors.New("x"), &pgconn.PgError{Code: "53200"}} {
		if store.DiskFull(err) {
			t.Errorf("%v is taken for a full disk", err)
		}
	}
}

package message

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestNewIDCarriesTheTimeAndAscends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		millis := rapid.Int64Range(0, maxMillis).Draw(t, "millis")
		now := time.UnixMilli(millis).Add(time.Duration(rapid.IntRange(0, 999_999).Draw(t, "nanos")))
		last := NewID(now)
		for range 50 {
			id := NewID(now)
			if slices.Compare(id[:], last[:]) <= 0 {
				t.Fatalf("%s does not come after %s", id, last)
			}
			if got := TimeOf(id); !got.Equal(time.UnixMilli(millis)) || got.Location() != time.UTC {
				t.Fatalf("TimeOf = %v, want millisecond %d in UTC", got, millis)
			}
			if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
				t.Fatalf("%s: version %d, variant %v", id, id.Version(), id.Variant())
			}
			if back, err := ParseID(id.String()); err != nil || back != id {
				t.Fatalf("ParseID(%s) = %s, %v", id, back, err)
			}
			last = id
		}
	})
}

func TestNewIDClampsTimesThatDoNotFit(t *testing.T) {
	if got := TimeOf(NewID(time.Unix(-5, 0))); got.UnixMilli() != 0 {
		t.Errorf("before 1970: %v", got)
	}
	if got := TimeOf(NewID(time.UnixMilli(maxMillis + 5))); got.UnixMilli() != maxMillis {
		t.Errorf("after the last millisecond: %v", got)
	}
}

func TestNewIDIsUniqueAcrossGoroutines(t *testing.T) {
	const goroutines, each = 8, 2000
	now := time.UnixMilli(1_790_000_000_000)
	made := make([][]uuid.UUID, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				made[g] = append(made[g], NewID(now.Add(time.Duration(i%3)*time.Millisecond)))
			}
		})
	}
	wg.Wait()
	seen := make(map[uuid.UUID]bool, goroutines*each)
	for _, id := range slices.Concat(made...) {
		if seen[id] {
			t.Fatalf("%s was made twice", id)
		}
		seen[id] = true
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range []string{
		"", "order-17",
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8",          // version 1
		"f47ac10b-58cc-4372-a567-0e02b2c3d479",          // version 4
		"019a0000-0000-7000-c000-000000000000",          // another variant
		"019a000000007000800000000000000000",            // no hyphens
		"{019a0000-0000-7000-8000-000000000000}",        // braces
		"urn:uuid:019a0000-0000-7000-8000-000000000000", // URN
		"019a0000-0000-7000-8000-00000000000g",          // no hex
		"019a0000-0000-7000-8000-000000000000 ",         // trailing space
		"00000000-0000-0000-0000-000000000000",          // nil
	} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %s", s, id)
		}
	}
}

func TestNextTable(t *testing.T) {
	for _, c := range []struct{ cur, incoming, next, own Status }{
		{Queued, Sent, Sent, Sent},
		{Sending, Accepted, Accepted, Accepted},
		{Unknown, Sent, Sent, Sent},
		{Unknown, Failed, Failed, Failed},
		{Accepted, Failed, Failed, Failed},
		{Sent, Failed, Failed, Failed},
		{Delivered, Failed, Delivered, Delivered},
		{Read, Failed, Read, Read},
		{Played, Failed, Played, Played},
		{Failed, Delivered, Delivered, Delivered},
		{Failed, Read, Read, Read},
		{Failed, Sent, Failed, Sent},
		{Failed, Accepted, Failed, Accepted},
		{Failed, Unknown, Failed, Failed},
		{Expired, Sent, Sent, Sent},
		{Cancelled, Delivered, Delivered, Delivered},
		{Expired, Unknown, Expired, Expired},
		{Cancelled, Expired, Cancelled, Cancelled},
		{Expired, Cancelled, Expired, Expired},
		{Queued, Cancelled, Cancelled, Cancelled},
		{Accepted, Cancelled, Accepted, Accepted},
		{Read, Delivered, Read, Read},
		{Delivered, Sent, Delivered, Delivered},
		{Sent, Queued, Sent, Sent},
		{Sent, "warning", Sent, Sent},
		{Queued, "", Queued, Queued},
	} {
		if got := Next(c.cur, c.incoming); got != c.next {
			t.Errorf("Next(%s, %s) = %s, want %s", c.cur, c.incoming, got, c.next)
		}
		if got := NextOwn(c.cur, c.incoming); got != c.own {
			t.Errorf("NextOwn(%s, %s) = %s, want %s", c.cur, c.incoming, got, c.own)
		}
	}
}

// Whatever order Meta's statuses arrive in, and however often, the message
// ends at the same status.
func TestNextDoesNotDependOnOrderOrRepetition(t *testing.T) {
	meta := []Status{Accepted, Sent, Delivered, Read, Played, Failed}
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SampledFrom(Statuses).Draw(t, "start")
		set := rapid.SliceOfNDistinct(rapid.SampledFrom(meta), 1, len(meta), rapid.ID[Status]).Draw(t, "set")
		fold := func(in []Status) Status {
			cur := start
			for _, s := range in {
				next := Next(cur, s)
				if next.Rank() < cur.Rank() {
					t.Fatalf("%s went back to %s on %s", cur, next, s)
				}
				cur = next
			}
			return cur
		}
		want := fold(set)
		repeats := rapid.SliceOfN(rapid.SampledFrom(set), 0, 12).Draw(t, "repeats")
		again := rapid.Permutation(slices.Concat(set, repeats)).Draw(t, "again")
		if got := fold(again); got != want {
			t.Fatalf("from %s: %v gives %s, %v gives %s", start, set, want, again, got)
		}
	})
}

func TestStatusesAreCompleteAndRanked(t *testing.T) {
	if !slices.IsSortedFunc(Statuses, func(a, b Status) int { return a.Rank() - b.Rank() }) {
		t.Errorf("not by rank: %v", Statuses)
	}
	for _, s := range Statuses {
		if !s.Valid() {
			t.Errorf("%s is not valid", s)
		}
		if s.Ended() != (s.Rank() > Unknown.Rank()) {
			t.Errorf("%s: Ended = %v", s, s.Ended())
		}
	}
	for _, s := range []Status{"", "warning", "deleted", "QUEUED"} {
		if s.Valid() || s.Positive() || s.Ended() {
			t.Errorf("%q passes for a status", s)
		}
	}
}

func TestFromMeta(t *testing.T) {
	for _, s := range []string{"sent", "delivered", "read", "played", "failed"} {
		if got, ok := FromMeta(s); !ok || string(got) != s {
			t.Errorf("FromMeta(%q) = %q, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "deleted", "warning", "queued", "accepted", "cancelled", "SENT"} {
		if got, ok := FromMeta(s); ok {
			t.Errorf("FromMeta(%q) = %q", s, got)
		}
	}
}

func TestWordsComeBack(t *testing.T) {
	for p := Urgent; p <= Low; p++ {
		if got, err := ParsePriority(p.String()); err != nil || got != p {
			t.Errorf("ParsePriority(%s) = %v, %v", p, got, err)
		}
	}
	for _, c := range []Category{Authentication, Utility, Marketing, Service} {
		if got, err := ParseCategory(string(c)); err != nil || got != c {
			t.Errorf("ParseCategory(%s) = %v, %v", c, got, err)
		}
	}
	for _, o := range []OnUnknown{Hold, Resend, Fail} {
		if got, err := ParseOnUnknown(string(o)); err != nil || got != o {
			t.Errorf("ParseOnUnknown(%s) = %v, %v", o, got, err)
		}
	}
	for _, s := range []string{"", "Urgent", "1", "hold "} {
		if _, err := ParsePriority(s); err == nil {
			t.Errorf("ParsePriority(%q) passed", s)
		}
		if _, err := ParseCategory(s); err == nil {
			t.Errorf("ParseCategory(%q) passed", s)
		}
		if _, err := ParseOnUnknown(s); err == nil {
			t.Errorf("ParseOnUnknown(%q) passed", s)
		}
	}
	if Priority(0).String() != "" || Priority(5).Valid() {
		t.Error("a priority outside 1 to 4 passes")
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		explicit Priority
		category Category
		reply    bool
		want     Priority
	}{
		{0, "", false, Normal},
		{0, "", true, High},
		{0, Authentication, false, Urgent},
		{0, Utility, true, Normal},
		{0, Marketing, true, Low},
		{0, Service, false, Normal},
		{0, Service, true, High},
		{Low, Authentication, true, Low},
		{Urgent, Marketing, false, Urgent},
	} {
		if got := DefaultPriority(c.explicit, c.category, c.reply); got != c.want {
			t.Errorf("DefaultPriority(%d, %q, %v) = %s, want %s", c.explicit, c.category, c.reply, got, c.want)
		}
	}
	for _, c := range []struct {
		explicit OnUnknown
		category Category
		want     OnUnknown
	}{
		{"", "", Hold}, {"", Marketing, Hold}, {"", Authentication, Resend},
		{Hold, Authentication, Hold}, {Fail, "", Fail}, {Resend, Marketing, Resend},
	} {
		if got := DefaultOnUnknown(c.explicit, c.category); got != c.want {
			t.Errorf("DefaultOnUnknown(%q, %q) = %s, want %s", c.explicit, c.category, got, c.want)
		}
	}
}

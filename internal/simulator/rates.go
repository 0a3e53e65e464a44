package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"time"
)

// maxRateCells bounds one answer of Rates: phone numbers times buckets.
const maxRateCells = 1_000_000

// Rates counts accepts over time, as GET /_sim/rates gives it.
type Rates struct {
	BucketMS int64 `json:"bucket_ms"`
	// FromMS is where the first bucket begins and NowMS is now, both in milliseconds
	// since the simulator's start.
	FromMS int64 `json:"from_ms"`
	NowMS  int64 `json:"now_ms"`
	// Phones has a count for each bucket by phone number id; all are equally long, and
	// the last bucket may be one that is not over.
	Phones map[string][]int `json:"phones"`
}

// Rates counts the accepts of each phone number in [from, to) by buckets (a millisecond
// or more); to 0 means until now. It looks at the accepts that the ledger holds one by
// one (about the last four million since Reset).
func (s *Server) Rates(bucket, from, to time.Duration) (Rates, error) {
	now := s.now()
	if to <= 0 || to > now {
		to = now + 1 // so that an accept of this instant is in it
	}
	if bucket < time.Millisecond || from < 0 {
		return Rates{}, errors.New("counting rates: a bucket shorter than a millisecond or a start before 0")
	}
	out := Rates{BucketMS: bucket.Milliseconds(), FromMS: from.Milliseconds(), NowMS: now.Milliseconds(), Phones: map[string][]int{}}
	if to <= from {
		return out, nil
	}
	buckets := int((to - from + bucket - 1) / bucket)
	s.mu.Lock()
	l := &s.ledger
	// Neither an arrival nor a phone is ever written again, so that the counting need
	// not hold the lock.
	seen := ledger{base: l.base, next: l.next, chunks: slices.Clone(l.chunks)}
	ids := make([]string, len(s.scopes.byIndex))
	for i, p := range s.scopes.byIndex {
		ids[i] = p.id
	}
	s.mu.Unlock()
	counts := make([][]int, len(ids))
	kept := int(seen.next - seen.base)
	first := sort.Search(kept, func(i int) bool { return seen.at(seen.base+int64(i)).arrival >= from })
	cells := 0
	for i := first; i < kept; i++ {
		r := seen.at(seen.base + int64(i))
		if r.arrival >= to {
			break
		}
		if counts[r.phone] == nil {
			if cells += buckets; cells > maxRateCells {
				return Rates{}, fmt.Errorf("counting rates: more than %d counts; take longer buckets or a shorter time", maxRateCells)
			}
			counts[r.phone] = make([]int, buckets)
			out.Phones[ids[r.phone]] = counts[r.phone]
		}
		counts[r.phone][(r.arrival-from)/bucket]++
	}
	return out, nil
}

func (s *Server) serveRates(w http.ResponseWriter, r *http.Request) {
	var v [3]time.Duration
	for i, p := range []struct {
		name string
		def  int64
	}{{"bucket_ms", 1000}, {"from_ms", 0}, {"to_ms", 0}} {
		n, err := intParam(r.URL.Query(), p.name, p.def)
		if err != nil {
			controlError(w, http.StatusBadRequest, err.Error())
			return
		}
		v[i] = time.Duration(min(n, 10*365*86_400_000)) * time.Millisecond // far beyond any use
	}
	out, err := s.Rates(v[0], v[1], v[2])
	if err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, out)
}

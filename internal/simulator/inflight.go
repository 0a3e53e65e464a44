package simulator

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// maxFlights bounds the workers whose requests under way are counted apart.
const maxFlights = 1000

// flights count the message requests under way by worker. A request takes no lock for it
// once its worker is known.
type flights struct {
	by atomic.Pointer[map[string]*atomic.Int64]
	mu sync.Mutex // serialises changes of by
}

func (f *flights) of(worker string) *atomic.Int64 {
	if by := f.by.Load(); by != nil {
		if n := (*by)[worker]; n != nil {
			return n
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	by := map[string]*atomic.Int64{}
	if old := f.by.Load(); old != nil {
		if len(*old) >= maxFlights {
			worker = "(other)"
		}
		if n := (*old)[worker]; n != nil {
			return n
		}
		maps.Copy(by, *old)
	}
	n := new(atomic.Int64)
	by[strings.Clone(worker)] = n
	f.by.Store(&by)
	return n
}

func (f *flights) view() (by map[string]int64, all int64) {
	by = map[string]int64{}
	counts := f.by.Load()
	if counts == nil {
		return by, 0
	}
	for worker, count := range *counts {
		if n := count.Load(); n > 0 {
			by[worker] = n
			all += n
		}
	}
	return by, all
}

// InFlight is the number of message requests under way now: begun, and not yet answered or
// cut.
func (s *Server) InFlight() int64 {
	_, all := s.flights.view()
	return all
}

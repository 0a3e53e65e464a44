package cloudapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxWait bounds what a header can ask for: the longest block Meta documents
	// is 72 hours, and a header must not stop a WABA for ever.
	maxWait = 7 * 24 * time.Hour
	// maxUsageHeader bounds the usage header that is read, in bytes.
	maxUsageHeader = 64 << 10
)

// EstimatedRegain gives the time until a WABA may call again, by the header
// X-Business-Use-Case-Usage (whole minutes; its objects are keyed by WABA or
// business id, so where the WABA has none, all of them count). Objects of type
// whatsapp, which is sending, are preferred to those of management calls. It
// is 0 when the header says nothing, and at most 7 days.
func EstimatedRegain(h http.Header, wabaID string) time.Duration {
	return regain(h, wabaID, "whatsapp")
}

// ManagementRegain is EstimatedRegain for management calls: their objects, of
// type whatsapp_business_management, are preferred.
func ManagementRegain(h http.Header, wabaID string) time.Duration {
	return regain(h, wabaID, "whatsapp_business_management")
}

func regain(h http.Header, wabaID, preferred string) time.Duration {
	b, ok := usageHeader(h, "X-Business-Use-Case-Usage")
	if !ok {
		return 0
	}
	if own := member(b, wabaID); own != nil {
		return regainOf(own, preferred)
	}
	var longest time.Duration
	members(b, func(_, value []byte) bool {
		longest = max(longest, regainOf(value, preferred))
		return true
	})
	return longest
}

func regainOf(objects []byte, preferred string) time.Duration {
	var wanted, other time.Duration
	there := false
	elements(objects, func(o []byte) bool {
		minutes, ok := textOrNumber(member(o, "estimated_time_to_regain_access"))
		if !ok {
			return true
		}
		wait := waitOf(minutes, time.Minute)
		if kind, _ := text(member(o, "type")); kind == preferred {
			wanted, there = max(wanted, wait), true
		} else {
			other = max(other, wait)
		}
		return true
	})
	if there {
		return wanted
	}
	return other
}

// RetryAfter gives the wait a Retry-After header asks for, in seconds or as a
// date seen from now. It is 0 without a usable header, and at most 7 days.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if s == "" {
		return 0
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxWait)
	}
	return waitOf(s, time.Second)
}

// waitOf reads a count of units; what is no positive number is 0.
func waitOf(s string, unit time.Duration) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0) {
		return 0
	}
	if f > float64(maxWait/unit) {
		return maxWait
	}
	return time.Duration(f * float64(unit))
}

// Usage gives how much of its call limits the app and the WABA have used, in percent
// (throttled at 100): of X-App-Usage, and of the WABA's objects of type whatsapp in
// X-Business-Use-Case-Usage, the highest of call_count, total_cputime and total_time.
// Objects are keyed by WABA or business id: where the WABA has none, those of all ids
// count. What is not said is 0; nothing is over 1000.
func Usage(h http.Header, wabaID string) (app, waba float64) {
	if b, ok := usageHeader(h, "X-App-Usage"); ok {
		app = usageOf(b)
	}
	b, ok := usageHeader(h, "X-Business-Use-Case-Usage")
	if !ok {
		return app, 0
	}
	sending := func(objects []byte) {
		elements(objects, func(o []byte) bool {
			if kind, _ := text(member(o, "type")); kind == "whatsapp" {
				waba = max(waba, usageOf(o))
			}
			return true
		})
	}
	if own := member(b, wabaID); own != nil {
		sending(own)
		return app, waba
	}
	members(b, func(_, value []byte) bool {
		sending(value)
		return true
	})
	return app, waba
}

// usageHeader reads a header that holds JSON; false when it is absent, too long or none.
func usageHeader(h http.Header, name string) ([]byte, bool) {
	raw := h.Get(name)
	if raw == "" || len(raw) > maxUsageHeader {
		return nil, false
	}
	b := []byte(raw)
	return b, json.Valid(b)
}

// maxUsage bounds a percentage that a header gives.
const maxUsage = 1000

func usageOf(o []byte) float64 {
	var most float64
	for _, name := range [...]string{"call_count", "total_cputime", "total_time"} {
		s, _ := textOrNumber(member(o, name))
		if f, err := strconv.ParseFloat(s, 64); err == nil && f > most {
			most = min(f, maxUsage)
		}
	}
	return most
}

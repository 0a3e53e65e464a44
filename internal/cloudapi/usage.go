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
	raw := h.Get("X-Business-Use-Case-Usage")
	if raw == "" || len(raw) > maxUsageHeader || !json.Valid([]byte(raw)) {
		return 0
	}
	b := []byte(raw)
	if own := member(b, wabaID); own != nil {
		return regainOf(own)
	}
	var longest time.Duration
	members(b, func(_, value []byte) bool {
		longest = max(longest, regainOf(value))
		return true
	})
	return longest
}

func regainOf(objects []byte) time.Duration {
	var sending, other time.Duration
	isSending := false
	elements(objects, func(o []byte) bool {
		minutes, ok := textOrNumber(member(o, "estimated_time_to_regain_access"))
		if !ok {
			return true
		}
		wait := waitOf(minutes, time.Minute)
		if kind, _ := text(member(o, "type")); kind == "whatsapp" {
			sending, isSending = max(sending, wait), true
		} else {
			other = max(other, wait)
		}
		return true
	})
	if isSending {
		return sending
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
